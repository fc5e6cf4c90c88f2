//! `hosts`: names of a hosts(5) file and of the Corefile.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;

use crate::corefile::plugin;
use crate::message::{Message, Question, Record};
use crate::wire::{Name, class, rtype};

/// Bytes of a hosts file that are read: block lists have some 10 MB.
pub const HOSTS_BYTES_MAX: u64 = 64 << 20;

/// Names and their addresses, and the other way.
#[derive(Debug, Default, PartialEq)]
struct Table {
    addresses: HashMap<String, Vec<IpAddr>>,
    names: HashMap<IpAddr, Vec<String>>,
}

/// What the plugin knows.
pub struct Hosts {
    options: plugin::Hosts,
    table: ArcSwap<Table>,
    /// When the file was looked at last, and what it was then.
    seen: Mutex<(Instant, Option<(SystemTime, u64)>)>,
}

impl Hosts {
    /// Reads the file; one that is missing has no names.
    pub fn new(options: &plugin::Hosts) -> Self {
        let hosts = Hosts {
            options: options.clone(),
            table: ArcSwap::default(),
            seen: Mutex::new((Instant::now(), None)),
        };
        let stamp = hosts.stamp();
        hosts.read();
        hosts.seen.lock().unwrap_or_else(PoisonError::into_inner).1 = stamp;
        hosts
    }

    /// When the file that was read last had been written, for metrics.
    pub fn written(&self) -> Option<SystemTime> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.1.map(|(written, _)| written)
    }

    /// Entries, for metrics.
    pub fn len(&self) -> usize {
        self.table.load().addresses.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the file again if the time has come and it has changed.
    pub fn refresh(&self, now: Instant) {
        let period = self.options.reload;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if period.is_zero() || now.saturating_duration_since(seen.0) < period {
            return;
        }
        seen.0 = now;
        let stamp = self.stamp();
        if stamp != seen.1 {
            seen.1 = stamp;
            self.read();
        }
    }

    fn stamp(&self) -> Option<(SystemTime, u64)> {
        let data = std::fs::metadata(&self.options.file).ok()?;
        Some((data.modified().ok()?, data.len()))
    }

    fn read(&self) {
        let path = &self.options.file;
        let length = std::fs::metadata(path)
            .map(|data| data.len())
            .unwrap_or_default();
        let text = match std::fs::read_to_string(path) {
            _ if length > HOSTS_BYTES_MAX => {
                tracing::error!(
                    ?path,
                    length,
                    "a hosts file has more than {HOSTS_BYTES_MAX} bytes, it is not read"
                );
                String::new()
            }
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(?path, %error, "cannot read a hosts file");
                String::new()
            }
        };
        self.table.store(Arc::new(Table::of(&self.options, &text)));
    }

    /// Whether the plugin has anything to do with a name (in small letters).
    pub fn concerns(&self, name: &str) -> bool {
        if !super::below(&self.options.zones, name) {
            return false;
        }
        let passes = super::below(&self.options.fallthrough, name);
        !passes || self.table.load().knows(name, self.options.reverse)
    }

    /// `None`: the next plugin is asked.
    pub(super) fn answer(&self, question: &Question, name: &str) -> Option<Message> {
        if question.class != class::IN || !super::below(&self.options.zones, name) {
            return None;
        }
        let table = self.table.load();
        let known = table.knows(name, self.options.reverse);
        if !known && super::below(&self.options.fallthrough, name) {
            return None;
        }
        let code = if known {
            0
        } else {
            crate::wire::rcode::NXDOMAIN
        };
        let mut message = Message::answer(question.clone(), code);
        message.authoritative = true;
        message.answers = table.records(question, name, self.options.ttl, self.options.reverse);
        Some(message)
    }
}

impl Table {
    fn of(options: &plugin::Hosts, text: &str) -> Table {
        let mut table = Table::default();
        for (address, names) in &options.inline {
            for name in names {
                table.add(*address, name.as_str().to_string());
            }
        }
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            // hosts(5) files of desktops have link-local addresses with their interface, which nobody else can use.
            let Some(address) = words.next().and_then(|word| word.parse().ok()) else {
                continue;
            };
            for name in words.filter_map(|word| Name::parse(word).ok()) {
                let name = super::text_of(name.as_wire());
                if super::below(&options.zones, &name) || name.starts_with("*.") {
                    table.add(address, name);
                }
            }
        }
        table
    }

    fn add(&mut self, address: IpAddr, name: String) {
        let names = self.names.entry(address).or_default();
        if !names.contains(&name) {
            names.push(name.clone());
        }
        let addresses = self.addresses.entry(name).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    fn of_name(&self, name: &str) -> Option<&Vec<IpAddr>> {
        self.addresses.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.addresses.get(&format!("*.{parent}"))
        })
    }

    fn of_reverse(&self, name: &str) -> Option<&Vec<String>> {
        self.names.get(&reverse_address(name)?)
    }

    fn knows(&self, name: &str, reverse: bool) -> bool {
        self.of_name(name).is_some() || reverse && self.of_reverse(name).is_some()
    }

    fn records(&self, question: &Question, name: &str, ttl: u32, reverse: bool) -> Vec<Record> {
        let owner = &question.name;
        let of = |rtype, data: Vec<u8>| Record::new(owner.clone(), rtype, ttl, data);
        match question.rtype {
            rtype::PTR if reverse => {
                let names = self.of_reverse(name).into_iter().flatten();
                let names = names.filter_map(|name| Name::parse(name).ok());
                names
                    .map(|name| of(rtype::PTR, name.as_wire().to_vec()))
                    .collect()
            }
            wanted => {
                let all = self.of_name(name).into_iter().flatten();
                let record = |address: &IpAddr| match address {
                    IpAddr::V4(address) => of(rtype::A, address.octets().to_vec()),
                    IpAddr::V6(address) => of(rtype::AAAA, address.octets().to_vec()),
                };
                all.map(record)
                    .filter(|record| record.rtype == wanted)
                    .collect()
            }
        }
    }
}

/// The address whose name is asked for (RFC 1035 3.5, RFC 3596 2.5).
fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa.") {
        let mut octets: Vec<&str> = octets.split('.').collect();
        octets.reverse();
        return octets
            .join(".")
            .parse::<std::net::Ipv4Addr>()
            .ok()
            .map(IpAddr::V4);
    }
    let mut nibbles: Vec<&str> = name.strip_suffix(".ip6.arpa.")?.split('.').collect();
    nibbles.reverse();
    if nibbles.len() != 32 || nibbles.iter().any(|nibble| nibble.len() != 1) {
        return None;
    }
    let number = u128::from_str_radix(&nibbles.concat(), 16).ok()?;
    Some(IpAddr::V6(number.into()))
}
