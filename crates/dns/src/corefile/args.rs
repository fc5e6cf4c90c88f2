//! How the words of a line are read, with errors that say what is possible.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::key::{Zone, zones};
use super::lexer::{Line, Word};
use super::{Error, Listen};

/// The words of a line after its name.
pub(super) struct Args<'a> {
    line: &'a Line,
    next: usize,
}

impl<'a> Args<'a> {
    pub fn of(line: &'a Line) -> Self {
        Args { line, next: 1 }
    }

    pub fn peek(&self) -> Option<&'a Word> {
        self.line.words.get(self.next)
    }

    pub fn take(&mut self) -> Option<&'a Word> {
        let word = self.peek()?;
        self.next += 1;
        Some(word)
    }

    /// The next word, which is `what`.
    pub fn need(&mut self, what: &str) -> Result<&'a Word, Error> {
        let name = self.line.name();
        self.take()
            .ok_or_else(|| name.wrong(format!("{} needs {what}", name.text)))
    }

    pub fn rest(&mut self) -> &'a [Word] {
        let rest = &self.line.words[self.next.min(self.line.words.len())..];
        self.next = self.line.words.len();
        rest
    }

    /// All that are left, and at least one.
    pub fn need_rest(&mut self, what: &str) -> Result<&'a [Word], Error> {
        let first = self.peek().is_some();
        match first {
            true => Ok(self.rest()),
            false => Err(self
                .need(what)
                .err()
                .unwrap_or_else(|| self.line.name().wrong(what))),
        }
    }

    /// Nothing more stands here.
    pub fn end(&self) -> Result<(), Error> {
        match self.peek() {
            None => Ok(()),
            Some(word) => {
                let name = &self.line.name().text;
                Err(word.wrong(format!("{:?} is one word too many for {name}", word.text)))
            }
        }
    }
}

/// The line has a name and nothing else.
pub(super) fn alone(line: &Line) -> Result<(), Error> {
    Args::of(line).end()?;
    no_body(line)
}

/// The line opens no body.
pub(super) fn no_body(line: &Line) -> Result<(), Error> {
    match line.body {
        None => Ok(()),
        Some(_) => Err(line
            .name()
            .wrong(format!("{} has no body in braces", line.name().text))),
    }
}

/// The lines of the body, none when there is no body.
pub(super) fn body(line: &Line) -> &[Line] {
    line.body.as_deref().unwrap_or_default()
}

/// The error for an option that a plugin does not have.
pub(super) fn unknown(option: &Line, plugin: &Line, possible: &[&str]) -> Error {
    let (option, plugin) = (option.name(), &plugin.name().text);
    let possible = match possible.is_empty() {
        true => "it has none".to_string(),
        false => format!("possible: {}", possible.join(", ")),
    };
    option.wrong(format!(
        "{plugin} has no option {:?}; {possible}",
        option.text
    ))
}

/// The error for a word that is none of a few.
pub(super) fn none_of(word: &Word, what: &str, possible: &[&str]) -> Error {
    let possible = possible.join(", ");
    word.wrong(format!(
        "{:?} is no {what}; possible: {possible}",
        word.text
    ))
}

/// A number in a range.
pub(super) fn number<T>(word: &Word, what: &str, range: RangeInclusive<T>) -> Result<T, Error>
where
    T: FromStr + PartialOrd + Display,
{
    let (low, high) = (range.start(), range.end());
    let wrong = || word.wrong(format!("{:?} is no {what}, {low} to {high}", word.text));
    let number: T = word.text.parse().map_err(|_| wrong())?;
    match range.contains(&number) {
        true => Ok(number),
        false => Err(wrong()),
    }
}

/// A time as Go writes it: `5s`, `1m30s`, `500ms`, `0`.
pub(super) fn duration(word: &Word) -> Result<Duration, Error> {
    go_duration(&word.text).ok_or_else(|| {
        word.wrong(format!(
            "{:?} is no time such as 500ms, 5s or 1m30s",
            word.text
        ))
    })
}

/// A time that may also be a bare number of seconds, and lies in a range.
pub(super) fn duration_within(
    word: &Word,
    range: RangeInclusive<Duration>,
) -> Result<Duration, Error> {
    let time = duration(word)?;
    match range.contains(&time) {
        true => Ok(time),
        false => Err(word.wrong(format!(
            "{} is not between {:?} and {:?}",
            word.text,
            range.start(),
            range.end()
        ))),
    }
}

/// Longest time that is read: ten years; everything longer is a slip.
const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

pub(super) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = &rest[digits..];
        let unit = &unit[..unit
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(unit.len())];
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let count: f64 = rest[..digits].parse().ok()?;
        sum = sum.checked_add(Duration::try_from_secs_f64(count * seconds).ok()?)?;
        rest = &rest[digits + unit.len()..];
    }
    (!text.is_empty() && sum <= DURATION_MAX).then_some(sum)
}

/// Names of zones; ranges of addresses have several.
pub(super) fn zone_list(words: &[Word]) -> Result<Vec<Zone>, Error> {
    let mut all = Vec::new();
    for word in words {
        let found = zones(&word.text)
            .ok_or_else(|| word.wrong(format!("{:?} is no name of a zone", word.text)))?;
        all.extend(found);
    }
    Ok(all)
}

/// Names of zones, or those of the server block when there are none.
pub(super) fn zones_or(words: &[Word], block: &[Zone]) -> Result<Vec<Zone>, Error> {
    match words.is_empty() {
        true => Ok(block.to_vec()),
        false => zone_list(words),
    }
}

/// `fallthrough [ZONES…]`: without zones, for every name.
pub(super) fn fallthrough(line: &Line) -> Result<Vec<Zone>, Error> {
    no_body(line)?;
    zones_or(Args::of(line).rest(), &[Zone::root()])
}

/// `address:port`, `:port`, or a name of this machine and a port.
pub(super) fn listen(word: &Word) -> Result<Listen, Error> {
    let wrong = || {
        let words = format!(
            "{:?} is no place to listen, such as :8080 or 127.0.0.1:8080",
            word.text
        );
        word.wrong(words)
    };
    if let Ok(address) = word.text.parse::<SocketAddr>() {
        return Ok(Listen::at(Some(address.ip()), address.port()));
    }
    let (host, port) = word.text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    match host {
        "" => Ok(Listen::at(None, port)),
        "localhost" => Ok(Listen::at(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), port)),
        _ => Err(wrong()),
    }
}
