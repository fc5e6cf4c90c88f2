//! Field selectors: `metadata.name=a,spec.nodeName!=b`, with `\` before a literal `\`, `,` or `=`.

use std::fmt;

use super::SelectorError;

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// Dotted path of the field, e.g. `spec.nodeName`.
    pub path: String,
    /// Whether the field must have the value, or must not.
    pub equal: bool,
    /// The value, unescaped. An absent field counts as an empty one.
    pub value: String,
}

/// A field selector: all terms must hold. The default has none and matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The terms, in the order in which they were given.
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Reads a query. Which paths a kind knows is the caller's to check.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            let Some((path, equal, raw)) = split_operator(part) else {
                return Err(SelectorError(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            let value = unescape(raw)?;
            terms.push(FieldTerm {
                path: path.to_string(),
                equal,
                value,
            });
        }
        Ok(FieldSelector { terms })
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether an object, given as a look-up of field values (absent ones empty), matches.
    pub fn matches(&self, field: impl Fn(&str) -> String) -> bool {
        self.terms
            .iter()
            .all(|term| (field(&term.path) == term.value) == term.equal)
    }

    /// The one value that `path` must have, if a term says so: an index can be used.
    pub fn required(&self, path: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|t| t.equal && t.path == path)
            .map(|t| t.value.as_str())
    }
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_operator(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find(['=', '!'])?;
    let (path, rest) = term.split_at(at);
    let of = |operator: &str| rest.strip_prefix(operator);
    if let Some(value) = of("!=") {
        return Some((path, false, value));
    }
    of("==")
        .or_else(|| of("="))
        .map(|value| (path, true, value))
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => value.push(c),
                other => {
                    let rest: String = other.into_iter().collect();
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: \\{rest}"
                    )));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {c}"
                )));
            }
            c => value.push(c),
        }
    }
    Ok(value)
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = |value: &str| {
            value
                .replace('\\', "\\\\")
                .replace(',', "\\,")
                .replace('=', "\\=")
        };
        let one = |t: &FieldTerm| {
            let operator = if t.equal { "=" } else { "!=" };
            format!("{}{operator}{}", t.path, escape(&t.value))
        };
        f.write_str(&self.terms.iter().map(one).collect::<Vec<_>>().join(","))
    }
}
