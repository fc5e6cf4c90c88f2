//! `template`: answers from patterns.

use regex::Captures;

use super::{Asked, zone_of};
use crate::corefile::plugin::Template;
use crate::corefile::plugin::template::{Part, Text};
use crate::corefile::types::type_name;
use crate::message::{Message, Record, record};
use crate::wire::rcode;

/// What a template says to a question.
pub(super) enum Said {
    /// Nothing: the next one is asked.
    Nothing,
    /// This.
    Answer(Message),
    /// It makes no record of what it was given.
    Wrong(String),
}

/// Asks one template. `name` is the question's, in small letters.
pub(super) fn ask(template: &Template, asked: &Asked, name: &str) -> Said {
    let question = &asked.ask.question;
    let Some(zone) = zone_of(&template.zones, name) else {
        return Said::Nothing;
    };
    let class = template.class.is_none_or(|class| class == question.class);
    let kind = template.kind.is_none_or(|kind| kind == question.rtype);
    if !class || !kind {
        return Said::Nothing;
    }
    let found = template
        .matches
        .iter()
        .find_map(|pattern| pattern.regex().captures(name));
    if found.is_none() && !template.matches.is_empty() {
        return match super::below(&template.fallthrough, name) {
            true => Said::Nothing,
            false => Said::Answer(Message::answer(question.clone(), rcode::NXDOMAIN)),
        };
    }
    let fill = |texts: &[Text]| -> Result<Vec<Record>, String> {
        let one = |text| record(&filled(text, asked, zone.as_str(), name, found.as_ref()));
        texts.iter().map(one).collect()
    };
    let made = || -> Result<Message, String> {
        let mut message = Message::answer(question.clone(), template.code);
        message.authoritative = true;
        message.answers = fill(&template.answer)?;
        message.authorities = fill(&template.authority)?;
        message.additionals = fill(&template.additional)?;
        message.error = template.error.clone();
        Ok(message)
    };
    made().map_or_else(Said::Wrong, Said::Answer)
}

fn filled(
    text: &Text,
    asked: &Asked,
    zone: &str,
    name: &str,
    found: Option<&Captures<'_>>,
) -> String {
    let mut out = String::new();
    for part in &text.0 {
        match part {
            Part::Plain(text) => out.push_str(text),
            Part::Name => out.push_str(name),
            Part::Zone => out.push_str(zone),
            Part::Class => out.push_str(if asked.ask.question.class == 3 {
                "CH"
            } else {
                "IN"
            }),
            Part::Type => out.push_str(&type_name(asked.ask.question.rtype)),
            Part::Remote => out.push_str(&super::address_of(&asked.client).to_string()),
            Part::Match(0) if found.is_none() => out.push_str(name),
            Part::Match(index) => {
                let group = found.and_then(|found| found.get(*index));
                out.push_str(group.map_or("", |group| group.as_str()));
            }
            Part::Group(group) => {
                let group = found.and_then(|found| found.name(group));
                out.push_str(group.map_or("", |group| group.as_str()));
            }
        }
    }
    out
}
