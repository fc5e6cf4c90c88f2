//! Finds the functions of a source file and writes the file anew with every mutant of them in it.
//!
//! A mutant is a copy of a function's body with one break. All are compiled together, each behind a condition:
//!
//! ```text
//!   fn f(x: u8) -> u8 {
//!       if crate::mutant(1) { return { x - 1 }; }     the first mutant
//!       if crate::mutant(2) { return { x + 2 }; }     the second
//!       x + 1                                         what stands in the file
//!   }
//! ```

use std::str::FromStr;

use anyhow::Context;
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::breaks::{Break, breaks};

/// One function with one break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The file, relative to the root.
    pub file: String,
    /// Line in that file, from 1.
    pub line: usize,
    /// `function: what is broken`, without line numbers, so that it outlives changes elsewhere.
    pub name: String,
    /// First and last line in the file that is written.
    pub lines: (usize, usize),
}

impl Mutant {
    /// File and name: what tells it from all others.
    pub fn full_name(&self) -> String {
        format!("{} {}", self.file, self.name)
    }
}

/// Functions that constants call: a mutant asks for its number, which a constant cannot.
const CONSTANT: [&str; 1] = ["pick"];

/// Longest text of what is broken in a mutant's name.
const NAME_MAX: usize = 120;

struct Function {
    name: String,
    returns: bool,
    is_const: Option<std::ops::Range<usize>>,
    body: Group,
}

/// The file with all mutants for which `keep` says so, numbered from `first`.
pub fn write(
    file: &str,
    source: &str,
    first: usize,
    keep: &dyn Fn(&Mutant) -> bool,
) -> anyhow::Result<(String, Vec<Mutant>)> {
    let stream = TokenStream::from_str(source)
        .ok()
        .with_context(|| format!("{file} does not lex"))?;
    let mut functions = Vec::new();
    find(stream, &mut functions);
    let (mut out, mut mutants) = (Text::new(), Vec::new());
    let mut done = 0;
    for function in &functions {
        let inside = function.body.span_open().byte_range().end;
        match &function.is_const {
            Some(word) => {
                out.push(&source[done..word.start]);
                out.push(&source[word.end..inside]);
            }
            None => out.push(&source[done..inside]),
        }
        done = inside;
        for one in all_breaks(source, function) {
            let mut mutant = mutant_of(file, source, function, &one);
            if mutants
                .iter()
                .any(|m: &Mutant| m.name == mutant.name && m.line == mutant.line)
                || !keep(&mutant)
            {
                continue;
            }
            let begin = out.line + 1;
            let number = first + mutants.len();
            out.push(&format!("\nif crate::mutant({number}) {{ return {{\n"));
            let end = function.body.span_close().byte_range().start;
            out.push(&source[inside..one.range.start]);
            out.push(&one.text);
            out.push(&source[one.range.end..end]);
            out.push("\n}; }\n");
            mutant.lines = (begin, out.line);
            mutants.push(mutant);
        }
    }
    out.push(&source[done..]);
    Ok((out.text, mutants))
}

/// Text with the number of its last line.
struct Text {
    text: String,
    line: usize,
}

impl Text {
    fn new() -> Self {
        Text {
            text: String::new(),
            line: 1,
        }
    }

    fn push(&mut self, text: &str) {
        self.line += text.matches('\n').count();
        self.text.push_str(text);
    }
}

fn all_breaks(source: &str, function: &Function) -> Vec<Break> {
    let body = &function.body;
    let range = body.span_open().byte_range().end..body.span_close().byte_range().start;
    let mut all = breaks(source, body);
    let nothing = if function.returns {
        "Default::default()"
    } else {
        ""
    };
    all.push(Break {
        range,
        text: nothing.to_owned(),
    });
    all
}

fn mutant_of(file: &str, source: &str, function: &Function, one: &Break) -> Mutant {
    let line_start = source[..one.range.start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = source[one.range.end..]
        .find('\n')
        .map_or(source.len(), |at| one.range.end + at);
    let whole = one.range
        == (function.body.span_open().byte_range().end
            ..function.body.span_close().byte_range().start);
    let words = |text: &str| {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        text.chars().take(NAME_MAX).collect::<String>()
    };
    let what = match (whole, one.text.is_empty()) {
        (true, _) => "without its body".to_owned(),
        (_, true) => format!("without {}", words(&source[one.range.clone()])),
        _ => {
            let (head, tail) = (
                &source[line_start..one.range.start],
                &source[one.range.end..line_end],
            );
            let broken = format!("{head}{}{tail}", one.text);
            format!(
                "{} -> {}",
                words(&source[line_start..line_end]),
                words(&broken)
            )
        }
    };
    Mutant {
        file: file.to_owned(),
        line: source[..one.range.start].matches('\n').count() + 1,
        name: format!("{}: {what}", function.name),
        lines: (0, 0),
    }
}

/// Every function with a body outside of test modules, in order.
fn find(stream: TokenStream, functions: &mut Vec<Function>) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let is =
        |at: usize, text: &str| matches!(tokens.get(at), Some(TokenTree::Ident(i)) if i == text);
    let mut at = 0;
    while at < tokens.len() {
        if is(at, "fn")
            && let Some(body) = (at..tokens.len()).find(|at| ends_head(&tokens[*at]))
        {
            if let TokenTree::Group(group) = &tokens[body] {
                let head = || tokens[at..body].iter().map(ToString::to_string);
                let name = head().nth(1).unwrap_or_default();
                let returns = tokens[at..body]
                    .windows(2)
                    .any(|two| two[0].to_string() == "-" && two[1].to_string() == ">");
                // A copy of such a body would have another type.
                let opaque = returns
                    && head()
                        .skip_while(|word| word != ">")
                        .any(|word| word == "impl");
                if !opaque && !CONSTANT.contains(&name.as_str()) {
                    let is_const = at.checked_sub(1).filter(|at| is(*at, "const"));
                    let is_const = is_const.map(|at| tokens[at].span().byte_range());
                    let body = group.clone();
                    functions.push(Function {
                        name,
                        returns,
                        is_const,
                        body,
                    });
                }
            }
            at = body + 1;
            continue;
        }
        let is_test = at >= 2 && is(at - 1, "tests") && is(at - 2, "mod");
        if let (TokenTree::Group(group), false) = (&tokens[at], is_test)
            && group.delimiter() == Delimiter::Brace
        {
            find(group.stream(), functions);
        }
        at += 1;
    }
}

fn ends_head(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str =
        "const fn f(x: u8) -> u8 {\n    x + 1\n}\n\nmod tests {\n    fn g() { f(1); }\n}\n";

    #[test]
    fn every_mutant_stands_behind_its_number() {
        let (text, mutants) = write("f.rs", SOURCE, 1, &|_| true).expect("it lexes");
        let names: Vec<&str> = mutants.iter().map(|m| m.name.as_str()).collect();
        let expected = [
            "f: x + 1 -> x - 1",
            "f: x + 1 -> x + 2",
            "f: without its body",
        ];
        assert_eq!(names, expected);
        assert!(text.contains("x - 1"), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        let (first, last) = mutants[0].lines;
        assert!(
            lines[first - 1].contains("mutant(1)") && lines[last - 2].ends_with("}; }"),
            "{first} {last}\n{text}"
        );
        assert!(mutants.iter().all(|mutant| mutant.line <= 2));
    }

    #[test]
    fn mutants_that_do_not_compile_are_left_out() {
        let (text, mutants) =
            write("f.rs", SOURCE, 5, &|m| m.name.contains("body")).expect("it lexes");
        assert_eq!(mutants.len(), 1);
        assert!(text.contains("mutant(5)") && text.contains("x + 1"));
    }
}
