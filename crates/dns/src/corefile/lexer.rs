//! Words and lines of a Corefile: quoting, comments, variables and braces, each word with its place.
//!
//! The rules are those of CoreDNS' parser: white space ends a word, a `"` at the start of a word opens a quoted one in
//! which only `\"` is an escape, `#` starts a comment, `{` and `}` that stand alone open and close a body.

use std::fmt;
use std::sync::Arc;

use super::{Error, Sources};

/// Bytes of one file: a Corefile lives in a ConfigMap, which holds 1 MiB at most.
pub const FILE_MAX: usize = 1 << 20;
/// Words of a whole configuration, imports included: imports that import each other twice would grow without end.
pub const WORDS_MAX: usize = 200_000;
/// Bodies inside bodies: a server block, a plugin, and what a plugin may nest; everything deeper is a lost brace.
pub const DEPTH_MAX: usize = 4;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One word, without its quotes and with its variables replaced.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub text: String,
    pub place: Place,
}

impl Word {
    pub fn wrong(&self, words: impl Into<String>) -> Error {
        Error::new(self.place.clone(), words)
    }
}

/// Words that stand on one line, and the body that it opens.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// At least one.
    pub words: Vec<Word>,
    pub body: Option<Vec<Line>>,
}

impl Line {
    /// The word that says what the line is about.
    pub fn name(&self) -> &Word {
        &self.words[0]
    }
}

/// Reads a whole file.
pub(super) fn lines(file: &str, text: &str, sources: &impl Sources) -> Result<Vec<Line>, Error> {
    let mut lexer = Lexer {
        file: file.into(),
        rest: text.trim_start_matches('\u{feff}').chars(),
        line: 1,
        column: 1,
    };
    if text.len() > FILE_MAX {
        let words = format!("the file has {} bytes, at most {FILE_MAX}", text.len());
        return Err(Error::new(lexer.place(), words));
    }
    let mut tokens = Vec::new();
    while let Some(token) = lexer.token(sources)? {
        tokens.push(token);
        if tokens.len() > WORDS_MAX {
            let words = format!("more than {WORDS_MAX} words");
            return Err(Error::new(lexer.place(), words));
        }
    }
    let mut tokens = tokens.into_iter().peekable();
    let (lines, closed) = body(&mut tokens, 0)?;
    match closed {
        Some(place) => Err(Error::new(place, "this } closes nothing")),
        None => Ok(lines),
    }
}

enum Token {
    Word(Word),
    Open(Place),
    Close(Place),
    /// The line ends.
    End,
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<Token>>;

/// Lines until the body is closed; says where, or nothing when the file ended instead.
fn body(tokens: &mut Tokens, depth: usize) -> Result<(Vec<Line>, Option<Place>), Error> {
    let mut lines = Vec::new();
    let mut words: Vec<Word> = Vec::new();
    let finish = |words: &mut Vec<Word>, lines: &mut Vec<Line>| {
        if !words.is_empty() {
            let words = std::mem::take(words);
            lines.push(Line { words, body: None });
        }
    };
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(word) => words.push(word),
            Token::End => finish(&mut words, &mut lines),
            Token::Close(place) => {
                finish(&mut words, &mut lines);
                return Ok((lines, Some(place)));
            }
            Token::Open(place) => {
                let words = std::mem::take(&mut words);
                lines.push(opened(tokens, words, place, depth)?);
            }
        }
    }
    finish(&mut words, &mut lines);
    Ok((lines, None))
}

fn opened(
    tokens: &mut Tokens,
    words: Vec<Word>,
    place: Place,
    depth: usize,
) -> Result<Line, Error> {
    if words.is_empty() {
        let words = "a { stands after what it belongs to, on the same line";
        return Err(Error::new(place, words));
    }
    if depth + 1 > DEPTH_MAX {
        let words = format!("braces are nested more than {DEPTH_MAX} deep; is a }} missing above?");
        return Err(Error::new(place, words));
    }
    let (lines, closed) = body(tokens, depth + 1)?;
    match closed {
        Some(_) => Ok(Line {
            words,
            body: Some(lines),
        }),
        None => Err(Error::new(place, "this { is never closed")),
    }
}

struct Lexer<'a> {
    file: Arc<str>,
    rest: std::str::Chars<'a>,
    line: u32,
    column: u32,
}

impl Lexer<'_> {
    fn place(&self) -> Place {
        Place {
            file: Arc::clone(&self.file),
            line: self.line,
            column: self.column,
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        if next == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(next)
    }

    fn token(&mut self, sources: &impl Sources) -> Result<Option<Token>, Error> {
        loop {
            match self.peek() {
                None => return Ok(None),
                Some('\n') => {
                    self.take();
                    return Ok(Some(Token::End));
                }
                Some('#') => {
                    while self.peek().is_some_and(|next| next != '\n') {
                        self.take();
                    }
                }
                Some(space) if space.is_whitespace() => {
                    self.take();
                }
                Some('"') => return self.quoted(sources).map(Some),
                Some(_) => return Ok(Some(self.plain(sources))),
            }
        }
    }

    fn plain(&mut self, sources: &impl Sources) -> Token {
        let place = self.place();
        let mut text = String::new();
        while let Some(next) = self
            .peek()
            .filter(|next| !next.is_whitespace() && *next != '#')
        {
            self.take();
            text.push(next);
        }
        match text.as_str() {
            "{" => Token::Open(place),
            "}" => Token::Close(place),
            _ => Token::Word(Word {
                text: with_variables(&text, sources),
                place,
            }),
        }
    }

    fn quoted(&mut self, sources: &impl Sources) -> Result<Token, Error> {
        let place = self.place();
        let mut text = String::new();
        self.take();
        loop {
            match self.take() {
                None => return Err(Error::new(place, "this \" is never closed")),
                Some('"') => break,
                Some('\\') if self.peek() == Some('"') => {
                    self.take();
                    text.push('"');
                }
                Some(next) => text.push(next),
            }
        }
        let text = with_variables(&text, sources);
        Ok(Token::Word(Word { text, place }))
    }
}

/// `{$NAME}` and `{%NAME%}` become the value of the variable; nothing when there is none, as in CoreDNS.
fn with_variables(text: &str, sources: &impl Sources) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{$").into_iter().chain(rest.find("{%")).min() {
        let inside = &rest[start + 2..];
        let close = if rest[start..].starts_with("{$") {
            "}"
        } else {
            "%}"
        };
        let Some(end) = inside.find(close).filter(|end| *end > 0) else {
            break;
        };
        out.push_str(&rest[..start]);
        out.push_str(&sources.variable(&inside[..end]).unwrap_or_default());
        rest = &inside[end + close.len()..];
    }
    out.push_str(rest);
    out
}
