//! What is kept, for how long, and within which bounds; in virtual time.

use std::time::{Duration, Instant};

use super::*;
use crate::corefile::{self, Sources};
use crate::message::{Question, record};
use crate::wire::{Name, class};

struct Nothing;

impl Sources for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn import(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Err("no files".to_string())
    }
}

fn cache(body: &str) -> Cache {
    let text = format!(". {{\n cache {body}\n}}\n");
    let config = corefile::parse("Corefile", &text, 53, &Nothing).unwrap();
    Cache::new(config.blocks[0].plugins.cache.as_ref().unwrap())
}

/// A query on the wire.
fn query(name: &str, rtype: u16, edns: Option<u16>) -> Vec<u8> {
    let mut bytes = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(Name::parse(name).unwrap().as_wire());
    bytes.extend_from_slice(&[&rtype.to_be_bytes()[..], &[0, 1]].concat());
    if let Some(payload) = edns {
        bytes[11] = 1;
        bytes.extend_from_slice(&[0, 0, 41]);
        bytes.extend_from_slice(&payload.to_be_bytes());
        bytes.extend_from_slice(&[0; 6]);
    }
    bytes
}

fn answer(name: &str, code: u16, answers: &[&str], authorities: &[&str]) -> Message {
    let name = Name::parse(name).unwrap();
    let mut message = Message::answer(
        Question {
            name,
            rtype: 1,
            class: class::IN,
        },
        code,
    );
    message.answers = answers.iter().map(|text| record(text).unwrap()).collect();
    message.authorities = authorities
        .iter()
        .map(|text| record(text).unwrap())
        .collect();
    message
}

/// One cache and a clock that stands until it is moved.
struct World {
    cache: Cache,
    now: Instant,
}

impl World {
    fn new(body: &str) -> Self {
        World {
            cache: cache(body),
            now: Instant::now(),
        }
    }

    fn keep(&self, name: &str, message: &Message) {
        let bytes = query(name, 1, None);
        let query = Query::read(&bytes).unwrap();
        self.cache.keep(
            &query,
            &format!("{}.", name.to_lowercase()),
            message,
            self.now,
        );
    }

    fn ask_as(&self, bytes: &[u8]) -> (Hit, Option<Message>) {
        let query = Query::read(bytes).unwrap();
        let mut out = Vec::new();
        let hit = self
            .cache
            .answer(&query, query.datagram_bytes_max(), self.now, &mut out);
        assert!(out.len() <= query.datagram_bytes_max());
        let message = (hit != Hit::Miss).then(|| Message::read(&out).unwrap());
        (hit, message)
    }

    fn ask(&self, name: &str) -> (Hit, Option<Message>) {
        self.ask_as(&query(name, 1, None))
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

const SOA: &str = "example.org. 60 IN SOA ns.example.org. host.example.org. 1 2 3 4 20";
const WEB: &str = "web.example.org. 30 IN A 203.0.113.2";

#[test]
fn an_answer_is_kept_until_its_first_record_ends() {
    let mut world = World::new("");
    let more = "web.example.org. 50 IN A 203.0.113.3";
    world.keep(
        "web.example.org",
        &answer("web.example.org", 0, &[WEB, more], &[]),
    );
    world.pass(10);
    let (hit, message) = world.ask_as(&query("wEb.example.org", 1, Some(1232)));
    let message = message.unwrap();
    assert_eq!(hit, Hit::Fresh);
    assert_eq!(
        message.question.name.to_string(),
        "wEb.example.org.",
        "the client's letters"
    );
    assert_eq!(
        (message.id, message.answers[0].ttl, message.answers[1].ttl),
        (0x0708, 20, 20)
    );
    assert_eq!(world.ask("other.example.org").0, Hit::Miss);
    assert_eq!(
        world.ask_as(&query("web.example.org", 28, None)).0,
        Hit::Miss,
        "another type"
    );
    world.pass(20);
    assert_eq!(world.ask("web.example.org").0, Hit::Miss);
}

#[test]
fn denials_are_kept_as_long_as_their_soa_says() {
    let mut world = World::new("");
    world.keep("no.example.org", &answer("no.example.org", 3, &[], &[SOA]));
    world.keep(
        "nodata.example.org",
        &answer("nodata.example.org", 0, &[], &[SOA]),
    );
    world.keep(
        "without.example.org",
        &answer("without.example.org", 3, &[], &[]),
    );
    world.pass(19);
    assert_eq!(world.ask("no.example.org").1.unwrap().rcode, 3);
    assert_eq!(world.ask("nodata.example.org").0, Hit::Fresh);
    assert_eq!(
        world.ask("without.example.org").0,
        Hit::Miss,
        "RFC 2308, section 5"
    );
    world.pass(1);
    assert_eq!(world.ask("no.example.org").0, Hit::Miss);
    assert_eq!(world.cache.len(), (0, 2));
}

#[test]
fn failures_are_kept_for_a_moment() {
    let mut world = World::new("");
    world.keep("web.example.org", &answer("web.example.org", 2, &[], &[]));
    assert_eq!(world.ask("web.example.org").1.unwrap().rcode, 2);
    world.pass(5);
    assert_eq!(world.ask("web.example.org").0, Hit::Miss);
    let none = World::new("{\n servfail 0\n}");
    none.keep("web.example.org", &answer("web.example.org", 2, &[], &[]));
    assert_eq!(none.ask("web.example.org").0, Hit::Miss);
    none.keep("web.example.org", &answer("web.example.org", 5, &[], &[]));
    assert!(none.cache.is_empty(), "REFUSED is kept by nobody");
}

#[test]
fn times_have_bounds() {
    let mut world = World::new("25 {\n success 1000 25 7\n}");
    let long = "a. 4000 IN A 203.0.113.2";
    let short = "b. 0 IN A 203.0.113.2";
    world.keep("a", &answer("a", 0, &[long], &[]));
    world.keep("b", &answer("b", 0, &[short], &[]));
    assert_eq!(world.ask("a").1.unwrap().answers[0].ttl, 25);
    assert_eq!(world.ask("b").1.unwrap().answers[0].ttl, 7);
    world.pass(24);
    assert_eq!(world.ask("a").1.unwrap().answers[0].ttl, 1);
    assert_eq!(world.ask("b").0, Hit::Miss);
    let kept = World::new("{\n keepttl\n}");
    kept.keep(
        "web.example.org",
        &answer("web.example.org", 0, &[WEB], &[]),
    );
    assert_eq!(kept.ask("web.example.org").1.unwrap().answers[0].ttl, 30);
}

#[test]
fn what_is_disabled_is_not_kept() {
    let world = World::new("30 {\n disable success cluster.local\n disable denial\n}");
    world.keep(
        "a.cluster.local",
        &answer("a.cluster.local", 0, &["a.cluster.local. A 10.0.0.1"], &[]),
    );
    world.keep("no.example.org", &answer("no.example.org", 3, &[], &[SOA]));
    assert!(world.cache.is_empty());
    world.keep(
        "web.example.org",
        &answer("web.example.org", 0, &[WEB], &[]),
    );
    assert_eq!(world.cache.len(), (1, 0));
    let elsewhere = World::new("30 example.net");
    elsewhere.keep(
        "web.example.org",
        &answer("web.example.org", 0, &[WEB], &[]),
    );
    assert!(elsewhere.cache.is_empty());
}

#[test]
fn what_has_ended_is_used_when_the_file_says_so() {
    let mut world = World::new("{\n serve_stale 60s\n}");
    world.keep(
        "web.example.org",
        &answer("web.example.org", 0, &[WEB], &[]),
    );
    world.pass(30 + 60);
    let (hit, message) = world.ask("web.example.org");
    assert_eq!((hit, message.unwrap().answers[0].ttl), (Hit::Stale, 0));
    world.pass(1);
    assert_eq!(world.ask("web.example.org").0, Hit::Miss);
}

#[test]
fn popular_entries_are_fetched_before_they_end() {
    let mut world = World::new("{\n prefetch 2 5s 50%\n}");
    world.keep(
        "web.example.org",
        &answer("web.example.org", 0, &[WEB], &[]),
    );
    world.pass(15);
    assert_eq!(world.ask("web.example.org").0, Hit::Fresh, "one has asked");
    assert_eq!(world.ask("web.example.org").0, Hit::Popular, "and another");
    assert_eq!(
        world.ask("web.example.org").0,
        Hit::Fresh,
        "one fetch is enough"
    );
    world.pass(6);
    assert_eq!(
        world.ask("web.example.org").0,
        Hit::Fresh,
        "there was a gap"
    );
}

#[test]
fn a_denial_takes_the_place_of_an_answer() {
    let world = World::new("");
    world.keep(
        "web.example.org",
        &answer("web.example.org", 0, &[WEB], &[]),
    );
    world.keep(
        "web.example.org",
        &answer("web.example.org", 3, &[], &[SOA]),
    );
    assert_eq!(world.ask("web.example.org").1.unwrap().rcode, 3);
    world.keep(
        "web.example.org",
        &answer("web.example.org", 0, &[WEB], &[]),
    );
    assert_eq!(world.ask("web.example.org").1.unwrap().rcode, 0);
    assert_eq!(world.cache.len(), (1, 0));
    let other = answer("evil.example.org", 0, &[WEB], &[]);
    world.keep("web.example.net", &other);
    assert_eq!(world.cache.counts.dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn places_and_bytes_are_bounded() {
    let world = World::new("{\n success 64\n denial 64\n}");
    for i in 0..2_000 {
        let name = format!("n{i}.example.org");
        world.keep(
            &name,
            &answer(&name, 0, &[&format!("{name}. 60 A 203.0.113.2")], &[]),
        );
    }
    let (success, _) = world.cache.len();
    assert!(success <= 64 && success > 30, "{success}");
    assert!(world.cache.counts.evicted.load(Ordering::Relaxed) >= 1_900);
    // Large answers: one KiB each on average.
    let world = World::new("{\n success 640\n}");
    let many: Vec<String> = (0..200)
        .map(|i| format!("x{i}.example.org. 60 A 203.0.113.2"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for i in 0..500 {
        let name = format!("n{i}.example.org");
        world.keep(&name, &answer(&name, 0, &many, &[]));
    }
    assert!(world.cache.bytes() <= 640 * 1024, "{}", world.cache.bytes());
    let before = world.cache.bytes();
    let huge: Vec<String> = (0..900)
        .map(|i| format!("x{i}.example.org. 60 A 203.0.113.2"))
        .collect();
    let huge: Vec<&str> = huge.iter().map(String::as_str).collect();
    world.keep(
        "huge.example.org",
        &answer("huge.example.org", 0, &huge, &[]),
    );
    assert_eq!(world.cache.bytes(), before, "ENTRY_BYTES_MAX");
}

#[test]
fn an_answer_that_is_too_large_for_its_client_is_cut() {
    let world = World::new("");
    let many: Vec<String> = (0..100)
        .map(|i| format!("web.example.org. 60 A 203.0.113.{i}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    world.keep("web.example.org", &answer("web.example.org", 0, &many, &[]));
    let (_, message) = world.ask("web.example.org");
    assert!(message.unwrap().truncated);
    let (_, message) = world.ask_as(&query("web.example.org", 1, Some(4096)));
    assert_eq!(message.unwrap().answers.len(), 100);
}
