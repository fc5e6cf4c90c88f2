//! A cluster in virtual time: clients that open flows, endpoints that behave well or badly, and the detector between.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use proptest::prelude::*;

use super::detector::{LOOKS_PER_SECOND, WATCHED_MAX};
use super::*;
use crate::{Endpoint, NodeFacts, Overlay, PortKey, Protocol, ServicePort, Snapshot, decide};

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Its process answers after so many milliseconds.
    Alive(u64),
    /// It answers, but keeps its connections open.
    Lasting,
    /// It makes nothing of a client that closes; connections stay open.
    Deaf,
    /// The same, but it closes when it has served a client.
    DeafAndDone,
    /// Its kernel takes connections, its process is stopped.
    Hung,
    /// Nobody listens.
    Gone,
    /// Its node is cut off.
    CutOff,
}

const STEP: Duration = Duration::from_millis(10);

struct World {
    now: Duration,
    manners: BTreeMap<Listener, Manner>,
    overlay: Overlay,
    detector: Detector,
    /// When checks are answered.
    pending: Vec<(Duration, u64, Answer)>,
    news: Vec<(Duration, News)>,
    checks: usize,
    flows: u16,
    /// Our checks do not reach it.
    kept_away: Option<Listener>,
    began: BTreeMap<FlowKey, (Duration, Listener)>,
}

fn listener(index: usize) -> Listener {
    Listener {
        protocol: Protocol::Tcp,
        address: SocketAddr::from(([10, 1, 0, index as u8 + 1], 8080)),
    }
}

fn port(count: usize) -> ServicePort {
    let key = PortKey::new("shop", "web", "http", Protocol::Tcp);
    let mut port = ServicePort::new(key, NonZeroU16::new(80).unwrap());
    port.cluster_ips = vec!["172.30.0.1".parse().unwrap()];
    port.endpoints = (0..count)
        .map(|index| Endpoint::ready(listener(index).address))
        .collect();
    port
}

fn snapshot(port: ServicePort) -> Snapshot {
    let mut snapshot = Snapshot::new(NodeFacts::default());
    snapshot.set(port);
    snapshot
}

impl World {
    fn new(manners: &[Manner]) -> Self {
        World::with(manners, Config::default())
    }

    fn with(manners: &[Manner], config: Config) -> Self {
        let mut overlay = Overlay::default();
        overlay.on_snapshot(snapshot(port(manners.len())));
        World {
            now: Duration::from_secs(1),
            manners: (0..).map(listener).zip(manners.iter().copied()).collect(),
            overlay,
            detector: Detector::new(config),
            pending: Vec::new(),
            news: Vec::new(),
            checks: 0,
            flows: 0,
            kept_away: None,
            began: BTreeMap::new(),
        }
    }

    fn set(&mut self, index: usize, manner: Manner) {
        self.manners.insert(listener(index), manner);
    }

    /// A client opens a flow to the `choice`th of those who are in rotation.
    fn flow(&mut self, choice: usize) {
        let key = PortKey::new("shop", "web", "http", Protocol::Tcp);
        let port = self.overlay.snapshot().port(&key).unwrap().clone();
        let treatment = &decide(self.overlay.snapshot().node(), &port)[0];
        let crate::Action::Balance { endpoints, .. } = &treatment.pod else {
            return;
        };
        let all: Vec<SocketAddr> = endpoints.addresses.to_vec();
        let address = all[choice % all.len()];
        let replier = Listener {
            protocol: Protocol::Tcp,
            address,
        };
        self.flows = self.flows.wrapping_add(1);
        let key = FlowKey {
            source: SocketAddr::from(([10, 9, 0, 1], self.flows)),
            destination: "172.30.0.1:80".parse().unwrap(),
        };
        self.began.insert(key, (self.now, replier));
        let api = self.overlay.upstream().clone();
        self.detector.on_flow(self.now, key, replier, &api);
    }

    fn state(&self, key: &FlowKey) -> FlowState {
        let (began, replier) = self.began[key];
        let age = self.now - began;
        match self.manners[&replier] {
            Manner::Alive(ms) if age >= Duration::from_millis(ms) => FlowState::Finished,
            Manner::DeafAndDone => FlowState::Finished,
            Manner::Alive(_) | Manner::Lasting | Manner::Deaf | Manner::Hung => FlowState::Quiet,
            Manner::Gone => FlowState::Gone,
            Manner::CutOff => FlowState::Unanswered,
        }
    }

    fn answer(&self, listener: Listener, patience: Duration) -> (Duration, Answer) {
        let soon = Duration::from_millis(1);
        if self.kept_away == Some(listener) {
            return (patience, Answer::Unreachable);
        }
        match self.manners[&listener] {
            Manner::Alive(ms) if Duration::from_millis(ms) < patience => {
                (Duration::from_millis(ms), Answer::Answered)
            }
            Manner::Lasting => (soon, Answer::Answered),
            Manner::Alive(_) | Manner::Deaf | Manner::DeafAndDone | Manner::Hung => {
                (patience, Answer::Silent)
            }
            Manner::Gone => (soon, Answer::Refused),
            Manner::CutOff => (patience, Answer::Unreachable),
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        let due = |(at, _, _): &mut (Duration, u64, Answer)| *at <= self.now;
        let reported: Vec<_> = self.pending.extract_if(.., due).collect();
        for (_, id, answer) in reported {
            self.detector.on_check(self.now, id, answer);
        }
        // Looks are reported at once, and may ask for more.
        while self.detector.due().is_some_and(|due| due <= self.now) {
            let (orders, news) = self.detector.step(self.now, &mut self.overlay);
            self.news
                .extend(news.into_iter().map(|news| (self.now, news)));
            for order in orders {
                match order {
                    Order::Look(listener, key) => {
                        let state = self.state(&key);
                        self.detector.on_look(self.now, listener, state);
                    }
                    Order::Check {
                        id,
                        listener,
                        patience,
                    } => {
                        let (after, answer) = self.answer(listener, patience);
                        self.checks += 1;
                        self.pending.push((self.now + after, id, answer));
                    }
                }
            }
        }
    }

    /// Lets time pass with a flow every 20 ms.
    fn run(&mut self, seconds: f64) {
        let until = self.now + Duration::from_secs_f64(seconds);
        while self.now < until {
            self.step();
            if self.now.as_millis().is_multiple_of(20) {
                self.flow(usize::from(self.flows) * 7 + usize::from(self.flows) / 3);
            }
        }
    }

    fn out(&self) -> BTreeSet<usize> {
        let all = self.overlay.ejected();
        (0..self.manners.len())
            .filter(|index| all.contains_key(&listener(*index)))
            .collect()
    }
}

const FINE: Manner = Manner::Alive(5);

/// Runs until `index` is ejected and says how long it took.
fn time_to_eject(world: &mut World, index: usize) -> Duration {
    let began = world.now;
    while !world.out().contains(&index) {
        world.run(0.02);
        assert!(world.now - began < Duration::from_secs(5), "{index} stays");
    }
    world.now - began
}

#[test]
fn whoever_does_not_answer_is_out_within_two_seconds_and_comes_back() {
    for manner in [Manner::Hung, Manner::Gone, Manner::CutOff] {
        let mut world = World::new(&[FINE, FINE, FINE]);
        world.run(3.0);
        world.set(1, manner);
        let took = time_to_eject(&mut world, 1);
        assert!(took < Duration::from_millis(1600), "{manner:?}: {took:?}");
        world.run(30.0);
        assert_eq!(world.out(), BTreeSet::from([1]), "{manner:?}");
        world.set(1, FINE);
        world.run(11.5);
        assert_eq!(world.out(), BTreeSet::new(), "{manner:?}");
        assert_eq!(world.news.len(), 2, "{:?}", world.news);
    }
}

#[test]
fn connections_that_last_are_no_reason_and_hide_none() {
    let mut world = World::new(&[Manner::Lasting, Manner::Lasting, Manner::Lasting]);
    world.run(20.0);
    assert!(world.news.is_empty(), "{:?}", world.news);
    world.set(2, Manner::Hung);
    let took = time_to_eject(&mut world, 2);
    assert!(took < Duration::from_millis(1600), "{took:?}");
}

/// All clients wait for it, and open no more connections.
#[test]
fn the_last_connection_tells_too() {
    let mut world = World::new(&[FINE; 3]);
    world.run(3.0);
    let calls = |world: &mut World| {
        let key = FlowKey {
            source: SocketAddr::from(([10, 9, 0, 2], world.flows)),
            destination: "172.30.0.1:80".parse().unwrap(),
        };
        world.flows += 1;
        world.began.insert(key, (world.now, listener(1)));
        let api = world.overlay.upstream().clone();
        world.detector.on_flow(world.now, key, listener(1), &api);
    };
    calls(&mut world);
    (0..10).for_each(|_| world.step());
    world.set(1, Manner::Hung);
    calls(&mut world);
    (0..190).for_each(|_| world.step());
    assert_eq!(world.out(), BTreeSet::from([1]));
}

#[test]
fn a_slow_process_stays() {
    let mut world = World::new(&[Manner::Alive(900), FINE, Manner::Alive(450)]);
    world.run(60.0);
    assert!(world.news.is_empty(), "{:?}", world.news);
}

#[test]
fn servers_that_make_nothing_of_checks_stay_and_are_asked_ever_less() {
    let mut world = World::new(&[Manner::Deaf, Manner::Deaf, Manner::Deaf]);
    world.run(30.0);
    assert!(world.out().is_empty());
    let at_first = world.checks;
    world.run(60.0);
    assert!(world.checks - at_first < 150, "{at_first} {}", world.checks);
    // What their kernels say still counts.
    world.set(0, Manner::CutOff);
    let took = time_to_eject(&mut world, 0);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn when_all_are_cut_off_nobody_goes() {
    let mut world = World::new(&[FINE; 6]);
    world.run(3.0);
    (0..6).for_each(|index| world.set(index, Manner::CutOff));
    world.run(30.0);
    let kept = |(_, news): &(Duration, News)| matches!(news, News::KeptAlone(..));
    assert!(world.news.iter().all(kept), "{:?}", world.news);
    assert_eq!(world.news.len(), 6, "each is told once: {:?}", world.news);
    // Their siblings answer again, they do not.
    (0..5).for_each(|index| world.set(index, FINE));
    time_to_eject(&mut world, 5);
}

#[test]
fn who_serves_and_has_never_answered_a_check_is_not_silent() {
    let mut world = World::new(&[FINE, Manner::DeafAndDone, FINE]);
    world.run(10.0);
    // Now and then it has more to do.
    for _ in 0..20 {
        world.set(1, Manner::Deaf);
        world.run(2.0);
        world.set(1, Manner::DeafAndDone);
        world.run(1.0);
    }
    let kept = |(_, news): &(Duration, News)| matches!(news, News::KeptAlone(..));
    assert!(world.news.iter().all(kept), "{:?}", world.news);
    // That it takes no connections counts all the same.
    world.set(1, Manner::CutOff);
    time_to_eject(&mut world, 1);
}

#[test]
fn who_hangs_before_anybody_has_seen_it_goes_too() {
    let mut world = World::new(&[FINE, Manner::Hung, FINE]);
    time_to_eject(&mut world, 1);
    assert_eq!(world.out(), BTreeSet::from([1]));
}

/// A policy that lets clients in, but not us.
#[test]
fn checks_that_somebody_keeps_away_are_no_reason() {
    let mut world = World::new(&[Manner::Lasting; 3]);
    world.kept_away = Some(listener(1));
    world.run(60.0);
    assert!(world.news.is_empty(), "{:?}", world.news);
}

#[test]
fn who_is_out_again_soon_waits_for_longer() {
    let mut world = World::new(&[FINE; 3]);
    let mut failures = Vec::new();
    for _ in 0..4 {
        world.set(1, Manner::Hung);
        time_to_eject(&mut world, 1);
        let began = world.now;
        world.set(1, FINE);
        while world.out().contains(&1) {
            world.run(0.01);
        }
        failures.push((world.now - began).as_millis() / 100);
    }
    assert_eq!(failures, [5, 10, 20, 40]);
}

#[test]
fn a_service_that_does_not_want_it_is_left_alone() {
    let unwatched = || {
        let mut port = port(3);
        port.is_watched = false;
        snapshot(port)
    };
    let mut world = World::new(&[FINE, Manner::Hung, FINE]);
    world.overlay.on_snapshot(unwatched());
    world.run(5.0);
    assert_eq!((world.checks, world.detector.watched()), (0, 0));
    // Who is out when it is asked for comes back.
    world.overlay.on_snapshot(snapshot(port(3)));
    time_to_eject(&mut world, 1);
    world.overlay.on_snapshot(unwatched());
    world.run(11.0);
    assert!(world.out().is_empty());
}

#[test]
fn an_ejected_one_comes_back_when_its_siblings_are_gone() {
    let mut world = World::new(&[FINE, Manner::CutOff]);
    time_to_eject(&mut world, 1);
    let mut left = port(2);
    left.endpoints = left.endpoints.iter().skip(1).cloned().collect();
    world.overlay.on_snapshot(snapshot(left));
    world.run(11.0);
    assert_eq!(world.out(), BTreeSet::new());
    assert!(matches!(
        world.news[..],
        [(_, News::Ejected(..)), (_, News::Readmitted(..))]
    ));
}

/// Its answer comes when its address has another owner.
#[test]
fn a_check_of_an_earlier_trial_says_nothing_in_a_later_one() {
    let mut world = World::new(&[FINE, Manner::CutOff, FINE]);
    while world.checks == 0 {
        world.run(0.02);
    }
    world.detector.forget(listener(1));
    world.set(1, Manner::Lasting);
    world.run(3.0);
    assert!(world.news.is_empty(), "{:?}", world.news);
}

#[test]
fn no_more_go_than_allowed_and_never_the_last() {
    for (percent_max, most) in [(50, 2), (0, 1), (100, 3)] {
        let config = Config {
            percent_max,
            ..Config::default()
        };
        let mut world = World::with(&[FINE; 4], config);
        world.run(3.0);
        (1..4).for_each(|index| world.set(index, Manner::Hung));
        world.run(20.0);
        assert_eq!(world.out().len(), most, "{percent_max} %: {:?}", world.news);
    }
    let mut alone = World::new(&[Manner::Hung]);
    alone.run(20.0);
    assert_eq!((alone.checks, alone.out().len()), (0, 0));
}

#[test]
fn who_is_on_the_way_out_is_not_judged() {
    let mut world = World::new(&[FINE, Manner::Gone, FINE]);
    let mut leaving = port(3);
    let mut endpoints = leaving.endpoints.to_vec();
    endpoints[1].ready = false;
    endpoints[1].terminating = true;
    leaving.endpoints = endpoints.into();
    world.overlay.on_snapshot(snapshot(leaving));
    world.run(5.0);
    assert!(world.news.is_empty(), "{:?}", world.news);
}

#[test]
fn who_leaves_during_its_trial_is_forgotten() {
    let mut world = World::new(&[FINE, Manner::CutOff, FINE]);
    while world.checks == 0 {
        world.run(0.02);
    }
    let mut left = port(3);
    left.endpoints = left
        .endpoints
        .iter()
        .filter(|e| e.address != listener(1).address)
        .cloned()
        .collect();
    world.overlay.on_snapshot(snapshot(left));
    world.run(5.0);
    assert!(world.news.is_empty(), "{:?}", world.news);
}

#[test]
fn the_budget_of_checks_holds() {
    let config = Config {
        checks_per_second: 20,
        ..Config::default()
    };
    let mut world = World::with(&[Manner::Lasting; 40], config);
    world.run(10.0);
    assert!(world.checks <= 20 * 11, "{}", world.checks);
}

#[test]
fn what_is_watched_is_forgotten_and_bounded() {
    let mut world = World::new(&[FINE; 3]);
    world.run(1.0);
    assert_eq!(world.detector.watched(), 3);
    (0..34_000).for_each(|_| world.step());
    assert_eq!(world.detector.watched(), 0);
    assert!(world.detector.agenda.is_empty());
}

/// How many are watched after each of `many` endpoints got a connection, one every `pause`.
fn watched(many: usize, pause: Duration) -> usize {
    let at = |index: usize| SocketAddr::from(([10, 1, (index >> 8) as u8, index as u8], 8080));
    let mut all = port(0);
    all.endpoints = (0..many).map(|index| Endpoint::ready(at(index))).collect();
    let api = snapshot(all);
    let mut detector = Detector::new(Config::default());
    for index in 0..many {
        let key = FlowKey {
            source: SocketAddr::from(([10, 9, 0, 1], 1)),
            destination: "172.30.0.1:80".parse().unwrap(),
        };
        let to = Listener {
            protocol: Protocol::Tcp,
            address: at(index),
        };
        detector.on_flow(pause * index as u32, key, to, &api);
    }
    detector.watched()
}

#[test]
fn no_more_are_watched_than_there_is_room_for() {
    let slowly = Duration::from_millis(1);
    assert_eq!(watched(WATCHED_MAX + 10, slowly), WATCHED_MAX);
}

#[test]
fn no_more_are_looked_at_than_the_budget_allows() {
    let looks = LOOKS_PER_SECOND as usize;
    assert_eq!(watched(looks + 10, Duration::ZERO), looks);
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        4 => (0..950_u64).prop_map(Manner::Alive),
        2 => Just(Manner::Lasting),
        1 => Just(Manner::DeafAndDone),
        1 => Just(Manner::Hung),
        1 => Just(Manner::Gone),
        1 => Just(Manner::CutOff),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the others do, whoever answers a check in time stays.
    #[test]
    fn a_healthy_endpoint_is_never_ejected(
        changes in prop::collection::vec((0..6_usize, manner(), 1..80_u8), 1..10),
    ) {
        let mut world = World::new(&[FINE; 6]);
        let mut bad = BTreeSet::new();
        for (index, manner, tenths) in changes {
            world.set(index, manner);
            if matches!(manner, Manner::Hung | Manner::Gone | Manner::CutOff) {
                bad.insert(listener(index));
            }
            world.run(f64::from(tenths) / 10.0);
        }
        for (_, news) in &world.news {
            if let News::Ejected(who, _) = news {
                prop_assert!(bad.contains(who), "{who} was healthy all along: {:?}", world.news);
            }
        }
        prop_assert!(world.out().len() <= 3);
    }
}
