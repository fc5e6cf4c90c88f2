//! `acl`, `dns64`, `loadbalance`: who is answered, and what is done to answers.

use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU8, NonZeroU32};

use ipnet::{IpNet, Ipv6Net};

use crate::corefile::Error;
use crate::corefile::args::{Args, alone, body, no_body, none_of, number, unknown, zones_or};
use crate::corefile::key::Zone;
use crate::corefile::lexer::{Line, Word};
use crate::corefile::types::type_of;

/// `acl [ZONES…] { ACTION … }`: the first policy that fits decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Acl {
    /// Names below them are checked.
    pub zones: Vec<Zone>,
    /// In order.
    pub policies: Vec<Policy>,
}

/// `ACTION [type QTYPE…] [net SOURCE…]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// What happens.
    pub action: Action,
    /// To queries for these types; all when empty.
    pub types: Vec<u16>,
    /// From these networks; all when empty.
    pub sources: Vec<IpNet>,
}

/// What happens to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is answered.
    Allow,
    /// REFUSED.
    Block,
    /// NOERROR without records.
    Filter,
    /// No answer.
    Drop,
}

/// `dns64 [PREFIX] { … }`: RFC 6147.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dns64 {
    /// A /96, /64, /56, /48, /40 or /32.
    pub prefix: Ipv6Net,
    /// Also where there are AAAA records.
    pub translate_all: bool,
    /// Also for clients that ask over IPv4.
    pub allow_ipv4: bool,
}

/// `rrl { … }`: the plugin of this name that is not CoreDNS' own, without what counts answers by their kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rrl {
    /// Answers over UDP that one network gets in a second.
    pub per_second: NonZeroU32,
    /// Bits that the addresses of one network share.
    pub v4_bits: u8,
    /// The same of IPv6.
    pub v6_bits: u8,
    /// Of so many queries beyond the limit one gets TC; of none without it.
    pub slip: Option<NonZeroU8>,
    /// Networks that are known at a time; 8 bytes each.
    pub table: usize,
}

/// The most networks of `rrl`: 32 MiB.
pub const NETWORKS_MAX: usize = 4 << 20;

const RRL: [&str; 5] = [
    "responses-per-second",
    "ipv4-prefix-length",
    "ipv6-prefix-length",
    "slip-ratio",
    "max-table-size",
];

/// `loadbalance [round_robin] { prefer CIDR… }`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadBalance {
    /// Addresses of these networks come first, in this order.
    pub prefer: Vec<IpNet>,
}

const ACTIONS: [&str; 4] = ["allow", "block", "filter", "drop"];

pub(super) fn acl(line: &Line, block: &[Zone]) -> Result<Acl, Error> {
    let zones = zones_or(Args::of(line).rest(), block)?;
    let policies = body(line).iter().map(|option| policy(option, line));
    let policies = policies.collect::<Result<Vec<_>, _>>()?;
    Ok(Acl { zones, policies })
}

fn policy(option: &Line, line: &Line) -> Result<Policy, Error> {
    let action = match option.name().text.as_str() {
        "allow" => Action::Allow,
        "block" => Action::Block,
        "filter" => Action::Filter,
        "drop" => Action::Drop,
        _ => return Err(unknown(option, line, &ACTIONS)),
    };
    let mut policy = Policy {
        action,
        types: Vec::new(),
        sources: Vec::new(),
    };
    let mut nets = None;
    for word in Args::of(option).rest() {
        match (word.text.as_str(), nets) {
            ("type", _) => nets = Some(false),
            ("net", _) => nets = Some(true),
            (_, Some(true)) => policy.sources.extend(source(word)?),
            (text, Some(false)) if text != "*" && !text.eq_ignore_ascii_case("ANY") => {
                policy.types.push(
                    type_of(text)
                        .ok_or_else(|| word.wrong(format!("{text:?} is no type of record")))?,
                )
            }
            (_, Some(false)) => {}
            (_, None) => return Err(none_of(word, "section of a policy", &["type", "net"])),
        }
    }
    no_body(option)?;
    Ok(policy)
}

/// An address, a network, or `*` for all.
fn source(word: &Word) -> Result<Option<IpNet>, Error> {
    match word.text.as_str() {
        "*" => Ok(None),
        _ => network(word).map(Some),
    }
}

/// A network, or one address.
fn network(word: &Word) -> Result<IpNet, Error> {
    let whole = word.text.parse::<IpNet>().map(|net| net.trunc()).ok();
    let found = whole.or_else(|| word.text.parse::<IpAddr>().ok().map(IpNet::from));
    found.ok_or_else(|| word.wrong(format!("{:?} is no network such as 10.0.0.0/8", word.text)))
}

pub(super) fn dns64(line: &Line) -> Result<Dns64, Error> {
    let standard = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
    let mut args = Args::of(line);
    let mut dns64 = Dns64 {
        prefix: args.take().map_or(Ok(standard), prefix)?,
        translate_all: false,
        allow_ipv4: false,
    };
    args.end()?;
    for option in body(line) {
        match option.name().text.as_str() {
            "prefix" => dns64.prefix = prefix(Args::of(option).need("a prefix")?)?,
            "translate_all" => {
                alone(option)?;
                dns64.translate_all = true;
            }
            "allow_ipv4" => {
                alone(option)?;
                dns64.allow_ipv4 = true;
            }
            _ => {
                return Err(unknown(
                    option,
                    line,
                    &["prefix", "translate_all", "allow_ipv4"],
                ));
            }
        }
    }
    Ok(dns64)
}

fn prefix(word: &Word) -> Result<Ipv6Net, Error> {
    let found: Option<Ipv6Net> = word.text.parse().ok();
    let fits = found.filter(|net| [32, 40, 48, 56, 64, 96].contains(&net.prefix_len()));
    fits.map(|net| net.trunc()).ok_or_else(|| {
        word.wrong(format!(
            "{:?} is no prefix of RFC 6052: an IPv6 network of 32, 40, 48, 56, 64 or 96 bits",
            word.text
        ))
    })
}

pub(super) fn rrl(line: &Line) -> Result<Rrl, Error> {
    Args::of(line).end()?;
    let mut per_second = None;
    let mut rrl = Rrl {
        per_second: NonZeroU32::MIN,
        v4_bits: 24,
        v6_bits: 56,
        slip: None,
        table: 100_000,
    };
    for option in body(line) {
        let mut args = Args::of(option);
        let name = option.name().text.as_str();
        if !RRL.contains(&name) {
            return Err(unknown(option, line, &RRL));
        }
        let word = args.need("a number")?;
        match name {
            "responses-per-second" => {
                per_second = NonZeroU32::new(number(word, "number of answers", 1..=1_000_000)?);
            }
            "ipv4-prefix-length" => rrl.v4_bits = number(word, "length of a prefix", 1..=32)?,
            "ipv6-prefix-length" => rrl.v6_bits = number(word, "length of a prefix", 1..=128)?,
            "slip-ratio" => rrl.slip = NonZeroU8::new(number(word, "ratio", 0..=10)?),
            _ => rrl.table = number(word, "number of networks", 1..=NETWORKS_MAX)?,
        }
        args.end()?;
        no_body(option)?;
    }
    let missing = || {
        line.name()
            .wrong("rrl needs a line \"responses-per-second NUMBER\"")
    };
    rrl.per_second = per_second.ok_or_else(missing)?;
    Ok(rrl)
}

pub(super) fn loadbalance(line: &Line) -> Result<LoadBalance, Error> {
    let mut args = Args::of(line);
    if let Some(word) = args.take().filter(|word| word.text != "round_robin") {
        return Err(none_of(word, "policy of loadbalance", &["round_robin"]));
    }
    args.end()?;
    let mut balance = LoadBalance::default();
    for option in body(line) {
        match option.name().text.as_str() {
            "prefer" => {
                let words = Args::of(option).need_rest("a network")?;
                let nets = words.iter().map(network).collect::<Result<Vec<_>, _>>()?;
                balance.prefer.extend(nets);
            }
            _ => return Err(unknown(option, line, &["prefer"])),
        }
    }
    Ok(balance)
}
