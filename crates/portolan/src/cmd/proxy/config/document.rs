//! A YAML (or JSON) document as a tree that knows its lines, so that whoever reads it can say where something is wrong.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::Remark;

/// Bytes of a file: the whole default configuration has 2 KB.
pub(super) const BYTES_MAX: usize = 256 * 1024;
/// Maps and lists inside each other: the configuration has five.
pub(super) const DEPTH_MAX: usize = 32;

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    /// A number, a truth value, or text without quotes.
    Plain(String),
    Quoted(String),
    List(Vec<Node>),
    /// In the order of the file, also names that come twice.
    Map(Vec<Entry>),
}

/// One line of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) node: Node,
}

/// Reads the one document of a text; `None` when it has none.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Remark> {
    if text.len() > BYTES_MAX {
        return Err(Remark::new(
            1,
            "",
            format!("has more than {BYTES_MAX} bytes"),
        ));
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| unreadable(&error))?;
        builder.take(event, span)?;
    }
    Ok(builder.root)
}

fn unreadable(error: &ScanError) -> Remark {
    let words = format!("no YAML: {}", error.info());
    Remark::new(error.marker().line(), "", words)
}

/// A map or list that is not at its end yet.
struct Open {
    line: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    /// Entries, and the name whose value comes next.
    Map(Vec<Entry>, Option<(usize, String)>),
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Remark> {
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) if self.root.is_some() => Err(Remark::new(
                line,
                "",
                "a second document begins; one is understood",
            )),
            Event::Alias(_) => Err(Remark::new(line, "", "aliases (*name) are not understood")),
            Event::Scalar(text, style, ..) => self.put(line, scalar(&text, style)),
            Event::SequenceStart(..) => self.begin(line, Kind::List(Vec::new())),
            Event::MappingStart(..) => self.begin(line, Kind::Map(Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, line: usize, kind: Kind) -> Result<(), Remark> {
        if self.open.len() == DEPTH_MAX {
            let words = format!("more than {DEPTH_MAX} maps and lists in each other");
            return Err(Remark::new(line, "", words));
        }
        self.open.push(Open { line, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Remark> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.kind {
            Kind::List(nodes) => Value::List(nodes),
            Kind::Map(entries, _) => Value::Map(entries),
        };
        self.put(open.line, value)
    }

    fn put(&mut self, line: usize, value: Value) -> Result<(), Remark> {
        let node = Node { line, value };
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(Kind::List(nodes)) => nodes.push(node),
            Some(Kind::Map(entries, name)) => match (name.take(), node.value) {
                (Some((line, name)), value) => entries.push(Entry {
                    line,
                    name,
                    node: Node {
                        line: node.line,
                        value,
                    },
                }),
                (None, Value::Plain(text) | Value::Quoted(text)) => *name = Some((line, text)),
                (None, _) => return Err(Remark::new(line, "", "a name has to be text")),
            },
        }
        Ok(())
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        (ScalarStyle::Plain, text) => Value::Plain(text.into()),
        (_, text) => Value::Quoted(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_known_in_yaml_and_in_json() {
        for text in ["# one\na:\n  b: 0s\n", "{\n \"a\": {\n \"b\": 0s}}"] {
            let Some(Value::Map(root)) = parse(text).unwrap().map(|root| root.value) else {
                panic!("{text}: no map");
            };
            assert_eq!((root[0].line, root[0].name.as_str()), (2, "a"));
            let Value::Map(inner) = &root[0].node.value else {
                panic!("{text}: no map in it");
            };
            let value = Value::Plain("0s".into());
            assert_eq!((inner[0].line, &inner[0].node.value), (3, &value));
        }
    }

    #[test]
    fn null_is_told_from_text() {
        let list = "- null\n- ~\n- ''\n- \"null\"\n- yes\n-\n";
        let Some(Value::List(nodes)) = parse(list).unwrap().map(|root| root.value) else {
            panic!("no list");
        };
        let values: Vec<Value> = nodes.into_iter().map(|node| node.value).collect();
        let (text, null) = (|text: &str| Value::Quoted(text.into()), Value::Null);
        let yes = Value::Plain("yes".into());
        let wanted = [
            null.clone(),
            null.clone(),
            text(""),
            text("null"),
            yes,
            null,
        ];
        assert_eq!(values, wanted);
        assert_eq!(parse("# nothing\n").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_read_has_a_line() {
        let deep = "[".repeat(DEPTH_MAX + 1);
        let long = "#".repeat(BYTES_MAX + 1);
        for (text, line, words) in [
            ("a: 1\n  b: 2\n", 2, "no YAML"),
            ("a: 1\n---\nb: 1\n", 2, "second document"),
            ("a: &x 1\nb: *x\n", 2, "aliases"),
            ("? [a]\n: 1\n", 1, "has to be text"),
            (&deep, 1, "in each other"),
            (&long, 1, "bytes"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.words.contains(words), "{words}: {error}");
            assert_eq!(error.line, line, "{words}: {error}");
        }
    }
}
