//! The table of messages, read once from `messages.txt`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Int,
    Bool,
    Double,
    Text,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON in bytes.
    Raw,
    /// A message of the table.
    Message(String),
}

/// How often it occurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Many {
    One,
    List,
    /// By name.
    Map,
}

/// One field of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) number: u32,
    /// Name in JSON.
    pub(super) name: String,
    /// Zero is not the same as absent.
    pub(super) optional: bool,
    pub(super) many: Many,
    pub(super) kind: Type,
}

impl Field {
    /// Whether the fields of this message are its owner's own in JSON.
    pub(super) fn inline(&self) -> bool {
        self.name == ">"
    }
}

/// All messages by name.
pub(super) fn schema() -> &'static BTreeMap<String, Vec<Field>> {
    static SCHEMA: OnceLock<BTreeMap<String, Vec<Field>>> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut messages: BTreeMap<String, Vec<Field>> = BTreeMap::new();
        let mut name = String::new();
        for line in include_str!("messages.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
        {
            match line.strip_prefix(' ') {
                None => {
                    name = line.to_owned();
                    messages.entry(name.clone()).or_default();
                }
                Some(field) => {
                    messages
                        .entry(name.clone())
                        .or_default()
                        .extend(parse(field));
                }
            }
        }
        messages
    })
}

fn parse(line: &str) -> Option<Field> {
    let words: Vec<&str> = line.split(' ').collect();
    let (number, name, many, kind) = match words.as_slice() {
        [number, name, kind] => (number, name, Many::One, kind),
        [number, name, "list", kind] => (number, name, Many::List, kind),
        [number, name, "map", kind] => (number, name, Many::Map, kind),
        _ => return None,
    };
    Some(Field {
        number: number.parse().ok()?,
        name: name.trim_end_matches('?').to_owned(),
        optional: name.ends_with('?'),
        many,
        kind: match *kind {
            "int" => Type::Int,
            "bool" => Type::Bool,
            "double" => Type::Double,
            "string" => Type::Text,
            "bytes" => Type::Bytes,
            "Time" => Type::Time,
            "MicroTime" => Type::MicroTime,
            "Quantity" => Type::Quantity,
            "IntOrString" => Type::IntOrString,
            "Raw" => Type::Raw,
            message => Type::Message(message.to_owned()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line of the table is understood, and every message it names is there.
    #[test]
    fn table_is_whole() {
        let fields = include_str!("messages.txt")
            .lines()
            .filter(|line| line.starts_with(' '));
        for line in fields {
            let field = parse(line.trim_start()).unwrap_or_else(|| panic!("not a field: {line}"));
            if let Type::Message(name) = &field.kind {
                assert!(schema().contains_key(name), "{line}: no such message");
            }
        }
    }
}
