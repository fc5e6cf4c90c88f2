//! Label and field selectors in the form of a query string, e.g. `app=shop,tier in (web,api),!canary`.

use serde_json::Value;

use crate::kind::{Kind, Scope};
use crate::object;
use crate::status::{Failure, bad_request};

/// Requirements that one selector may have; each is looked at for every object of a list.
const REQUIREMENTS_MAX: usize = 256;

/// What objects must look like to be listed or watched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    labels: Vec<Label>,
    fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq)]
struct Label {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

#[derive(Clone, Debug, PartialEq)]
struct Field {
    path: String,
    value: String,
    equal: bool,
}

impl Selector {
    /// Parses both selectors of a request; fields must be ones that the kind can be selected by.
    pub fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Selector, Failure> {
        let selector = Selector {
            labels: parse_labels(labels)?,
            fields: parse_fields(kind, fields)?,
        };
        if selector.labels.len() + selector.fields.len() > REQUIREMENTS_MAX {
            return Err(bad_request(format!(
                "a selector can have at most {REQUIREMENTS_MAX} requirements"
            )));
        }
        Ok(selector)
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object matches.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|label| {
            label
                .test
                .holds(labels.get(&label.key).and_then(Value::as_str))
        }) && self
            .fields
            .iter()
            .all(|field| (object::field(object, &field.path) == field.value) == field.equal)
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = |value: &str| value.parse::<i64>().ok();
        match self {
            Test::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::Greater(than) => value.and_then(number).is_some_and(|value| value > *than),
            Test::Less(than) => value.and_then(number).is_some_and(|value| value < *than),
        }
    }
}

fn parse_labels(text: &str) -> Result<Vec<Label>, Failure> {
    split_outside_parentheses(text)
        .into_iter()
        .map(|part| parse_label(part.trim()))
        .collect()
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    if parts == [""] { Vec::new() } else { parts }
}

fn parse_label(part: &str) -> Result<Label, Failure> {
    let wrong = || {
        bad_request(format!(
            "unable to parse requirement: {part:?} is not a label requirement"
        ))
    };
    let label = |key: &str, test: Test| {
        let key = key.trim();
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
        if key.is_empty() || !key.chars().all(plain) {
            return Err(wrong());
        }
        Ok(Label {
            key: key.to_owned(),
            test,
        })
    };
    if let Some(key) = part.strip_prefix('!') {
        return label(key, Test::Absent);
    }
    if let Some((key, value)) = part.split_once("!=") {
        return label(key, Test::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return label(key, Test::In(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once('>') {
        return label(
            key,
            Test::Greater(value.trim().parse().map_err(|_| wrong())?),
        );
    }
    if let Some((key, value)) = part.split_once('<') {
        return label(key, Test::Less(value.trim().parse().map_err(|_| wrong())?));
    }
    if let Some((head, rest)) = part.split_once('(') {
        let values = rest.strip_suffix(')').ok_or_else(wrong)?;
        let values = values
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => label(key, Test::In(values)),
            (Some(key), Some("notin"), None) => label(key, Test::NotIn(values)),
            _ => Err(wrong()),
        };
    }
    label(part, Test::Exists)
}

fn parse_fields(kind: &Kind, text: &str) -> Result<Vec<Field>, Failure> {
    let mut fields = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (path, value, true)
        } else {
            let message = format!("invalid selector: {text:?}; can't understand {part:?}");
            return Err(bad_request(message));
        };
        let known = path == "metadata.name"
            || (path == "metadata.namespace" && kind.scope == Scope::Namespaced)
            || kind.selectable.contains(&path);
        if !known {
            return Err(bad_request(format!("field label not supported: {path}")));
        }
        fields.push(Field {
            path: path.to_owned(),
            value: value.to_owned(),
            equal,
        });
    }
    Ok(fields)
}
