//! The grammar of label selector queries, and what keys and values may look like.

use super::{Operator, Requirement, SelectorError};

/// What the lexer sees. Words and operators keep their text for error messages.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Symbol(&'static str),
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::Word(word) => word,
            Token::Symbol(symbol) => symbol,
            Token::End => "",
        }
    }
}

/// Reads a whole query.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut tokens = Tokens {
        all: lex(text),
        at: 0,
    };
    let mut requirements = Vec::new();
    loop {
        match tokens.peek() {
            Token::End => return Ok(requirements),
            Token::Word(_) | Token::Symbol("!") => {}
            other => {
                return wrong(format!(
                    "found '{}', expected: !, identifier, or 'end of string'",
                    other.text()
                ));
            }
        }
        let requirement = tokens
            .requirement()
            .map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
        requirements.push(requirement);
        match tokens.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => {}
            other => {
                return wrong(format!(
                    "found '{}', expected: ',' or 'end of string'",
                    other.text()
                ));
            }
        }
        if !matches!(tokens.peek(), Token::Word(_) | Token::Symbol("!")) {
            return wrong(format!(
                "found '{}', expected: identifier after ','",
                tokens.peek().text()
            ));
        }
    }
}

/// Whether key, operator and values go together (labels.NewRequirement).
pub(super) fn check(requirement: &Requirement) -> Result<(), SelectorError> {
    let Requirement {
        key,
        operator,
        values,
    } = requirement;
    check_key(key)?;
    let list = format!(
        "[{}]",
        values
            .iter()
            .map(|v| format!("{v:?}"))
            .collect::<Vec<_>>()
            .join(",")
    );
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            return wrong(
                "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
                    .into(),
            );
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            return wrong(format!(
                "values: Invalid value: {list}: values set must be empty for exists and does not exist"
            ));
        }
        Operator::GreaterThan | Operator::LessThan
            if values.len() != 1 || values[0].parse::<i64>().is_err() =>
        {
            return wrong(format!(
                "values: Invalid value: {list}: for 'Gt', 'Lt' operators, the value must be an integer"
            ));
        }
        _ => {}
    }
    values
        .iter()
        .enumerate()
        .try_for_each(|(index, value)| check_value(key, index, value))
}

struct Tokens {
    all: Vec<Token>,
    at: usize,
}

impl Tokens {
    fn peek(&self) -> &Token {
        self.all.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let absent = *self.peek() == Token::Symbol("!");
        if absent {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) => word,
            other => return wrong(format!("found '{}', expected: identifier", other.text())),
        };
        check_key(&key)?;
        let bare = |operator| {
            Ok(Requirement {
                key: key.clone(),
                operator,
                values: Vec::new(),
            })
        };
        if absent {
            return bare(Operator::DoesNotExist);
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return bare(Operator::Exists);
        }
        let token = self.next();
        let (operator, is_set) = match token.text() {
            "=" | "==" => (Operator::In, false),
            "!=" => (Operator::NotIn, false),
            ">" => (Operator::GreaterThan, false),
            "<" => (Operator::LessThan, false),
            "in" => (Operator::In, true),
            "notin" => (Operator::NotIn, true),
            other => {
                return wrong(format!(
                    "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        let values = if is_set {
            self.set()?
        } else {
            vec![self.exact()?]
        };
        let requirement = Requirement {
            key,
            operator,
            values,
        };
        check(&requirement)?;
        Ok(requirement)
    }

    /// One value; nothing at all is the empty value.
    fn exact(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Word(_) => Ok(self.next().text().to_string()),
            other => wrong(format!("found '{}', expected: identifier", other.text())),
        }
    }

    /// `(a,b)`; an empty place is the empty value.
    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return wrong(format!("found '{}' expected: '('", open.text()));
        }
        let mut values = Vec::new();
        loop {
            values.push(match self.peek() {
                Token::Word(_) => self.next().text().to_string(),
                _ => String::new(),
            });
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => break,
                other => return wrong(format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}

fn lex(text: &str) -> Vec<Token> {
    const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "<", ">", "(", ")", ","];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(symbol) = SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
            tokens.push(Token::Symbol(symbol));
            rest = rest[symbol.len()..].trim_start();
            continue;
        }
        let ends = |c: char| c.is_whitespace() || "=!<>(),".contains(c);
        let end = rest.find(ends).unwrap_or(rest.len());
        tokens.push(Token::Word(rest[..end].to_string()));
        rest = rest[end..].trim_start();
    }
    tokens
}

fn wrong<T>(words: String) -> Result<T, SelectorError> {
    Err(SelectorError(words))
}

const NAME_FORM: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
     with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_FORM: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
     '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
     used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn check_key(key: &str) -> Result<(), SelectorError> {
    let invalid = |detail: &str| wrong(format!("key: Invalid value: {key:?}: {detail}"));
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(p, n)| (Some(p), n));
    let dns = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    match prefix {
        Some("") => return invalid("prefix part must be non-empty"),
        Some(prefix) if prefix.len() > 253 => {
            return invalid("prefix part must be no more than 253 bytes");
        }
        Some(prefix) if !prefix.chars().all(dns) => {
            return invalid(
                "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            );
        }
        _ => {}
    }
    match name {
        "" => invalid(&format!("name part must be non-empty; {NAME_FORM}")),
        name if name.len() > 63 => invalid("name part must be no more than 63 bytes"),
        name if !well_formed(name) => invalid(NAME_FORM),
        _ => Ok(()),
    }
}

fn check_value(key: &str, index: usize, value: &str) -> Result<(), SelectorError> {
    let invalid = |detail: &str| {
        wrong(format!(
            "values[{index}][{key}]: Invalid value: {value:?}: {detail}"
        ))
    };
    if value.len() > 63 {
        return invalid("must be no more than 63 bytes");
    }
    match value.is_empty() || well_formed(value) {
        true => Ok(()),
        false => invalid(VALUE_FORM),
    }
}

/// The qualified-name form that keys and values share.
fn well_formed(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    edge(text.chars().next()) && edge(text.chars().last()) && text.chars().all(inner)
}
