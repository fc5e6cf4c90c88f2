//! Rules and whole States as text, in the words of `nft`. For people and goldens; the kernel gets netlink.

use std::fmt::Write;

use portolan_model::Family;
use portolan_model::balance::CLIENT_SEED;

use super::element::Element;
use super::expr::{Expr, Field, Reg, Rejection, Rule};
use super::layout::{BaseChain, ChainId, Kind, Part, SetName, TABLE};
use super::state::State;

/// What each register holds, as text; values longer than a register are kept where they start.
struct Words {
    family: Family,
    at: [(String, u8); 16],
}

impl Words {
    fn put(&mut self, reg: Reg, text: String, registers: u8) {
        if let Some(slot) = self.at.get_mut(usize::from(reg.0)) {
            *slot = (text, registers);
        }
    }

    fn one(&self, reg: Reg) -> &str {
        self.at
            .get(usize::from(reg.0))
            .map_or("?", |(text, _)| text)
    }

    /// The words of a key that starts at `reg`.
    fn key(&self, reg: Reg, parts: &[Part]) -> String {
        self.registers(
            reg,
            parts.iter().map(|part| part.registers(self.family)).sum(),
        )
    }

    fn registers(&self, reg: Reg, length: u8) -> String {
        let mut words = Vec::new();
        let mut at = reg.0;
        while at < reg.0 + length {
            let (text, registers) = self.at.get(usize::from(at)).cloned().unwrap_or_default();
            if registers == 0 {
                at += 1;
                continue;
            }
            words.push(text);
            at += registers;
        }
        words.join(" . ")
    }

    /// Names the parts of what a map gave, each where it lies.
    fn put_data(&mut self, into: Reg, map: SetName, key: &str) {
        let mut at = into.0;
        for (index, part) in map.data().iter().enumerate() {
            let registers = part.registers(self.family);
            let text = format!("@{}[{key}].{index}", map.name());
            self.put(Reg(at), text, registers);
            at += registers;
        }
    }
}

impl Rule {
    /// The rule, nearly in the words of `nft`. `@map[key].1` is the second part of what a map gave.
    pub fn show(&self, family: Family) -> String {
        let empty = || (String::new(), 0);
        let mut words = Words {
            family,
            at: std::array::from_fn(|_| empty()),
        };
        let mut done: Vec<String> = Vec::new();
        for expr in &self.0 {
            if let Some(statement) = words.step(expr) {
                done.push(statement);
            }
        }
        done.join(" ")
    }
}

impl Rule {
    /// What the rule is for, in a few words, where `nft list` cannot show it: `nft` has no words for a rule that looks
    /// up what it found in another map, and shows what had been in the registers before (see [`SetName::data`]).
    pub fn note(&self) -> &'static str {
        let finds = |wanted: SetName| {
            let found = |expr: &Expr| matches!(expr, Expr::Find { map, .. } if *map == wanted);
            self.0.iter().any(found)
        };
        let remembers = |expr: &Expr| matches!(expr, Expr::Remember { .. });
        let forgets = |expr: &Expr| matches!(expr, Expr::Forget { .. });
        let counts = |expr: &Expr| matches!(expr, Expr::Next { .. });
        if self.0.iter().any(counts) {
            return "the next endpoint in turn";
        }
        let dispatches = |expr: &Expr, to| matches!(expr, Expr::Dispatch { map, .. } if *map == to);
        if self.0.iter().any(|expr| dispatches(expr, SetName::Turns)) {
            return "the key and two numbers in @turns: the counter of this Service";
        }
        if self.0.iter().any(|expr| dispatches(expr, SetName::Classes)) {
            return match finds(SetName::Services) {
                true => "daddr . dport . proto in @services gives the class",
                false => "dport . proto in @node-ports gives the class",
            };
        }
        if self.0.iter().any(forgets) {
            return "in @affinity, but its endpoint is gone: forget";
        }
        match (finds(SetName::Affinity), finds(SetName::StickyEndpoints)) {
            (true, _) => "in @affinity, endpoint in members: same again",
            (_, true) if self.0.iter().any(remembers) => {
                "new client: random of @sticky-endpoints, remember"
            }
            (_, true) => "@affinity is full: random of @sticky-endpoints",
            _ if finds(SetName::Services) => "daddr . dport . proto in @services gives the key",
            _ if finds(SetName::NodePorts) => "dport . proto in @node-ports gives the key",
            _ => "",
        }
    }
}

impl Words {
    /// Follows one expression; says what it does, if it does something by itself.
    fn step(&mut self, expr: &Expr) -> Option<String> {
        let family = self.family;
        let ip = match family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        match expr {
            Expr::Load(field, reg) => {
                let text = match field {
                    Field::Source => format!("{ip} saddr"),
                    Field::Destination => format!("{ip} daddr"),
                    Field::Protocol => "meta l4proto".into(),
                    Field::Port => "th dport".into(),
                    Field::SourcePort => "th sport".into(),
                    Field::Interface => "iif".into(),
                    Field::InterfaceName => "iifname".into(),
                    Field::Mark => "meta mark".into(),
                    Field::Status => "ct status".into(),
                    Field::FlowMark => "ct mark".into(),
                    Field::Direction => "ct direction".into(),
                };
                self.put(*reg, text, field.len(family).div_ceil(4) as u8);
                None
            }
            Expr::Value { into, bytes } => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                self.put(*into, format!("0x{digits}"), bytes.len().div_ceil(4) as u8);
                None
            }
            Expr::Bits { reg, mask, xor } => {
                let text = format!("({} & {mask:#010x} ^ {xor:#010x})", self.one(*reg));
                self.put(*reg, text, 1);
                None
            }
            Expr::Compare { reg, negate, bytes } => {
                let negation = if *negate { "!= " } else { "" };
                Some(format!("{} {negation}{}", self.one(*reg), value(bytes)))
            }
            Expr::Member { set, key, negate } => {
                let negation = if *negate { "!= " } else { "" };
                let key = self.key(*key, set.key());
                Some(format!("{key} {negation}@{}", set.name()))
            }
            Expr::Find { map, key, into } => {
                let key = self.key(*key, map.key());
                self.put_data(*into, *map, &key);
                None
            }
            Expr::Dispatch { map, key } => {
                let key = self.key(*key, map.key());
                Some(format!("{key} vmap @{}", map.name()))
            }
            Expr::Random {
                modulus,
                offset,
                into,
            } => {
                let text = format!("numgen random mod {modulus} offset {offset}");
                self.put(*into, text, 1);
                None
            }
            Expr::Next {
                modulus,
                offset,
                into,
            } => {
                let text = format!("numgen inc mod {modulus} offset {offset}");
                self.put(*into, text, 1);
                None
            }
            Expr::Hash {
                key,
                length,
                modulus,
                offset,
                into,
            } => {
                let of = self.registers(*key, length.div_ceil(4));
                let text =
                    format!("jhash {of} mod {modulus} seed {CLIENT_SEED:#010x} offset {offset}");
                self.put(*into, text, 1);
                None
            }
            Expr::Remember {
                key,
                data,
                timeout_s,
            } => Some(format!(
                "update @affinity {{ {} timeout {timeout_s}s : {} }}",
                self.key(*key, SetName::Affinity.key()),
                self.key(*data, SetName::Affinity.data()),
            )),
            Expr::Forget { key, data } => Some(format!(
                "delete @affinity {{ {} : {} }}",
                self.key(*key, SetName::Affinity.key()),
                self.key(*data, SetName::Affinity.data()),
            )),
            Expr::SetMark(reg) => Some(format!("meta mark set {}", self.one(*reg))),
            Expr::SetFlowMark(reg) => Some(format!("ct mark set {}", self.one(*reg))),
            Expr::Dnat { address, port } => {
                let (address, port) = (self.one(*address), self.one(*port));
                Some(format!("dnat {ip} to {address} : {port}"))
            }
            Expr::Masquerade => Some("masquerade fully-random".into()),
            Expr::Reject(Rejection::TcpReset) => Some("reject with tcp reset".into()),
            Expr::Reject(Rejection::PortUnreachable) => Some(match family {
                Family::V4 => "reject with icmp port-unreachable".into(),
                Family::V6 => "reject with icmpv6 port-unreachable".into(),
            }),
            Expr::Drop => Some("drop".into()),
            Expr::Accept => Some("accept".into()),
            Expr::Jump(chain) => Some(format!("jump {chain}")),
        }
    }
}

/// Bytes as nft would write them: names of interfaces in quotes, everything else as a number.
fn value(bytes: &[u8]) -> String {
    let name = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_graphic())
        .count();
    match bytes {
        [one] => one.to_string(),
        &[a, b, c, d] if name < 4 || d == 0 => {
            format!("{:#010x}", u32::from_ne_bytes([a, b, c, d]))
        }
        _ => {
            let text = String::from_utf8_lossy(&bytes[..name]).into_owned();
            let star = if bytes.len() < 16 { "*" } else { "" };
            format!("\"{text}{star}\"")
        }
    }
}

/// A whole State as `nft list table` would show it, as far as nft has words for it.
pub fn show(state: &State) -> String {
    let mut out = String::new();
    for family in Family::ALL {
        show_table(state, family, &mut out);
    }
    out
}

fn show_table(state: &State, family: Family, out: &mut String) {
    let ip = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let table = state.table(family);
    let elements = table.elements(family);
    let mut line = |text: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{text}");
    };
    line(&format!("table {ip} {TABLE} {{"));
    for set in SetName::ALL {
        let word = match set.data().is_empty() && !set.has_verdicts() {
            true => "set",
            false => "map",
        };
        line(&format!("\t{word} {} {{", set.name()));
        line(&format!("\t\ttype {}", types(set, ip)));
        match set.kind() {
            Kind::Hash => {}
            Kind::Ranges | Kind::ConcatRanges => line("\t\tflags interval"),
            Kind::Memory => line("\t\tflags dynamic,timeout"),
        }
        let of_set = |element: &&Element| element.set() == set;
        for element in elements.iter().filter(of_set) {
            line(&format!("\t\t{element}"));
        }
        line("\t}");
    }
    for chain in table.chains() {
        line(&format!("\tchain {chain} {{"));
        if let ChainId::Base(base) = chain
            && let Some((_, priority)) = base.hook()
        {
            let hook = match base {
                BaseChain::Services => "",
                BaseChain::Prerouting => "prerouting",
                BaseChain::Output => "output",
                BaseChain::Postrouting => "postrouting",
            };
            line(&format!("\t\ttype nat hook {hook} priority {priority};"));
        }
        for rule in table.rules(family, chain) {
            line(&format!("\t\t{}", rule.show(family)));
        }
        line("\t}");
    }
    line("}");
}

fn types(set: SetName, ip: &str) -> String {
    let address = match ip {
        "ip" => "ipv4_addr",
        _ => "ipv6_addr",
    };
    let words = |parts: &[Part]| {
        let word = |part: &Part| match part {
            Part::Address => address,
            Part::Protocol => "inet_proto",
            Part::Port => "inet_service",
            Part::Number => "mark",
        };
        parts.iter().map(word).collect::<Vec<_>>().join(" . ")
    };
    let key = words(set.key());
    match (set.has_verdicts(), set.data()) {
        (true, _) => format!("{key} : verdict"),
        (false, []) => key,
        (false, data) => format!("{key} : {}", words(data)),
    }
}
