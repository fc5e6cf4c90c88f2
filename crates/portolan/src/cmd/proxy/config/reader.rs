//! Takes fields out of a map of the document one by one, and says what is wrong with each, all at once.
//!
//! What is left at the end is unknown: kube-proxy reads such a file nevertheless and says so, and so does this.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Remark;
use super::document::{Entry, Node, Value};
use super::text;

/// What was found in one document.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) errors: Vec<Remark>,
    pub(super) warnings: Vec<Remark>,
}

/// The fields of one map that nobody has asked for yet.
pub(super) struct Reader<'n, 's> {
    line: usize,
    /// The name of the map, as in `ipvs`; empty for the outermost.
    name: String,
    left: BTreeMap<&'n str, (usize, &'n Node)>,
    said: &'s mut Said,
}

impl<'n, 's> Reader<'n, 's> {
    /// The fields of `node`, which is a map or nothing.
    pub(super) fn new(name: &str, node: &'n Node, said: &'s mut Said) -> Self {
        let mut reader = Reader {
            line: node.line,
            name: name.into(),
            left: BTreeMap::new(),
            said,
        };
        match &node.value {
            Value::Map(entries) => entries.iter().for_each(|entry| reader.admit(entry)),
            Value::Null => {}
            _ => reader.said.errors.push(Remark::new(
                node.line,
                name,
                "has to be a map (name: value)",
            )),
        }
        reader
    }

    fn admit(&mut self, entry: &'n Entry) {
        let field = self.field(&entry.name);
        let place = (entry.line, &entry.node);
        if self.left.insert(&entry.name, place).is_some() {
            let words = "comes twice; the last one counts";
            let remark = Remark::new(entry.line, field, words);
            self.said.warnings.push(remark);
        }
    }

    fn field(&self, name: &str) -> String {
        match self.name.is_empty() {
            true => name.into(),
            false => format!("{}.{name}", self.name),
        }
    }

    /// The value of a field; what is not there and what is null are the same.
    fn take(&mut self, name: &str) -> Option<(usize, &'n Node)> {
        let (line, node) = self.left.remove(name)?;
        (node.value != Value::Null).then_some((line, node))
    }

    /// Says what is wrong with a field.
    pub(super) fn refuse(&mut self, line: usize, name: &str, words: impl Into<String>) {
        let field = self.field(name);
        self.said.errors.push(Remark::new(line, field, words));
    }

    /// Says what is wrong with a field that is understood only together with others of its map.
    pub(super) fn refuse_here(&mut self, name: &str, words: impl Into<String>) {
        self.refuse(self.line, name, words);
    }

    /// A text that has to be one of its kind. Empty leaves `into` as it is.
    pub(super) fn text<T>(
        &mut self,
        name: &str,
        into: &mut T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) {
        let Some((line, node)) = self.take(name) else {
            return;
        };
        let result = match &node.value {
            Value::Plain(text) | Value::Quoted(text) if text.is_empty() => return,
            Value::Plain(text) | Value::Quoted(text) => parse(text),
            _ => Err("has to be text".into()),
        };
        match result {
            Ok(value) => *into = value,
            Err(words) => self.refuse(line, name, words),
        }
    }

    /// Any text.
    pub(super) fn string(&mut self, name: &str, into: &mut String) {
        self.text(name, into, |text| Ok(text.into()));
    }

    /// A duration; 0 is one too.
    pub(super) fn duration(&mut self, name: &str, into: &mut Duration) {
        self.text(name, into, text::duration);
    }

    /// A duration for which 0 means the default, which `into` has already.
    pub(super) fn period(&mut self, name: &str, into: &mut Duration) {
        let mut given = Duration::ZERO;
        self.duration(name, &mut given);
        if !given.is_zero() {
            *into = given;
        }
    }

    /// A number or a truth value: without quotes.
    fn plain<T>(
        &mut self,
        name: &str,
        into: &mut T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) {
        let Some((line, node)) = self.take(name) else {
            return;
        };
        let result = match &node.value {
            Value::Plain(text) => parse(text),
            Value::Quoted(text) => parse(text)
                .and_then(|_| Err(format!("is the text {text:?}; write it without quotes"))),
            _ => Err("has to be one value".into()),
        };
        match result {
            Ok(value) => *into = value,
            Err(words) => self.refuse(line, name, words),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, name: &str, into: &mut bool) {
        self.plain(name, into, boolean);
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number<T>(&mut self, name: &str, into: &mut T, min: T, max: T)
    where
        T: TryFrom<i64> + Into<i64> + Copy,
    {
        self.plain(name, into, |text| whole(text, min, max));
    }

    /// A number with or without a fraction.
    pub(super) fn fraction(&mut self, name: &str, into: &mut f32) {
        self.plain(name, into, |text| match text.parse::<f32>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(format!("{text} is no number")),
        });
    }

    /// A list of texts, each of which has to pass `check`.
    pub(super) fn list(
        &mut self,
        name: &str,
        into: &mut Vec<String>,
        check: impl Fn(&str) -> Result<(), String>,
    ) {
        let Some((line, node)) = self.take(name) else {
            return;
        };
        let Value::List(nodes) = &node.value else {
            return self.refuse(line, name, "has to be a list (- value)");
        };
        into.clear();
        for (at, node) in nodes.iter().enumerate() {
            let place = format!("{name}[{at}]");
            match &node.value {
                Value::Plain(text) | Value::Quoted(text) => match check(text) {
                    Ok(()) => into.push(text.clone()),
                    Err(words) => self.refuse(node.line, &place, words),
                },
                _ => self.refuse(node.line, &place, "has to be text"),
            }
        }
    }

    /// The fields of a map inside this one.
    pub(super) fn section(&mut self, name: &str, read: impl FnOnce(&mut Reader<'n, '_>)) {
        let Some((_, node)) = self.take(name) else {
            return;
        };
        let field = self.field(name);
        let mut reader = Reader::new(&field, node, self.said);
        read(&mut reader);
        reader.end();
    }

    /// Every field that is left, with what `read` makes of it: for maps whose names are free.
    pub(super) fn truths(&mut self, into: &mut BTreeMap<String, bool>) {
        let names: Vec<&str> = self.left.keys().copied().collect();
        for name in names {
            let mut value = false;
            self.boolean(name, &mut value);
            into.insert(name.into(), value);
        }
    }

    /// Whether a field is there; it is not unknown any more.
    pub(super) fn given(&mut self, name: &str) -> bool {
        self.take(name).is_some()
    }

    /// Says which fields are unknown.
    pub(super) fn end(mut self) {
        for (name, (line, _)) in std::mem::take(&mut self.left) {
            let field = self.field(name);
            let words = "is unknown and has no effect";
            self.said.warnings.push(Remark::new(line, field, words));
        }
    }
}

/// The truth values of YAML 1.1, which kube-proxy's reader knows.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Ok(true),
        "false" | "no" | "off" | "n" => Ok(false),
        _ => Err(format!("{text} is neither true nor false")),
    }
}

/// A whole number in a range.
pub(super) fn whole<T>(text: &str, min: T, max: T) -> Result<T, String>
where
    T: TryFrom<i64> + Into<i64> + Copy,
{
    let (min, max): (i64, i64) = (min.into(), max.into());
    let number = text.parse::<i64>().ok();
    let number = number.filter(|number| (min..=max).contains(number));
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("{text} is no whole number from {min} to {max}"))
}
