//! `errors`, `log`, `health`, `ready`, `prometheus`: what people and programs learn about the server.

use std::time::Duration;

use super::Pattern;
use crate::corefile::args::{
    Args, alone, body, duration, listen, no_body, none_of, unknown, zone_list,
};
use crate::corefile::key::Zone;
use crate::corefile::lexer::{Line, Word};
use crate::corefile::{Error, Listen};

/// `errors { stacktrace; consolidate … }`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors {
    /// Messages that are counted and told together.
    pub consolidate: Vec<Consolidate>,
}

/// `consolidate DURATION REGEXP [LEVEL] [show_first]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Consolidate {
    /// For how long messages are counted.
    pub period: Duration,
    /// Which.
    pub pattern: Pattern,
    /// How loud the sum is told.
    pub level: Level,
    /// Whether the first is told at once.
    pub show_first: bool,
}

/// How loud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As an error.
    Error,
    /// As a warning.
    Warning,
    /// For information.
    Info,
    /// For those who search for faults.
    Debug,
}

/// `log [NAMES…] [FORMAT] { class … }`, for one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Names below it are told.
    pub zone: Zone,
    /// With `{placeholders}`.
    pub format: String,
    /// Which answers are told.
    pub classes: Vec<AnswerClass>,
}

/// Which answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerClass {
    /// Every one.
    All,
    /// With records.
    Success,
    /// NXDOMAIN, and NOERROR without records.
    Denial,
    /// Everything else.
    Error,
}

/// `health [ADDRESS] { lameduck DURATION }`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    /// Where `/health` is.
    pub listen: Listen,
    /// For how long queries are still answered after the signal to stop.
    pub lameduck: Duration,
}

/// `ready [ADDRESS] { monitor … }`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ready {
    /// Where `/ready` is.
    pub listen: Listen,
    /// Whether it can turn unready again.
    pub continuously: bool,
}

/// The format of CoreDNS' own log lines.
const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration}";
/// The same, with what the client has set.
const COMBINED: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration} {>opcode}";

pub(super) fn errors(line: &Line) -> Result<Errors, Error> {
    Args::of(line).end()?;
    let mut errors = Errors::default();
    for option in body(line) {
        match option.name().text.as_str() {
            "stacktrace" => alone(option)?,
            "consolidate" => errors.consolidate.push(consolidate(option)?),
            _ => return Err(unknown(option, line, &["stacktrace", "consolidate"])),
        }
    }
    Ok(errors)
}

fn consolidate(line: &Line) -> Result<Consolidate, Error> {
    let mut args = Args::of(line);
    let mut found = Consolidate {
        period: duration(args.need("a time and a regular expression")?)?,
        pattern: Pattern::parse(args.need("a regular expression")?)?,
        level: Level::Error,
        show_first: false,
    };
    while let Some(word) = args.take() {
        match word.text.as_str() {
            "error" => found.level = Level::Error,
            "warning" => found.level = Level::Warning,
            "info" => found.level = Level::Info,
            "debug" => found.level = Level::Debug,
            "show_first" => found.show_first = true,
            _ => {
                return Err(none_of(
                    word,
                    "level",
                    &["error", "warning", "info", "debug", "show_first"],
                ));
            }
        }
    }
    no_body(line)?;
    Ok(found)
}

pub(super) fn log(line: &Line) -> Result<Vec<Log>, Error> {
    let words = Args::of(line).rest();
    let (names, format) = match words.split_last() {
        Some((last, names)) if last.text.contains('{') => (names, format_of(last)),
        _ => (words, COMMON.to_string()),
    };
    let zones = match names.is_empty() {
        true => vec![Zone::root()],
        false => zone_list(names)?,
    };
    let mut classes = Vec::new();
    for option in body(line) {
        match option.name().text.as_str() {
            "class" => classes.extend(answer_classes(option)?),
            _ => return Err(unknown(option, line, &["class"])),
        }
    }
    if classes.is_empty() {
        classes.push(AnswerClass::All);
    }
    let one = |zone| Log {
        zone,
        format: format.clone(),
        classes: classes.clone(),
    };
    Ok(zones.into_iter().map(one).collect())
}

fn format_of(word: &Word) -> String {
    word.text
        .replace("{common}", COMMON)
        .replace("{combined}", COMBINED)
}

fn answer_classes(line: &Line) -> Result<Vec<AnswerClass>, Error> {
    let words = Args::of(line).need_rest("all, success, denial or error")?;
    let of = |word: &Word| match word.text.as_str() {
        "all" => Ok(AnswerClass::All),
        "success" => Ok(AnswerClass::Success),
        "denial" => Ok(AnswerClass::Denial),
        "error" => Ok(AnswerClass::Error),
        _ => Err(none_of(
            word,
            "class of answers",
            &["all", "success", "denial", "error"],
        )),
    };
    words.iter().map(of).collect()
}

pub(super) fn health(line: &Line) -> Result<Health, Error> {
    let mut health = Health {
        listen: at(line, Listen::at(None, 8080))?,
        lameduck: Duration::ZERO,
    };
    for option in body(line) {
        let mut args = Args::of(option);
        match option.name().text.as_str() {
            "lameduck" => health.lameduck = duration(args.need("a time")?)?,
            _ => return Err(unknown(option, line, &["lameduck"])),
        }
        args.end()?;
    }
    Ok(health)
}

pub(super) fn ready(line: &Line) -> Result<Ready, Error> {
    let mut ready = Ready {
        listen: at(line, Listen::at(None, 8181))?,
        continuously: false,
    };
    for option in body(line) {
        let mut args = Args::of(option);
        match option.name().text.as_str() {
            "monitor" => {
                let word = args.need("until-ready or continuously")?;
                ready.continuously = match word.text.as_str() {
                    "until-ready" => false,
                    "continuously" => true,
                    _ => {
                        return Err(none_of(
                            word,
                            "way to watch",
                            &["until-ready", "continuously"],
                        ));
                    }
                };
            }
            _ => return Err(unknown(option, line, &["monitor"])),
        }
        args.end()?;
    }
    Ok(ready)
}

pub(super) fn prometheus(line: &Line) -> Result<Listen, Error> {
    no_body(line)?;
    let local = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    at(line, Listen::at(Some(local), 9153))
}

fn at(line: &Line, standard: Listen) -> Result<Listen, Error> {
    let mut args = Args::of(line);
    let place = args.take().map_or(Ok(standard), listen)?;
    args.end()?;
    Ok(place)
}
