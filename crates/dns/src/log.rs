//! Lines about queries (`log`) and about those that could not be answered (`errors`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::chain::{Asked, text_of, transport_name};
use crate::corefile::plugin::watch::{AnswerClass, Consolidate, Level};
use crate::corefile::plugin::{self, Log};
use crate::corefile::types::{code_name, type_name};
use crate::metrics::request_bytes;
use crate::server::Client;
use crate::wire::{HEADER_BYTES, Query, rcode};

/// The plugin `errors` of one block; without it nothing is told.
pub struct Errors {
    rules: Option<Vec<(Consolidate, Mutex<Window>)>>,
}

/// Messages of one kind since a moment.
#[derive(Default)]
struct Window {
    since: Option<Instant>,
    count: u64,
}

impl Errors {
    /// As the file says.
    pub fn new(options: Option<&plugin::Errors>) -> Self {
        let rules = options.map(|options| {
            let rules = options.consolidate.iter();
            rules.map(|rule| (rule.clone(), Mutex::default())).collect()
        });
        Errors { rules }
    }

    /// Tells why a question has no answer, or counts it where the file says so.
    pub fn tell(&self, asked: &Asked, words: &str) {
        let Some(rules) = &self.rules else {
            return;
        };
        let question = &asked.ask.question;
        let line = format!(
            "{} {}: {words}",
            text_of(question.name.as_wire()),
            type_name(question.rtype)
        );
        let Some((rule, window)) = rules
            .iter()
            .find(|(rule, _)| rule.pattern.regex().is_match(&line))
        else {
            tracing::error!("{line}");
            return;
        };
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        let first = window.since.is_none();
        window.since.get_or_insert_with(Instant::now);
        window.count += 1;
        if first && rule.show_first {
            say(rule.level, &line);
        }
    }

    /// Tells what was counted, when its time is over.
    pub fn tick(&self, now: Instant) {
        for (rule, window) in self.rules.iter().flatten() {
            let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
            let over = |since: Instant| now.saturating_duration_since(since) >= rule.period;
            if !window.since.is_some_and(over) {
                continue;
            }
            let told = u64::from(rule.show_first);
            if window.count > told {
                let pattern = rule.pattern.regex().as_str();
                say(
                    rule.level,
                    &format!(
                        "{} errors like '{pattern}' occurred in last {:?}",
                        window.count, rule.period
                    ),
                );
            }
            *window = Window::default();
        }
    }
}

fn say(level: Level, line: &str) {
    match level {
        Level::Error => tracing::error!("{line}"),
        Level::Warning => tracing::warn!("{line}"),
        Level::Info => tracing::info!("{line}"),
        Level::Debug => tracing::debug!("{line}"),
    }
}

/// Tells about a query and its answer, if a rule wants it.
pub fn query(rules: &[Log], query: &Query<'_>, client: &Client, answer: &[u8], took: Duration) {
    let facts = Facts {
        name: text_of(query.name),
        query,
        client,
        answer,
        took,
    };
    let class = class_of(answer);
    let longest = rules.iter().filter(|rule| rule.zone.holds(&facts.name));
    let Some(rule) = longest.max_by_key(|rule| rule.zone.as_str().len()) else {
        return;
    };
    if rule
        .classes
        .iter()
        .any(|wanted| *wanted == AnswerClass::All || *wanted == class)
    {
        tracing::info!("{}", facts.line(&rule.format));
    }
}

/// Answers are told apart as in CoreDNS: with records, denials, and everything else.
fn class_of(answer: &[u8]) -> AnswerClass {
    let (code, count) = header(answer);
    match (code, count) {
        (rcode::NOERROR, 1..) => AnswerClass::Success,
        (rcode::NOERROR, 0) | (rcode::NXDOMAIN, _) => AnswerClass::Denial,
        _ => AnswerClass::Error,
    }
}

fn header(answer: &[u8]) -> (u16, u16) {
    match answer.first_chunk::<HEADER_BYTES>() {
        Some(header) => (
            u16::from(header[3] & 0xf),
            u16::from_be_bytes([header[6], header[7]]),
        ),
        None => (rcode::SERVFAIL, 0),
    }
}

/// What a line can tell.
struct Facts<'a> {
    name: String,
    query: &'a Query<'a>,
    client: &'a Client,
    answer: &'a [u8],
    took: Duration,
}

impl Facts<'_> {
    /// The format with its places filled in; what is not known is `-`.
    fn line(&self, format: &str) -> String {
        let mut out = String::new();
        let mut rest = format;
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let Some((key, behind)) = after.split_once('}') else {
                out.push('{');
                rest = after;
                continue;
            };
            out.push_str(self.value(key).as_deref().unwrap_or("-"));
            rest = behind;
        }
        out.push_str(rest);
        out
    }

    fn value(&self, key: &str) -> Option<String> {
        let Facts {
            query,
            client,
            answer,
            ..
        } = self;
        let edns = query.edns;
        Some(match key {
            "type" => type_name(query.rtype),
            "name" => self.name.clone(),
            "class" => match query.class {
                1 => "IN".to_string(),
                3 => "CH".to_string(),
                other => format!("CLASS{other}"),
            },
            "proto" => transport_name(client.transport).to_string(),
            "remote" => match client.address.ip().to_canonical() {
                std::net::IpAddr::V6(address) => format!("[{address}]"),
                std::net::IpAddr::V4(address) => address.to_string(),
            },
            "port" => client.address.port().to_string(),
            "local" => client.local.to_string(),
            "size" => request_bytes(query).to_string(),
            "rsize" => answer.len().to_string(),
            "rcode" => code_name(header(answer).0),
            "duration" => format!("{:.9}s", self.took.as_secs_f64()),
            ">id" => query.id.to_string(),
            ">opcode" => query.opcode.to_string(),
            ">do" => edns.is_some_and(|edns| edns.dnssec_ok).to_string(),
            ">bufsize" => edns.map_or(512, |edns| edns.payload).to_string(),
            ">rflags" => flags(answer),
            _ => return None,
        })
    }
}

/// As dig writes them, with commas.
fn flags(answer: &[u8]) -> String {
    let (Some(high), Some(low)) = (answer.get(2), answer.get(3)) else {
        return String::new();
    };
    let all = [
        (high >> 7, "qr"),
        (high >> 2, "aa"),
        (high >> 1, "tc"),
        (*high, "rd"),
        (low >> 7, "ra"),
        (low >> 5, "ad"),
        (low >> 4, "cd"),
    ];
    let set = all.into_iter().filter(|(bit, _)| bit & 1 == 1);
    set.map(|(_, name)| name).collect::<Vec<_>>().join(",")
}
