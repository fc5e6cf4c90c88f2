//! Records as they are written in zone files (RFC 1035, section 5.1), one a line: `NAME [TTL] [CLASS] TYPE DATA`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Record;
use crate::corefile::types::{class_of, type_of};
use crate::wire::{Name, class, rtype};

/// What a record has when it does not say for how long it may be kept: CoreDNS' number.
const TTL_DEFAULT: u32 = 3600;

/// Reads a record; says in words what is wrong.
pub fn record(text: &str) -> Result<Record, String> {
    let words = words(text)?;
    let mut rest = words.iter().map(String::as_str).peekable();
    let owner = rest.next().ok_or("there is no record")?;
    let name = name(owner)?;
    let (mut ttl, mut class) = (TTL_DEFAULT, class::IN);
    // TTL and class may stand in any order.
    while let Some(word) = rest.peek() {
        match (word.parse(), class_of(word)) {
            (Ok(seconds), _) => ttl = seconds,
            (_, Some(number)) if type_of(word).is_none_or(|rtype| rtype == rtype::ANY) => {
                class = number
            }
            _ => break,
        }
        rest.next();
    }
    let kind = rest
        .next()
        .ok_or_else(|| format!("{text:?} has no type of record"))?;
    let rtype = type_of(kind).ok_or_else(|| format!("{kind:?} is no type of record"))?;
    let rest: Vec<&str> = rest.collect();
    let data = data(rtype, &rest).map_err(|words| format!("{kind} {}: {words}", rest.join(" ")))?;
    Ok(Record {
        name,
        rtype,
        class,
        ttl,
        data: data.into(),
    })
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| format!("{text:?}: {error}"))
}

/// Words between white space; in quotes they may have some.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(inside) => inside.split_once('"').ok_or("a \" is never closed")?,
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        words.push(word.to_string());
        rest = after.trim_start();
    }
    Ok(words)
}

fn data(rtype: u16, words: &[&str]) -> Result<Vec<u8>, String> {
    match (rtype, words) {
        (rtype::A, [address]) => {
            let address: Ipv4Addr = address.parse().map_err(|_| "no IPv4 address".to_string())?;
            Ok(address.octets().to_vec())
        }
        (rtype::AAAA, [address]) => {
            let address: Ipv6Addr = address.parse().map_err(|_| "no IPv6 address".to_string())?;
            Ok(address.octets().to_vec())
        }
        (rtype::NS | rtype::CNAME | rtype::PTR | 39, [target]) => {
            Ok(name(target)?.as_wire().to_vec())
        }
        (rtype::MX, [preference, target]) => Ok([
            &number(preference)?.to_be_bytes()[..],
            name(target)?.as_wire(),
        ]
        .concat()),
        (rtype::SRV, [priority, weight, port, target]) => {
            let mut out = Vec::new();
            for word in [priority, weight, port] {
                out.extend_from_slice(&number(word)?.to_be_bytes());
            }
            out.extend_from_slice(name(target)?.as_wire());
            Ok(out)
        }
        (rtype::TXT, [_, ..]) => strings(words),
        (rtype::HINFO, [_, _]) => strings(words),
        (rtype::SOA, [server, person, numbers @ ..]) if numbers.len() == 5 => {
            let mut out = [name(server)?.as_wire(), name(person)?.as_wire()].concat();
            for word in numbers {
                let number: u32 = word.parse().map_err(|_| format!("{word:?} is no number"))?;
                out.extend_from_slice(&number.to_be_bytes());
            }
            Ok(out)
        }
        (257, [flags, tag, value]) => {
            let flags: u8 = flags
                .parse()
                .map_err(|_| format!("{flags:?} is no number"))?;
            let length = u8::try_from(tag.len()).map_err(|_| "a tag is too long".to_string())?;
            Ok([&[flags, length], tag.as_bytes(), value.as_bytes()].concat())
        }
        // RFC 3597, section 5.
        (_, ["\\#", length, hex @ ..]) => {
            let hex = hex.concat();
            let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
            let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
            let bytes = bytes.filter(|bytes| length.parse() == Ok(bytes.len()));
            bytes.ok_or_else(|| "the length and the hex digits do not agree".to_string())
        }
        (
            rtype::A
            | rtype::AAAA
            | rtype::NS
            | rtype::CNAME
            | rtype::PTR
            | rtype::MX
            | rtype::SRV
            | rtype::SOA,
            _,
        ) => Err("the wrong number of words".to_string()),
        _ => Err("data of this type is written as \\# LENGTH HEX (RFC 3597)".to_string()),
    }
}

fn number(word: &str) -> Result<u16, String> {
    word.parse().map_err(|_| format!("{word:?} is no number"))
}

fn strings(words: &[&str]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    for word in words {
        // A string has 255 bytes at most; longer texts are several.
        let mut rest = word.as_bytes();
        loop {
            let (piece, after) = rest.split_at(rest.len().min(255));
            out.push(piece.len() as u8);
            out.extend_from_slice(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    }
    match out.len() <= usize::from(u16::MAX) {
        true => Ok(out),
        false => Err("more than 65535 bytes".to_string()),
    }
}
