//! `template CLASS TYPE [ZONE…] { … }`: answers from patterns.
//!
//! The texts are those of Go's `text/template`, of which what people use in zones is understood: fields, groups of the
//! match, and `index`. Everything else is an error with its place.

use super::Pattern;
use crate::corefile::Error;
use crate::corefile::args::{Args, body, fallthrough, no_body, number, unknown, zones_or};
use crate::corefile::key::Zone;
use crate::corefile::lexer::{Line, Word};
use crate::corefile::types::{class_of, code_of, type_of};

/// Answers for what fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// `None`: every class.
    pub class: Option<u16>,
    /// `None`: every type.
    pub kind: Option<u16>,
    /// Names below them.
    pub zones: Vec<Zone>,
    /// Names that fit one of these.
    pub matches: Vec<Pattern>,
    /// Records, as in a zone file.
    pub answer: Vec<Text>,
    /// Records.
    pub additional: Vec<Text>,
    /// Records.
    pub authority: Vec<Text>,
    /// The response code.
    pub code: u16,
    /// An extended error (RFC 8914), with a reason.
    pub error: Option<(u16, String)>,
    /// Names below these that fit nothing go on to the next plugin.
    pub fallthrough: Vec<Zone>,
}

/// A text with places for what a query has.
#[derive(Clone, Debug, PartialEq)]
pub struct Text(pub Vec<Part>);

/// Part of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// As it stands.
    Plain(String),
    /// `{{ .Name }}`.
    Name,
    /// `{{ .Zone }}`.
    Zone,
    /// `{{ .Class }}`.
    Class,
    /// `{{ .Type }}`.
    Type,
    /// `{{ .Remote }}`.
    Remote,
    /// `{{ index .Match 1 }}`.
    Match(usize),
    /// `{{ .Group.name }}`.
    Group(String),
}

const OPTIONS: [&str; 8] = [
    "match",
    "answer",
    "additional",
    "authority",
    "rcode",
    "ederror",
    "fallthrough",
    "upstream",
];
const PLACES: &str = "{{ .Name }}, {{ .Zone }}, {{ .Class }}, {{ .Type }}, {{ .Remote }}, {{ .Group.NAME }}, {{ index .Match NUMBER }}";

pub(super) fn template(line: &Line, block: &[Zone]) -> Result<Template, Error> {
    let mut args = Args::of(line);
    let class = any_or(args.need("CLASS TYPE")?, "class", class_of)?;
    let kind = any_or(args.need("TYPE after CLASS")?, "type of record", type_of)?;
    let mut template = Template {
        class,
        kind,
        zones: zones_or(args.rest(), block)?,
        matches: Vec::new(),
        answer: Vec::new(),
        additional: Vec::new(),
        authority: Vec::new(),
        code: 0,
        error: None,
        fallthrough: Vec::new(),
    };
    for option in body(line) {
        read(&mut template, option, line)?;
        no_body(option)?;
    }
    Ok(template)
}

fn any_or(word: &Word, what: &str, read: fn(&str) -> Option<u16>) -> Result<Option<u16>, Error> {
    let number =
        read(&word.text).ok_or_else(|| word.wrong(format!("{:?} is no {what}", word.text)))?;
    Ok((number != 255).then_some(number))
}

fn read(into: &mut Template, option: &Line, line: &Line) -> Result<(), Error> {
    let mut args = Args::of(option);
    match option.name().text.as_str() {
        "match" => {
            for word in args.need_rest("a regular expression")? {
                into.matches.push(Pattern::parse(word)?);
            }
        }
        "answer" => into.answer.extend(texts(&mut args)?),
        "additional" => into.additional.extend(texts(&mut args)?),
        "authority" => into.authority.extend(texts(&mut args)?),
        "rcode" => {
            let word = args.need("a response code")?;
            let wrong = || {
                word.wrong(format!(
                    "{:?} is no response code such as NXDOMAIN",
                    word.text
                ))
            };
            into.code = code_of(&word.text).ok_or_else(wrong)?;
        }
        "ederror" => {
            let code = number(
                args.need("a code")?,
                "code of an extended error",
                0..=u16::MAX,
            )?;
            let reason = args.take().map(|word| word.text.clone());
            into.error = Some((code, reason.unwrap_or_default()));
        }
        "fallthrough" => {
            into.fallthrough = fallthrough(option)?;
            args.rest();
        }
        // Targets of CNAMEs are always resolved by the server itself.
        "upstream" => {
            args.rest();
        }
        _ => return Err(unknown(option, line, &OPTIONS)),
    }
    args.end()
}

fn texts(args: &mut Args) -> Result<Vec<Text>, Error> {
    args.need_rest("a record")?.iter().map(text).collect()
}

fn text(word: &Word) -> Result<Text, Error> {
    let mut parts = Vec::new();
    let mut rest = word.text.as_str();
    while let Some((before, after)) = rest.split_once("{{") {
        let wrong =
            |what: &str| word.wrong(format!("{what} is not understood; possible: {PLACES}"));
        let (inside, behind) = after
            .split_once("}}")
            .ok_or_else(|| wrong("{{ without }}"))?;
        let trimmed = inside
            .strip_prefix("- ")
            .map_or(before, |_| before.trim_end());
        if !trimmed.is_empty() {
            parts.push(Part::Plain(trimmed.to_string()));
        }
        let bare = inside.strip_prefix("- ").unwrap_or(inside);
        let (bare, behind) = match bare.strip_suffix(" -") {
            Some(bare) => (bare, behind.trim_start()),
            None => (bare, behind),
        };
        parts.push(place(bare).ok_or_else(|| wrong(&format!("{{{{{inside}}}}}")))?);
        rest = behind;
    }
    if !rest.is_empty() {
        parts.push(Part::Plain(rest.to_string()));
    }
    Ok(Text(parts))
}

fn place(inside: &str) -> Option<Part> {
    let words: Vec<&str> = inside.split_whitespace().collect();
    match words.as_slice() {
        [".Name"] => Some(Part::Name),
        [".Zone"] => Some(Part::Zone),
        [".Class"] => Some(Part::Class),
        [".Type"] => Some(Part::Type),
        [".Remote"] => Some(Part::Remote),
        ["index", ".Match", number] => number.parse().ok().map(Part::Match),
        ["index", ".Group", name] => {
            let name = name.strip_prefix('"')?.strip_suffix('"')?;
            Some(Part::Group(name.to_string()))
        }
        [group] => group
            .strip_prefix(".Group.")
            .map(|name| Part::Group(name.to_string())),
        _ => None,
    }
}
