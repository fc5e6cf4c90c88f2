//! Choices in virtual time, with numbers that are given.

use super::*;
use crate::policy::Template;

const AT: [&str; 4] = ["10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80", "10.1.0.4:80"];

fn at(index: usize) -> SocketAddr {
    AT[index].parse().unwrap()
}

fn roster(count: usize) -> Arc<Roster> {
    Arc::new(Roster::of((0..count).map(at)))
}

/// A group with so many members, and a generator of numbers that only looks random.
fn group(count: usize) -> (Group, Instant, impl FnMut() -> u64) {
    let now = Instant::now();
    let mut seed = 7_u64;
    let random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed >> 33
    };
    (Group::new(roster(count), 0, now), now, random)
}

fn answered(ms: u64) -> Outcome {
    Outcome::Answered(Duration::from_millis(ms))
}

/// One request, from beginning to end.
fn request(
    group: &mut Group,
    spread: Option<&Spread>,
    now: Instant,
    random: &mut impl FnMut() -> u64,
    outcome: impl Fn(SocketAddr) -> Outcome,
) -> SocketAddr {
    let to = group.pick(spread, 0, now, &[], random).unwrap();
    group.begin(to);
    group.judge(to, outcome(to), now);
    group.end(to);
    to
}

#[test]
fn everybody_is_tried_before_anybody_is_preferred() {
    let (mut group, now, mut random) = group(4);
    let first: std::collections::BTreeSet<SocketAddr> = (0..4)
        .map(|_| request(&mut group, None, now, &mut random, |_| answered(5)))
        .collect();
    assert_eq!(first.len(), 4);
}

#[test]
fn the_slow_one_gets_less_and_is_forgiven() {
    let (mut group, now, mut random) = group(4);
    let slow = at(2);
    let outcome = |to| {
        if to == slow {
            answered(500)
        } else {
            answered(5)
        }
    };
    let mut count = |group: &mut Group, now| {
        let all = (0..100).map(|_| request(group, None, now, &mut random, outcome));
        all.filter(|to| *to == slow).count()
    };
    assert!(count(&mut group, now) <= 1, "only its first request");
    let later = now + LATENCY_FORGOTTEN * 20;
    assert!(count(&mut group, later) >= 1, "it is asked again some time");
}

#[test]
fn whoever_has_fewer_requests_gets_the_next() {
    let (mut group, now, mut random) = group(2);
    for _ in 0..10 {
        let to = group
            .pick(Some(&Spread::LeastRequests), 0, now, &[], &mut random)
            .unwrap();
        group.begin(to);
    }
    assert_eq!(group.members[0].pending, 5);
    assert_eq!(group.members[1].pending, 5);
}

#[test]
fn turns_go_round_and_past_those_who_were_tried() {
    let (mut group, now, mut random) = group(3);
    let mut pick =
        |tried: &[SocketAddr]| group.pick(Some(&Spread::RoundRobin), 0, now, tried, &mut random);
    let six: Vec<SocketAddr> = (0..6).map(|_| pick(&[]).unwrap()).collect();
    assert_eq!(six[..3], six[3..]);
    assert_eq!(pick(&[at(0), at(1)]), Some(at(2)));
    assert_eq!(pick(&[at(0), at(1), at(2)]), None);
}

#[test]
fn a_hash_is_one_endpoint_and_its_neighbour_stands_in() {
    let (mut group, now, mut random) = group(4);
    let spread = Spread::Hash(Template::parse("$request_uri").unwrap());
    let mut pick = |tried: &[SocketAddr]| group.pick(Some(&spread), 12, now, tried, &mut random);
    let one = pick(&[]).unwrap();
    assert!((0..10).all(|_| pick(&[]) == Some(one)));
    assert_ne!(pick(&[one]).unwrap(), one);
}

#[test]
fn the_services_own_wish_counts_where_nothing_else_is_said() {
    let (mut group, now, mut random) = group(3);
    let mut roster = Roster::of((0..3).map(at));
    roster.balance = Some(Balance::SourceHash);
    group.follow(&Arc::new(roster), now);
    let mut pick = |spread| group.pick(spread, 5, now, &[], &mut random).unwrap();
    let one = pick(None);
    assert!((0..10).all(|_| pick(None) == one));
    assert!((0..10).any(|_| pick(Some(&Spread::RoundRobin)) != one));
}

#[test]
fn who_fails_all_the_time_is_out_for_a_while() {
    let (mut group, now, mut random) = group(4);
    let (bad, worse) = (at(1), at(3));
    for _ in 0..FAILURES_MAX {
        group.judge(bad, Outcome::Failed, now);
        group.judge(worse, Outcome::Failed, now);
    }
    let mut hits = |group: &mut Group, now| {
        let all = (0..100).map(|_| group.pick(Some(&Spread::RoundRobin), 0, now, &[], &mut random));
        all.filter(|to| *to == Some(bad)).count()
    };
    assert_eq!(hits(&mut group, now), 0);
    for _ in 0..FAILURES_MAX {
        group.judge(at(0), Outcome::Failed, now);
    }
    assert!(
        !group.members[0].is_out(now),
        "half of them are out already"
    );
    assert!(hits(&mut group, now + OUT_BASE) > 0, "it comes back");
    // The second time it is out for longer.
    let later = now + OUT_BASE;
    for _ in 0..FAILURES_MAX {
        group.judge(bad, Outcome::Failed, later);
    }
    assert_eq!(hits(&mut group, later + OUT_BASE), 0);
    assert!(hits(&mut group, later + OUT_BASE * 2) > 0);
}

#[test]
fn one_endpoint_is_never_out() {
    let (mut group, now, mut random) = group(1);
    (0..50).for_each(|_| group.judge(at(0), Outcome::Failed, now));
    assert_eq!(group.pick(None, 0, now, &[], &mut random), Some(at(0)));
}

#[test]
fn retries_have_a_budget() {
    let (mut group, now, _) = group(2);
    let saved = (0..1000).filter(|_| group.may_retry(now)).count();
    assert_eq!(saved as f64, RETRIES_SAVED_MAX);
    (0..50).for_each(|_| group.begin(at(0)));
    let earned = (0..1000).filter(|_| group.may_retry(now)).count();
    assert!(
        (9..=10).contains(&earned),
        "a fifth of fifty requests: {earned}"
    );
    let second = now + Duration::from_secs(1);
    let waited = (0..1000).filter(|_| group.may_retry(second)).count();
    assert!((10..=11).contains(&waited), "{waited}");
}

#[test]
fn there_is_room_for_so_many_requests() {
    let (mut group, _, _) = group(1);
    (0..UNDER_WAY_MAX).for_each(|_| group.begin(at(0)));
    assert!(!group.has_room());
    group.end(at(0));
    assert!(group.has_room());
}

#[test]
fn what_is_known_survives_a_change_of_endpoints() {
    let (mut group, now, _) = group(2);
    group.begin(at(1));
    group.judge(at(1), answered(7), now);
    group.follow(&roster(3), now);
    assert_eq!(group.members[1].latency, Some(7000.0));
    assert_eq!(group.members[1].pending, 1);
    assert_eq!((group.members.len(), group.unmeasured), (3, 2));
    group.follow(&roster(1), now);
    group.end(at(1));
    group.judge(at(1), answered(7), now);
    assert_eq!((group.members.len(), group.unmeasured), (1, 1));
}

#[test]
fn a_new_endpoint_begins_slowly() {
    let (mut group, now, mut random) = group(1);
    group.judge(at(0), answered(5), now);
    let mut roster = Roster::of((0..2).map(at));
    roster.slow_start = Some(Duration::from_secs(30));
    group.follow(&Arc::new(roster), now);
    request(&mut group, None, now, &mut random, |_| answered(5));
    let mut count = |group: &mut Group, now| {
        let all = (0..100).map(|_| request(group, None, now, &mut random, |_| answered(5)));
        all.filter(|to| *to == at(1)).count()
    };
    assert_eq!(count(&mut group, now + Duration::from_secs(1)), 0);
    assert!(count(&mut group, now + Duration::from_secs(31)) > 20);
}
