//! `rewrite`: questions that become others, and answers that are turned back.

use regex::Captures;

use super::{Asked, text_of};
use crate::corefile::plugin::Rewrite;
use crate::corefile::plugin::rewrite::{Answer, EdnsOption, How, Match, Rule};
use crate::message::{Message, Question, Record, name_in, with_name};
use crate::wire::{Name, eq_names, rtype};

/// Options of EDNS that rewrite can put into a query.
const NSID: u16 = 3;
const SUBNET: u16 = 8;

/// What has to be turned back in the answer.
pub(super) struct Turned {
    /// What the client has asked.
    question: Question,
    back: Vec<Back>,
}

enum Back {
    /// The name as it was before a rule, and as it became.
    Name {
        old: Name,
        new: Name,
    },
    Answers(Vec<Answer>),
    Ttl(u32, u32),
    Code(u16, u16),
}

/// Applies the rules; says what the question became.
pub(super) fn turn(rules: &[Rewrite], asked: &Asked) -> (Asked, Turned) {
    let mut asked = asked.clone();
    let mut turned = Turned {
        question: asked.ask.question.clone(),
        back: Vec::new(),
    };
    for rewrite in rules {
        let name = asked.name();
        if apply(&rewrite.rule, &name, &mut asked, &mut turned) && !rewrite.go_on {
            break;
        }
    }
    (asked, turned)
}

/// Whether any rule fits, or has to look at the answer.
pub(super) fn concerns(rules: &[Rewrite], asked: &Asked) -> bool {
    !rules.is_empty() && {
        let (changed, turned) = turn(rules, asked);
        changed.ask != asked.ask
            || !turned.back.is_empty()
            || rules
                .iter()
                .any(|rule| matches!(rule.rule, Rule::Cname(..)))
    }
}

fn apply(rule: &Rule, name: &str, asked: &mut Asked, turned: &mut Turned) -> bool {
    let question = &mut asked.ask.question;
    match rule {
        Rule::Name {
            of,
            to,
            answers,
            auto,
        } => {
            let Some(new) = renamed(of, to, name).and_then(|text| Name::parse(&text).ok()) else {
                return false;
            };
            let old = std::mem::replace(&mut question.name, new.clone());
            if *auto || answers.is_empty() {
                turned.back.push(Back::Name { old, new });
            }
            if !answers.is_empty() {
                turned.back.push(Back::Answers(answers.clone()));
            }
            true
        }
        Rule::Type(from, to) => {
            let fits = question.rtype == *from;
            if fits {
                question.rtype = *to;
            }
            fits
        }
        Rule::Class(from, to) => {
            let fits = question.class == *from;
            if fits {
                question.class = *to;
            }
            fits
        }
        Rule::Ttl(of, low, high) => fitted(of, name, || turned.back.push(Back::Ttl(*low, *high))),
        Rule::Code(of, from, to) => fitted(of, name, || turned.back.push(Back::Code(*from, *to))),
        // The target is only known when the answer is there.
        Rule::Cname(..) => false,
        Rule::Edns { how, option, .. } => change_option(*how, option, asked),
    }
}

fn fitted(of: &Match, name: &str, then: impl FnOnce()) -> bool {
    let fits = fits(of, name);
    if fits {
        then();
    }
    fits
}

fn fits(of: &Match, name: &str) -> bool {
    match of {
        Match::Exact(exact) => exact.as_str() == name,
        Match::Prefix(prefix) => name.starts_with(prefix.as_str()),
        Match::Suffix(suffix) => name.ends_with(suffix.as_str()),
        Match::Substring(part) => name.contains(part.as_str()),
        Match::Regex(pattern) => pattern.regex().is_match(name),
    }
}

/// The new name, if the old one fits.
fn renamed(of: &Match, to: &str, name: &str) -> Option<String> {
    match of {
        Match::Exact(exact) => (exact.as_str() == name).then(|| to.to_string()),
        Match::Prefix(prefix) => name
            .strip_prefix(prefix.as_str())
            .map(|rest| format!("{to}{rest}")),
        Match::Suffix(suffix) => name
            .strip_suffix(suffix.as_str())
            .map(|rest| format!("{rest}{to}")),
        Match::Substring(part) => name
            .contains(part.as_str())
            .then(|| name.replace(part.as_str(), to)),
        Match::Regex(pattern) => {
            let found = pattern.regex().captures(name)?;
            Some(filled(to, &found))
        }
    }
}

/// `{1}` becomes the first group.
fn filled(to: &str, found: &Captures<'_>) -> String {
    let mut out = to.to_string();
    for index in 0..found.len() {
        let group = found.get(index).map_or("", |group| group.as_str());
        out = out.replace(&format!("{{{index}}}"), group);
    }
    // A group may end with the dot that the target has, too.
    out.replace("..", ".")
}

fn change_option(how: How, option: &EdnsOption, asked: &mut Asked) -> bool {
    let (code, data) = match option {
        EdnsOption::Local(code, bytes) => (*code, bytes.clone()),
        EdnsOption::Variable(code, name) => (*code, variable(name, asked)),
        EdnsOption::Nsid => (NSID, Vec::new()),
        EdnsOption::Subnet(v4, v6) => (SUBNET, subnet(*v4, *v6, asked)),
    };
    let options = &mut asked.ask.options;
    let there = without(options, code);
    let had = there.len() != options.len();
    let put = match how {
        How::Set => true,
        How::Append => !had,
        How::Replace => had,
        How::Unset => {
            *options = there;
            return had;
        }
    };
    if put {
        *options = there;
        options.extend_from_slice(&code.to_be_bytes());
        options.extend_from_slice(&(data.len() as u16).to_be_bytes());
        options.extend_from_slice(&data);
    }
    put
}

/// Options on the wire without those of one code.
fn without(options: &[u8], code: u16) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut rest = options;
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([head[2], head[3]])).min(after.len());
        if u16::from_be_bytes([head[0], head[1]]) != code {
            kept.extend_from_slice(&rest[..4 + length]);
        }
        rest = &after[length..];
    }
    kept
}

fn variable(name: &str, asked: &Asked) -> Vec<u8> {
    let bytes_of = |address: std::net::IpAddr| match address.to_canonical() {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    let client = &asked.client;
    match name {
        "qname" => asked.name().into_bytes(),
        "qtype" => asked.ask.question.rtype.to_be_bytes().to_vec(),
        "client_ip" => bytes_of(client.address.ip()),
        "client_port" => client.address.port().to_be_bytes().to_vec(),
        "protocol" => super::transport_name(client.transport).as_bytes().to_vec(),
        "server_ip" => bytes_of(client.local),
        // The port of the listener is not known to plugins; 53 is what clients of this option expect.
        _ => 53_u16.to_be_bytes().to_vec(),
    }
}

/// RFC 7871, section 6.
fn subnet(v4: u8, v6: u8, asked: &Asked) -> Vec<u8> {
    let address = super::address_of(&asked.client);
    let (family, bits, octets) = match address {
        std::net::IpAddr::V4(address) => (1_u8, v4, address.octets().to_vec()),
        std::net::IpAddr::V6(address) => (2, v6, address.octets().to_vec()),
    };
    let net = ipnet::IpNet::new(address, bits).map(|net| net.network());
    let octets = match net {
        Ok(std::net::IpAddr::V4(net)) => net.octets().to_vec(),
        Ok(std::net::IpAddr::V6(net)) => net.octets().to_vec(),
        Err(_) => octets,
    };
    let bytes = usize::from(bits).div_ceil(8);
    [&[0, family, bits, 0], &octets[..bytes]].concat()
}

/// The first CNAME whose target a rule replaces, and the new target.
pub(super) fn new_target(rules: &[Rewrite], message: &Message) -> Option<(usize, Name)> {
    let of = |record: &Record| {
        let target = text_of(name_in(record)?.as_wire());
        rules.iter().find_map(|rewrite| match &rewrite.rule {
            Rule::Cname(of, to) if fits(of, &target) => Name::parse(to).ok(),
            _ => None,
        })
    };
    let aliases = message
        .answers
        .iter()
        .enumerate()
        .filter(|(_, record)| record.rtype == rtype::CNAME);
    aliases
        .into_iter()
        .find_map(|(index, record)| Some((index, of(record)?)))
}

impl Turned {
    /// Turns an answer back into one to the client's question.
    pub(super) fn back(self, message: &mut Message) {
        for back in self.back.iter().rev() {
            match back {
                Back::Name { old, new } => rename(message, new, old),
                Back::Answers(rules) => rename_by(message, rules),
                Back::Ttl(low, high) => {
                    for record in message.records_mut() {
                        record.ttl = record.ttl.clamp(*low, *high);
                    }
                }
                Back::Code(from, to) if message.rcode == *from => message.rcode = *to,
                Back::Code(..) => {}
            }
        }
        message.question = self.question;
    }
}

fn rename(message: &mut Message, from: &Name, to: &Name) {
    for record in message.records_mut() {
        if eq_names(record.name.as_wire(), from.as_wire()) {
            record.name = to.clone();
        }
        let target = name_in(record).filter(|name| eq_names(name.as_wire(), from.as_wire()));
        if let Some(turned) = target.and_then(|_| with_name(record, to)) {
            *record = turned;
        }
    }
}

fn rename_by(message: &mut Message, rules: &[Answer]) {
    let new = |rule: &Answer, name: &Name| {
        let text = text_of(name.as_wire());
        let found = rule.from.regex().captures(&text)?;
        Name::parse(&filled(&rule.to, &found)).ok()
    };
    for rule in rules {
        for record in message.records_mut() {
            if !rule.value {
                if let Some(name) = new(rule, &record.name) {
                    record.name = name;
                }
            } else if let Some(name) = name_in(record).and_then(|name| new(rule, &name))
                && let Some(turned) = with_name(record, &name)
            {
                *record = turned;
            }
        }
    }
}
