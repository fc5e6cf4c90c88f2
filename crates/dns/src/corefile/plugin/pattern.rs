//! Regular expressions as values that can be compared.

use std::fmt;

use regex::{Regex, RegexBuilder};

use crate::corefile::Error;
use crate::corefile::lexer::Word;

/// Compiled size of one expression, in bytes: the crate's own standard of 10 MB is too much for a line of a file.
const PATTERN_MAX: usize = 1 << 20;

/// A compiled regular expression. Matching takes linear time, as in Go, whose syntax it shares.
#[derive(Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles what a word says.
    pub(in crate::corefile) fn parse(word: &Word) -> Result<Pattern, Error> {
        let compiled = RegexBuilder::new(&word.text)
            .size_limit(PATTERN_MAX)
            .build();
        compiled.map(Pattern).map_err(|error| {
            let words = error.to_string();
            let last = words.lines().last().unwrap_or_default();
            word.wrong(format!(
                "{:?} is no regular expression: {}",
                word.text,
                last.trim()
            ))
        })
    }

    /// The expression.
    pub fn regex(&self) -> &Regex {
        &self.0
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_str().fmt(f)
    }
}
