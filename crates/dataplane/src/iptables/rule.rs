//! Rules as typed values. They are shown exactly as `iptables-save` shows them, so that what was written can be compared
//! with what stands, and `trace` interprets the same values.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_model::{Family, Protocol};

use super::name::{Chain, Hash, Role, protocol};

/// The longest comment that the kernel keeps (`XT_MAX_COMMENT_LEN` without the final zero).
pub const COMMENT_MAX: usize = 255;

/// One condition of a rule. In the order in which they stand in a rule: what is random or counts comes last, so that
/// only packets reach it that meet all other conditions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// The source lies in this range, or (`not`) does not. Never the range of all addresses.
    Source {
        /// Inverted.
        not: bool,
        /// The range.
        range: IpNet,
    },
    /// The destination is this address.
    Destination(IpNet),
    /// It came over this interface, or (`not`) did not; a `+` at the end stands for any rest of a name.
    Interface {
        /// Inverted.
        not: bool,
        /// The name.
        name: Arc<str>,
    },
    /// It is of this protocol.
    Protocol(Protocol),
    /// No condition, but words for people.
    Comment(Arc<str>),
    /// Its destination port, for a rule with a protocol.
    Port(Protocol, u16),
    /// Its source is an address of the node, or (`not`) is none.
    LocalSource {
        /// Inverted.
        not: bool,
    },
    /// The state of its flow.
    State(State),
    /// It has not the mark that asks for masquerade (`not`), or has it.
    Marked {
        /// Inverted.
        not: bool,
        /// The bit.
        mark: u32,
    },
    /// Its sender is remembered by this endpoint, and not longer than so many seconds.
    Remembered {
        /// The endpoint's chain gives the memory its name.
        endpoint: Hash,
        /// `--seconds`.
        seconds: u32,
    },
    /// Always true: the sender is remembered by this endpoint from now on.
    Remember(Hash),
    /// True with the chance n / 2^31.
    Chance(u32),
    /// True for every n-th packet that comes here, beginning with the first.
    Turn(u32),
}

/// States of flows that rules ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The first packet.
    New,
    /// No destination has been rewritten.
    NotDnat,
    /// A packet that fits no flow.
    Invalid,
    /// A packet of a flow that stands, or belongs to one.
    Known,
}

/// What happens to a packet that meets all conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Goes on in a chain and comes back.
    Jump(Chain),
    /// Goes on in a chain and comes back where this chain was jumped to.
    Goto(Chain),
    /// Goes back.
    Return,
    /// May pass.
    Accept,
    /// No answer.
    Drop,
    /// A TCP reset.
    Reset,
    /// ICMP: port unreachable.
    Unreachable,
    /// Sets the mark that asks for masquerade.
    Mark(u32),
    /// Takes it away (where it is known to stand).
    Unmark(u32),
    /// Rewrites the source to the address of the interface, with a random port.
    Masquerade,
    /// Rewrites the destination, for the whole flow.
    Dnat(SocketAddr),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// All of these must hold; in the order of [`Match`].
    pub matches: Vec<Match>,
    /// What happens then.
    pub target: Target,
}

impl Rule {
    /// A rule with these conditions, in any order.
    pub fn new(matches: impl IntoIterator<Item = Match>, target: Target) -> Self {
        let mut matches: Vec<Match> = matches.into_iter().collect();
        matches.sort();
        Rule { matches, target }
    }

    /// The rule that comes before all others in the order of rules.
    pub(crate) const fn first() -> Self {
        Rule {
            matches: Vec::new(),
            target: Target::Jump(Chain::Service(Role::Endpoint, Hash::FIRST)),
        }
    }

    /// Whether it speaks of one destination port. In chains that have lines for Services and rules that always stand,
    /// only the lines do.
    pub fn has_port(&self) -> bool {
        self.matches
            .iter()
            .any(|one| matches!(one, Match::Port(..)))
    }

    /// The rule without the words for people.
    pub fn without_comment(mut self) -> Self {
        self.matches.retain(|one| !matches!(one, Match::Comment(_)));
        self
    }

    /// A number by which it is recognised when it is read back.
    pub fn digest(&self, family: Family) -> u64 {
        fnv(DIGEST_START, self.show(family).as_bytes())
    }

    /// The rule as `iptables-save` shows it behind `-A CHAIN`.
    pub fn show(&self, family: Family) -> String {
        let mut text = String::with_capacity(160);
        for one in &self.matches {
            one.write(family, &mut text)
                .expect("invariant: a String takes all");
            text.push(' ');
        }
        self.target
            .write(family, &mut text)
            .expect("invariant: a String takes all");
        text
    }
}

/// Words for people, cut to what the kernel keeps. Names of Services are plain ASCII.
pub fn comment(mut words: String) -> Match {
    let mut end = COMMENT_MAX.min(words.len());
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    words.truncate(end);
    Match::Comment(words.into())
}

impl Match {
    fn write(&self, family: Family, out: &mut String) -> fmt::Result {
        let bang = |not: bool| if not { "! " } else { "" };
        match self {
            Match::Source { not, range } => write!(out, "{}-s {range}", bang(*not)),
            Match::Destination(range) => write!(out, "-d {range}"),
            Match::Interface { not, name } => write!(out, "{}-i {name}", bang(*not)),
            Match::Protocol(of) => write!(out, "-p {}", protocol(*of)),
            Match::Comment(words) => write!(out, "-m comment --comment {}", quoted(words)),
            Match::Port(of, port) => write!(out, "-m {} --dport {port}", protocol(*of)),
            Match::LocalSource { not } => {
                write!(out, "-m addrtype {}--src-type LOCAL", bang(*not))
            }
            Match::State(State::New) => out.write_str("-m conntrack --ctstate NEW"),
            Match::State(State::NotDnat) => out.write_str("-m conntrack ! --ctstate DNAT"),
            Match::State(State::Invalid) => out.write_str("-m conntrack --ctstate INVALID"),
            Match::State(State::Known) => {
                out.write_str("-m conntrack --ctstate RELATED,ESTABLISHED")
            }
            Match::Marked { not, mark } => {
                write!(out, "-m mark {}--mark {mark:#x}/{mark:#x}", bang(*not))
            }
            Match::Remembered { endpoint, seconds } => write!(
                out,
                "-m recent --rcheck --seconds {seconds} --reap --name {} {}",
                Chain::Service(Role::Endpoint, *endpoint),
                by_source(family)
            ),
            Match::Remember(endpoint) => write!(
                out,
                "-m recent --set --name {} {}",
                Chain::Service(Role::Endpoint, *endpoint),
                by_source(family)
            ),
            Match::Chance(chance) => write!(
                out,
                "-m statistic --mode random --probability {:.11}",
                f64::from(*chance) / CHANCE_ONE as f64
            ),
            Match::Turn(every) => {
                write!(out, "-m statistic --mode nth --every {every} --packet 0")
            }
        }
    }
}

/// The chance that is certain.
pub(crate) const CHANCE_ONE: u64 = 1 << 31;

/// Whole source addresses are remembered.
const fn by_source(family: Family) -> &'static str {
    match family {
        Family::V4 => "--mask 255.255.255.255 --rsource",
        Family::V6 => "--mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource",
    }
}

impl Target {
    fn write(&self, family: Family, out: &mut String) -> fmt::Result {
        let plain = match self {
            Target::Jump(chain) => return write!(out, "-j {chain}"),
            Target::Goto(chain) => return write!(out, "-g {chain}"),
            Target::Dnat(to) => return write!(out, "-j DNAT --to-destination {to}"),
            Target::Mark(mark) => return write!(out, "-j MARK --set-xmark {mark:#x}/{mark:#x}"),
            Target::Unmark(mark) => return write!(out, "-j MARK --set-xmark {mark:#x}/0x0"),
            Target::Return => "-j RETURN",
            Target::Accept => "-j ACCEPT",
            Target::Drop => "-j DROP",
            Target::Reset => "-j REJECT --reject-with tcp-reset",
            Target::Unreachable => match family {
                Family::V4 => "-j REJECT --reject-with icmp-port-unreachable",
                Family::V6 => "-j REJECT --reject-with icmp6-port-unreachable",
            },
            Target::Masquerade => "-j MASQUERADE --random-fully",
        };
        out.write_str(plain)
    }
}

/// As iptables quotes: only what has other characters than these.
fn quoted(words: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !words.is_empty() && words.chars().all(plain) {
        return words.to_owned();
    }
    let mut text = String::from("\"");
    for c in words.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

/// Starts every digest; change it when rules of the same text get another meaning.
pub(crate) const DIGEST_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits: small, and the same on every machine and in every version.
pub(crate) fn fnv(start: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(start, step)
}

/// The digest of a chain: of its rules, in order.
pub(crate) fn digest_of<'a>(family: Family, rules: impl IntoIterator<Item = &'a Rule>) -> u64 {
    rules.into_iter().fold(DIGEST_START, |hash, rule| {
        fnv(hash, &rule.digest(family).to_be_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel would refuse a longer comment, and with it everything that is written beside it.
    #[test]
    fn words_are_cut_to_what_the_kernel_keeps() {
        let length = |words: String| match comment(words) {
            Match::Comment(words) => words.len(),
            _ => 0,
        };
        assert_eq!(length("x".repeat(COMMENT_MAX)), COMMENT_MAX);
        assert_eq!(length("x".repeat(COMMENT_MAX + 1)), COMMENT_MAX);
        assert_eq!(length("ü".repeat(COMMENT_MAX)), COMMENT_MAX - 1);
    }

    #[test]
    fn words_are_quoted_as_iptables_does() {
        assert_eq!(quoted("plain_word-1"), "plain_word-1");
        assert_eq!(quoted("shop/web:http"), "\"shop/web:http\"");
        assert_eq!(quoted("a\"b\\c'd"), r#""a\"b\\c\'d""#);
        assert_eq!(quoted(""), "\"\"");
    }
}
