//! The loop against a target that fails, forgets and is changed by others.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::*;
use crate::{Endpoint, NodeFacts, Packet, PortKey, Protocol, ServicePort, Verdict};

/// Endpoints by key: the smallest data plane that can be wrong.
#[derive(Clone, Copy)]
struct Plain;

type Map = BTreeMap<String, String>;

fn entry(port: &ServicePort) -> (String, String) {
    let endpoints = port.endpoints.iter().map(|e| e.address.to_string());
    (
        port.key.to_string(),
        endpoints.collect::<Vec<_>>().join(" "),
    )
}

/// Ports with a NodePort are what this data plane cannot do.
fn problem(port: &ServicePort) -> Option<Problem> {
    port.node_port.map(|_| Problem {
        service: port.key.service.clone(),
        reason: Problem::NOT_IN_THIS_MODE,
        message: "no NodePorts".into(),
    })
}

impl Backend for Plain {
    type State = Map;
    type Ops = Vec<(String, Option<String>)>;

    fn compile(&self, snapshot: &Snapshot) -> (Map, Vec<Problem>) {
        let problems = snapshot.ports().filter_map(|port| problem(port));
        // What belongs to no port: `update` leaves it as it is.
        let node = ("node".to_owned(), snapshot.node().name.to_string());
        let entries = snapshot.ports().map(|port| entry(port));
        (entries.chain([node]).collect(), problems.collect())
    }

    fn update(&self, state: &mut Map, snapshot: &Snapshot, touched: &[PortKey]) -> Vec<Problem> {
        for key in touched {
            match snapshot.port(key) {
                Some(port) => state.extend([entry(port)]),
                None => drop(state.remove(&key.to_string())),
            }
        }
        let touched = touched.iter().filter_map(|key| snapshot.port(key));
        touched.filter_map(|port| problem(port)).collect()
    }

    fn diff(&self, from: Option<&Map>, to: &Map) -> Self::Ops {
        let mut ops = Vec::new();
        match from {
            None => ops.push(("*".into(), None)),
            Some(from) => {
                let gone = from.keys().filter(|key| !to.contains_key(*key));
                ops.extend(gone.map(|key| (key.clone(), None)));
            }
        }
        let known = |key: &String, value: &String| from.and_then(|f| f.get(key)) == Some(value);
        let new = to.iter().filter(|(key, value)| !known(key, value));
        ops.extend(new.map(|(key, value)| (key.clone(), Some(value.clone()))));
        ops
    }

    fn is_empty(&self, ops: &Self::Ops) -> bool {
        ops.is_empty()
    }

    fn trace(&self, _: &Map, _: &Packet) -> Verdict {
        Verdict::Pass
    }

    fn shares(&self, _: &Map, _: &Packet) -> BTreeMap<std::net::SocketAddr, u32> {
        BTreeMap::new()
    }
}

/// A target whose calls fail now and then, before or after they had their effect.
#[derive(Default)]
struct Faulty {
    stands: Option<Map>,
    /// Of a hundred calls, how many fail.
    failures: u64,
    random: u64,
    calls: usize,
    /// Nobody else has changed anything since it was read or rewritten.
    certain: bool,
}

impl Faulty {
    fn roll(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100
    }

    /// Somebody else changes it.
    fn meddle(&mut self, stands: Option<Map>) {
        self.stands = stands;
        self.certain = false;
    }

    fn fails(&mut self) -> Result<(), ApplyError> {
        self.calls += 1;
        match self.roll() < self.failures {
            false => Ok(()),
            true => Err(ApplyError {
                doing: "fake".into(),
                words: "no luck".into(),
            }),
        }
    }
}

impl Target<Plain> for Faulty {
    fn apply(&mut self, ops: &Vec<(String, Option<String>)>) -> Result<(), ApplyError> {
        self.fails()?;
        let mut next = self.stands.clone();
        self.certain |= ops.iter().any(|(key, _)| key == "*");
        for (key, value) in ops {
            match (key.as_str(), value) {
                ("*", _) => next = Some(Map::new()),
                (key, None) => drop(next.get_or_insert_default().remove(key)),
                (key, Some(value)) => {
                    next.get_or_insert_default()
                        .insert(key.into(), value.clone());
                }
            }
        }
        self.stands = next;
        // The answer is lost: it stands, but nobody knows.
        self.fails()
    }

    fn read(&mut self) -> Result<Option<Map>, ApplyError> {
        self.fails()?;
        self.certain = true;
        Ok(self.stands.clone())
    }

    fn unchanged(&mut self) -> Result<bool, ApplyError> {
        self.fails()?;
        Ok(self.certain)
    }
}

fn port(name: u64, address: u64) -> ServicePort {
    let key = PortKey::new("shop", &format!("s{name}"), "", Protocol::Tcp);
    let mut port = ServicePort::new(key, NonZeroU16::MIN);
    let address = format!("10.0.0.{address}:80").parse().unwrap();
    port.endpoints = Arc::new([Endpoint::ready(address)]);
    port
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Steps until nothing is due before `end`; gives back how many steps there were.
fn run(sync: &mut Sync<Plain>, target: &mut Faulty, from: Duration, end: Duration) -> usize {
    let mut now = from;
    let mut steps = 0;
    while let Some(due) = sync.due().filter(|due| *due <= end) {
        now = now.max(due);
        sync.step(now, target);
        steps += 1;
        assert!(steps < 1_000_000, "time does not go on");
    }
    steps
}

#[test]
fn nothing_is_done_before_the_first_snapshot() {
    let mut sync = Sync::new(Plain, Pace::default());
    let mut target = Faulty::default();
    assert_eq!(sync.due(), None);
    assert!(!sync.step(ms(0), &mut target).stands);
    assert_eq!(sync.snapshot(), None);
    assert_eq!(target.calls, 0);
}

#[test]
fn what_stands_is_adopted_without_a_word() {
    let mut snapshot = Snapshot::new(NodeFacts::default());
    snapshot.set(port(1, 1));
    let mut target = Faulty {
        stands: Some(Plain.compile(&snapshot).0),
        ..Faulty::default()
    };
    let mut sync = Sync::new(Plain, Pace::default());
    sync.on_snapshot(snapshot);
    let outcome = sync.step(ms(0), &mut target);
    assert!(outcome.stands && !outcome.applied);
    assert!(sync.state().is_some());
}

#[test]
fn changes_wait_for_the_minimum_interval_and_go_together() {
    let mut snapshot = Snapshot::new(NodeFacts::default());
    let mut sync = Sync::new(Plain, Pace::default());
    let mut target = Faulty::default();
    sync.on_snapshot(snapshot.clone());
    assert!(sync.step(ms(0), &mut target).stands);
    for index in 0..5 {
        snapshot.set(port(index, 1));
        sync.on_snapshot(snapshot.clone());
        assert!(!sync.step(ms(index), &mut target).stands);
    }
    assert_eq!(sync.due(), Some(ms(10)));
    let outcome = sync.step(ms(10), &mut target);
    assert!(outcome.stands && outcome.applied);
    assert_eq!(outcome.compiled, 5);
    assert_eq!(sync.snapshot(), Some(&snapshot));
    snapshot.set(port(3, 2));
    sync.on_snapshot(snapshot);
    let outcome = sync.step(ms(20), &mut target);
    assert_eq!((outcome.stands, outcome.compiled), (true, 1));
}

#[test]
fn failures_double_the_wait_up_to_a_limit() {
    let mut sync = Sync::new(Plain, Pace::default());
    let mut target = Faulty {
        failures: 100,
        random: 7,
        ..Faulty::default()
    };
    sync.on_snapshot(Snapshot::new(NodeFacts::default()));
    let mut now = ms(0);
    let mut waits = Vec::new();
    for _ in 0..10 {
        assert!(sync.step(now, &mut target).error.is_some());
        let due = sync.due().unwrap();
        waits.push((due - now).as_millis());
        now = due;
    }
    let wanted = [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000];
    assert_eq!(waits, wanted);
    for _ in 0..100 {
        assert!(sync.step(now, &mut target).error.is_some());
        assert_eq!(sync.due(), Some(now + ms(10_000)));
        now += ms(10_000);
    }
    target.failures = 0;
    assert!(sync.step(now, &mut target).stands);
    assert_eq!(sync.failures, 0);
    // The next failure is the first one again.
    target.failures = 100;
    let mut snapshot = Snapshot::new(NodeFacts::default());
    snapshot.set(port(1, 1));
    sync.on_snapshot(snapshot);
    now = sync.due().unwrap();
    assert!(sync.step(now, &mut target).error.is_some());
    assert_eq!(sync.due(), Some(now + ms(100)));
}

#[test]
fn the_minimum_interval_holds_for_looks_too() {
    let pace = Pace {
        min: ms(500),
        max: ms(100),
        ..Pace::default()
    };
    let mut sync = Sync::new(Plain, pace);
    sync.on_snapshot(Snapshot::new(NodeFacts::default()));
    assert!(sync.step(ms(0), &mut Faulty::default()).stands);
    assert_eq!(sync.due(), Some(ms(500)));
}

#[test]
fn what_others_change_is_put_right_at_the_maximum_interval() {
    let mut snapshot = Snapshot::new(NodeFacts::default());
    snapshot.set(port(1, 1));
    let mut sync = Sync::new(Plain, Pace::default());
    let mut target = Faulty::default();
    sync.on_snapshot(snapshot.clone());
    sync.step(ms(0), &mut target);
    target.meddle(Some(Map::from([("strange".into(), "thing".into())])));
    assert_eq!(sync.due(), Some(ms(30_000)));
    let outcome = sync.step(ms(30_000), &mut target);
    assert!(outcome.repaired && outcome.applied);
    assert_eq!(target.stands, Some(Plain.compile(&snapshot).0));
    assert_eq!(sync.due(), Some(ms(60_000)));
    let calls = target.calls;
    let outcome = sync.step(ms(60_000), &mut target);
    assert!(outcome.stands && !outcome.applied && !outcome.repaired);
    assert_eq!(target.calls, calls + 1, "one cheap question");
}

/// Random changes, one call in ten fails, others meddle: in the end the target is right.
#[test]
fn the_end_is_right_however_often_it_fails() {
    for seed in 1..200u64 {
        let mut target = Faulty {
            failures: 10,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ..Faulty::default()
        };
        let mut snapshot = Snapshot::new(NodeFacts::default());
        let mut sync = Sync::new(Plain, Pace::default());
        let mut now = ms(0);
        for _ in 0..50 {
            let (name, address) = (target.roll() % 5, target.roll());
            match target.roll() {
                0..60 => snapshot.set(port(name, address)),
                60..90 => snapshot.remove(&port(name, 0).key),
                90..95 => target.meddle(None),
                _ => {
                    let name = format!("node{address}");
                    snapshot.set_node(NodeFacts {
                        name: name.as_str().into(),
                        ..NodeFacts::default()
                    });
                }
            }
            sync.on_snapshot(snapshot.clone());
            now += ms(target.roll());
            sync.step(now, &mut target);
        }
        let end = now + ms(120_000);
        assert!(run(&mut sync, &mut target, now, end) > 0, "seed {seed}");
        target.failures = 0;
        run(&mut sync, &mut target, end, end + ms(60_000));
        assert_eq!(
            target.stands,
            Some(Plain.compile(&snapshot).0),
            "seed {seed}"
        );
    }
}

#[test]
fn a_look_that_fails_is_done_again_soon() {
    let mut sync = Sync::new(Plain, Pace::default());
    let mut target = Faulty::default();
    sync.on_snapshot(Snapshot::new(NodeFacts::default()));
    assert!(sync.step(ms(0), &mut target).stands);
    (target.failures, target.random) = (100, 7);
    let outcome = sync.step(ms(30_000), &mut target);
    assert!(outcome.error.is_some() && !outcome.stands);
    assert_eq!(sync.due(), Some(ms(30_100)));
}

/// What a failure has left is looked at once; whoever fails again is not asked any more.
#[test]
fn the_first_try_after_a_failure_reads_back_and_later_ones_rewrite() {
    let mut snapshot = Snapshot::new(NodeFacts::default());
    let mut sync = Sync::new(Plain, Pace::default());
    let mut target = Faulty::default();
    sync.on_snapshot(snapshot.clone());
    assert!(sync.step(ms(0), &mut target).stands);
    // To read is one call of the fake, to apply two.
    for (failures, calls) in [(1, 3), (2, 2), (3, 2)] {
        snapshot.set(port(failures, 1));
        sync.on_snapshot(snapshot.clone());
        (target.failures, target.random) = (100, 7);
        for _ in 0..failures {
            let now = sync.due().unwrap();
            assert!(sync.step(now, &mut target).error.is_some());
        }
        (target.failures, target.calls) = (0, 0);
        let now = sync.due().unwrap();
        assert!(sync.step(now, &mut target).stands);
        assert_eq!(target.calls, calls, "after {failures}");
    }
}

#[test]
fn another_node_is_compiled_anew_and_problems_are_told_again() {
    let on = |name: &str| {
        let mut snapshot = Snapshot::new(NodeFacts {
            name: name.into(),
            ..NodeFacts::default()
        });
        snapshot.set(port(1, 1));
        snapshot.set(ServicePort {
            node_port: NonZeroU16::new(30_080),
            ..port(2, 2)
        });
        snapshot
    };
    let mut sync = Sync::new(Plain, Pace::default());
    let mut target = Faulty::default();
    let mut told = |sync: &mut Sync<Plain>, at| {
        let outcome = sync.step(ms(at), &mut target);
        assert!(outcome.stands);
        (outcome.compiled, outcome.problems.len())
    };
    sync.on_snapshot(on("n1"));
    assert_eq!(told(&mut sync, 0), (2, 1));
    let mut changed = on("n1");
    changed.set(port(1, 9));
    sync.on_snapshot(changed);
    assert_eq!(told(&mut sync, 10), (1, 0), "nothing new is wrong");
    sync.on_snapshot(on("n2"));
    assert_eq!(told(&mut sync, 20), (2, 1));
    assert_eq!(target.stands, Some(Plain.compile(&on("n2")).0));
}

#[test]
fn changes_do_not_put_off_looks() {
    let mut snapshot = Snapshot::new(NodeFacts::default());
    let mut sync = Sync::new(Plain, Pace::default());
    let mut target = Faulty::default();
    sync.on_snapshot(snapshot.clone());
    assert!(sync.step(ms(0), &mut target).stands);
    snapshot.set(port(1, 1));
    sync.on_snapshot(snapshot);
    assert!(sync.step(ms(20_000), &mut target).stands);
    assert_eq!(sync.due(), Some(ms(30_000)));
}

#[test]
fn what_others_do_elsewhere_is_no_repair() {
    let mut snapshot = Snapshot::new(NodeFacts::default());
    snapshot.set(port(1, 1));
    let mut sync = Sync::new(Plain, Pace::default());
    let mut target = Faulty::default();
    sync.on_snapshot(snapshot);
    assert!(sync.step(ms(0), &mut target).stands);
    let same = target.stands.clone();
    target.meddle(same);
    let outcome = sync.step(ms(30_000), &mut target);
    assert!(outcome.stands && !outcome.applied && !outcome.repaired);
    assert_eq!(sync.due(), Some(ms(60_000)));
    // The same with a change of ours at the same time, and then with one of theirs, too.
    for (at, strange) in [(60_000, false), (90_000, true)] {
        let mut next = Snapshot::new(NodeFacts::default());
        next.set(port(at, 1));
        sync.on_snapshot(next);
        let mut stands = target.stands.clone();
        if strange {
            let strange = ("strange".to_owned(), "thing".to_owned());
            stands.get_or_insert_default().extend([strange]);
        }
        target.meddle(stands);
        let outcome = sync.step(ms(at), &mut target);
        assert!(outcome.stands && outcome.applied);
        assert_eq!(outcome.repaired, strange);
    }
}
