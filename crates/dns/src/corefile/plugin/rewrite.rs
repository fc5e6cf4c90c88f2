//! `rewrite [continue|stop] FIELD …`: questions that become others, and answers that are turned back.

use super::Pattern;
use crate::corefile::Error;
use crate::corefile::args::{Args, body, none_of, number};
use crate::corefile::key::Zone;
use crate::corefile::lexer::{Line, Word};
use crate::corefile::types::{class_of, code_of, type_of};

/// Bytes of one option that is put into a query.
const OPTION_BYTES_MAX: usize = 512;

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewrite {
    /// Whether the rules after it are looked at when it fits.
    pub go_on: bool,
    /// What is changed.
    pub rule: Rule,
}

/// What a rule changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// The name that is asked for.
    Name {
        /// Which.
        of: Match,
        /// What it becomes; `{1}` is a group of a regular expression.
        to: String,
        /// What becomes of names in the answer.
        answers: Vec<Answer>,
        /// Whether names in the answer are turned back by the rule itself.
        auto: bool,
    },
    /// The type that is asked for.
    Type(u16, u16),
    /// The class that is asked for.
    Class(u16, u16),
    /// The time to live in the answer.
    Ttl(Match, u32, u32),
    /// The target of a CNAME in the answer; the new one is resolved.
    Cname(Match, String),
    /// The response code.
    Code(Match, u16, u16),
    /// An option of EDNS.
    Edns {
        /// What is done when there is one already.
        how: How,
        /// Which.
        option: EdnsOption,
        /// Whether the client's own is in the answer.
        revert: bool,
    },
}

/// Which names.
#[derive(Clone, Debug, PartialEq)]
pub enum Match {
    /// This one.
    Exact(Zone),
    /// Those that begin so.
    Prefix(String),
    /// Those that end so.
    Suffix(String),
    /// Those with such a part.
    Substring(String),
    /// Those that fit.
    Regex(Pattern),
}

/// `answer name FROM TO`, `answer value FROM TO`.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Names inside records, and not those of records.
    pub value: bool,
    /// Which.
    pub from: Pattern,
    /// What they become.
    pub to: String,
}

/// What is done when an option is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It gets the new value; when there is none it is put in.
    Set,
    /// It stays; when there is none the new one is put in.
    Append,
    /// It gets the new value; when there is none nothing is done.
    Replace,
    /// It is taken out.
    Unset,
}

/// Options of EDNS.
#[derive(Clone, Debug, PartialEq)]
pub enum EdnsOption {
    /// A code and bytes.
    Local(u16, Vec<u8>),
    /// A code and what is known of the query, such as `{client_ip}`.
    Variable(u16, String),
    /// RFC 5001.
    Nsid,
    /// RFC 7871: bits of an IPv4 and of an IPv6 address.
    Subnet(u8, u8),
}

const FIELDS: [&str; 7] = ["name", "type", "class", "ttl", "cname", "rcode", "edns0"];
/// What can be known of a query.
pub const VARIABLES: [&str; 7] = [
    "qname",
    "qtype",
    "client_ip",
    "client_port",
    "protocol",
    "server_ip",
    "server_port",
];

pub(super) fn rewrite(line: &Line) -> Result<Rewrite, Error> {
    let joined = joined(line)?;
    let mut args = Args::of(&joined);
    let mut go_on = false;
    if let Some(word) = args
        .peek()
        .filter(|word| ["continue", "stop"].contains(&word.text.as_str()))
    {
        go_on = word.text == "continue";
        args.take();
    }
    let field = args.need("a field: name, type, class, ttl, cname, rcode or edns0")?;
    let rule = match field.text.as_str() {
        "name" => name(&mut args)?,
        "type" => {
            two(&mut args, "type of record", type_of).map(|(from, to)| Rule::Type(from, to))?
        }
        "class" => two(&mut args, "class", class_of).map(|(from, to)| Rule::Class(from, to))?,
        "ttl" => ttl(&mut args)?,
        "cname" => {
            let from = of(&mut args, true)?;
            Rule::Cname(from, args.need("the new target")?.text.clone())
        }
        "rcode" => {
            let from = of(&mut args, true)?;
            let (old, new) = two(&mut args, "response code", code_of)?;
            Rule::Code(from, old, new)
        }
        "edns0" => edns(&mut args)?,
        _ => return Err(none_of(field, "field", &FIELDS)),
    };
    args.end()?;
    Ok(Rewrite { go_on, rule })
}

/// A rule may stand on the line, or over the lines of a body.
fn joined(line: &Line) -> Result<Line, Error> {
    let mut words = line.words.clone();
    for inner in body(line) {
        if inner.body.is_some() {
            return Err(inner.name().wrong("a rule has one body in braces at most"));
        }
        words.extend(inner.words.iter().cloned());
    }
    Ok(Line { words, body: None })
}

fn two(args: &mut Args, what: &str, read: fn(&str) -> Option<u16>) -> Result<(u16, u16), Error> {
    let mut one = || {
        let word = args.need(&format!("two of: {what}"))?;
        read(&word.text).ok_or_else(|| word.wrong(format!("{:?} is no {what}", word.text)))
    };
    Ok((one()?, one()?))
}

/// `[exact|prefix|suffix|substring|regex] STRING`.
fn of(args: &mut Args, dotted: bool) -> Result<Match, Error> {
    let first = args.need("a name")?;
    let kinds = ["exact", "prefix", "suffix", "substring", "regex"];
    let named = kinds.contains(&first.text.as_str());
    let word = if named { args.need("a name")? } else { first };
    let small = word.text.to_ascii_lowercase();
    Ok(match first.text.as_str() {
        "prefix" => Match::Prefix(small),
        "suffix" => Match::Suffix(if dotted { with_dot(&small) } else { small }),
        "substring" => Match::Substring(small),
        "regex" => Match::Regex(Pattern::parse(word)?),
        _ => {
            let wrong = || word.wrong(format!("{:?} is no name", word.text));
            Match::Exact(Zone::parse(&word.text).ok_or_else(wrong)?)
        }
    })
}

fn with_dot(name: &str) -> String {
    match name.ends_with('.') {
        true => name.to_string(),
        false => format!("{name}."),
    }
}

fn name(args: &mut Args) -> Result<Rule, Error> {
    let of = of(args, true)?;
    let to = args.need("the new name")?;
    let to = match of {
        Match::Prefix(_) | Match::Substring(_) => to.text.to_ascii_lowercase(),
        _ => with_dot(&to.text.to_ascii_lowercase()),
    };
    let mut answers = Vec::new();
    let mut auto = false;
    while let Some(word) = args.take() {
        if word.text != "answer" {
            return Err(none_of(
                word,
                "part of a name rule",
                &["answer name", "answer value", "answer auto"],
            ));
        }
        let kind = args.need("name, value or auto")?;
        match kind.text.as_str() {
            "auto" => auto = true,
            "name" | "value" => answers.push(Answer {
                value: kind.text == "value",
                from: Pattern::parse(args.need("FROM and TO")?)?,
                to: with_dot(&args.need("TO")?.text.to_ascii_lowercase()),
            }),
            _ => {
                return Err(none_of(
                    kind,
                    "part of an answer",
                    &["name", "value", "auto"],
                ));
            }
        }
    }
    // The name in the question is the client's own in any case; of a changed name with no regular expression CoreDNS
    // turns answers back too.
    let auto = auto || !matches!(of, Match::Regex(_));
    Ok(Rule::Name {
        of,
        to,
        answers,
        auto,
    })
}

fn ttl(args: &mut Args) -> Result<Rule, Error> {
    let of = of(args, true)?;
    let word = args.need("seconds, or MIN-MAX")?;
    let part = |text: &str| {
        let word = Word {
            text: text.to_string(),
            place: word.place.clone(),
        };
        number(&word, "time to live in seconds", 0..=u32::MAX >> 1)
    };
    let (low, high) = match word.text.split_once('-') {
        None => (part(&word.text)?, part(&word.text)?),
        Some((low, "")) => (part(low)?, u32::MAX >> 1),
        Some(("", high)) => (0, part(high)?),
        Some((low, high)) => (part(low)?, part(high)?),
    };
    match low <= high {
        true => Ok(Rule::Ttl(of, low, high)),
        false => Err(word.wrong(format!("{low} is more than {high}"))),
    }
}

fn edns(args: &mut Args) -> Result<Rule, Error> {
    let kind = args.need("local, nsid or subnet")?;
    let word = args.need("set, append, replace or unset")?;
    let how = match word.text.as_str() {
        "set" => How::Set,
        "append" => How::Append,
        "replace" => How::Replace,
        "unset" => How::Unset,
        _ => {
            return Err(none_of(
                word,
                "way to change an option",
                &["set", "append", "replace", "unset"],
            ));
        }
    };
    let option = match kind.text.as_str() {
        "local" => local(args, how)?,
        "nsid" => EdnsOption::Nsid,
        "subnet" if how == How::Unset => EdnsOption::Subnet(0, 0),
        "subnet" => EdnsOption::Subnet(
            number(
                args.need("bits of IPv4 and IPv6")?,
                "number of bits",
                0..=32,
            )?,
            number(args.need("bits of IPv6")?, "number of bits", 0..=128)?,
        ),
        _ => {
            return Err(none_of(
                kind,
                "option of EDNS",
                &["local", "nsid", "subnet"],
            ));
        }
    };
    let revert = args.peek().is_some_and(|word| word.text == "revert");
    if revert {
        args.take();
    }
    Ok(Rule::Edns {
        how,
        option,
        revert,
    })
}

fn local(args: &mut Args, how: How) -> Result<EdnsOption, Error> {
    let word = args.need("a code such as 0xffee")?;
    let digits = word
        .text
        .strip_prefix("0x")
        .map(|hex| u16::from_str_radix(hex, 16));
    let code = digits.unwrap_or_else(|| word.text.parse());
    let code = code.map_err(|_| word.wrong(format!("{:?} is no code of an option", word.text)))?;
    if how == How::Unset {
        return Ok(EdnsOption::Local(code, Vec::new()));
    }
    let data = args.need("data")?;
    let text = data.text.as_str();
    if let Some(name) = text
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
    {
        return match VARIABLES.contains(&name) {
            true => Ok(EdnsOption::Variable(code, name.to_string())),
            false => Err(none_of(data, "variable", &VARIABLES.map(|name| name))),
        };
    }
    let bytes = match text.strip_prefix("0x") {
        Some(hex) => bytes_of(hex)
            .ok_or_else(|| data.wrong(format!("{text:?} is no even number of hex digits")))?,
        None => text.as_bytes().to_vec(),
    };
    match bytes.len() <= OPTION_BYTES_MAX {
        true => Ok(EdnsOption::Local(code, bytes)),
        false => Err(data.wrong(format!("an option holds at most {OPTION_BYTES_MAX} bytes"))),
    }
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = hex
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}
