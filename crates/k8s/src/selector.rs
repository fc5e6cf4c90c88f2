//! Label selectors and field selectors: parsing and matching, as apimachinery's `labels` and `fields` packages do it.
//!
//! Both are plain values. They come from a query string (`-l`, `--field-selector`), from a `LabelSelector` inside an
//! object (`matchLabels`, `matchExpressions`), or from a map (`spec.selector` of a Service).

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

mod field;
mod parse;

pub use field::{FieldSelector, FieldTerm};

/// A selector that cannot be understood, in the words of the real API server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// What one requirement asks of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent, or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is an integer greater than the one value.
    GreaterThan,
    /// The label is an integer less than the one value.
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Key of the label.
    pub key: String,
    /// What is asked.
    pub operator: Operator,
    /// The values for `In`, `NotIn` (one or more), `GreaterThan`, `LessThan` (one); else none.
    pub values: Vec<String>,
}

impl Requirement {
    /// Whether a label set, given as a look-up, satisfies this requirement.
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = || self.values.first().and_then(|v| number(v));
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => {
                matches!((value.and_then(number), bound()), (Some(v), Some(b)) if v > b)
            }
            Operator::LessThan => {
                matches!((value.and_then(number), bound()), (Some(v), Some(b)) if v < b)
            }
        }
    }
}

/// A label selector: all requirements must hold. The default has none and matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Matches every object.
    pub fn everything() -> Self {
        Selector::default()
    }

    /// Matches no object (an absent `LabelSelector`).
    pub fn nothing() -> Self {
        Selector {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// Reads a query: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`. An empty text matches everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::parse(text).map(Selector::of)
    }

    /// Every pair must be there, as in `spec.selector` of a Service. No pair matches everything:
    /// a Service without selector is the caller's to tell apart.
    pub fn equality<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let requirement = |(key, value): (K, V)| Requirement {
            key: key.into(),
            operator: Operator::In,
            values: vec![value.into()],
        };
        Selector::of(pairs.into_iter().map(requirement).collect())
    }

    /// A `meta/v1 LabelSelector`: `null` matches nothing, `{}` everything.
    pub fn from_label_selector(selector: &Value) -> Result<Self, SelectorError> {
        let wrong = |what: String| SelectorError(what);
        let Some(fields) = selector.as_object() else {
            return match selector.is_null() {
                true => Ok(Selector::nothing()),
                false => Err(wrong("a label selector must be an object".into())),
            };
        };
        let pairs = fields.get("matchLabels").and_then(Value::as_object);
        let pairs = pairs.into_iter().flatten();
        let mut all =
            Selector::equality(pairs.map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default())));
        for expression in fields
            .get("matchExpressions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            all.requirements.push(expression_of(expression)?);
        }
        all.requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(all)
    }

    /// The requirements, in the order of their keys.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether labels, given as a look-up, match.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }

    /// Whether these labels match; absent labels are an empty set.
    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches_with(|key| labels?.get(key).map(String::as_str))
    }

    /// Whether `metadata.labels` of this object matches.
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.matches_with(|key| labels?.get(key)?.as_str())
    }

    fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Selector {
            requirements,
            nothing: false,
        }
    }
}

fn expression_of(expression: &Value) -> Result<Requirement, SelectorError> {
    let text = |field: &str| {
        expression
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let values = expression
        .get("values")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let values: Vec<String> = values.filter_map(Value::as_str).map(String::from).collect();
    let operator = match text("operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            return Err(SelectorError(format!(
                "{other:?} is not a valid label selector operator"
            )));
        }
    };
    let requirement = Requirement {
        key: text("key").to_string(),
        operator,
        values,
    };
    parse::check(&requirement)?;
    Ok(requirement)
}

impl fmt::Display for Selector {
    /// The query form, as `kubectl` shows it: `a=b,c in (d,e),!f`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self
            .requirements
            .iter()
            .map(Requirement::to_string)
            .collect();
        f.write_str(&texts.join(","))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requirement {
            key,
            operator,
            values,
        } = self;
        let mut sorted = values.clone();
        sorted.sort();
        let list = sorted.join(",");
        match (operator, values.len()) {
            (Operator::In, 1) => write!(f, "{key}={list}"),
            (Operator::NotIn, 1) => write!(f, "{key}!={list}"),
            (Operator::In, _) => write!(f, "{key} in ({list})"),
            (Operator::NotIn, _) => write!(f, "{key} notin ({list})"),
            (Operator::Exists, _) => write!(f, "{key}"),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::GreaterThan, _) => write!(f, "{key}>{list}"),
            (Operator::LessThan, _) => write!(f, "{key}<{list}"),
        }
    }
}

#[cfg(test)]
mod tests;
