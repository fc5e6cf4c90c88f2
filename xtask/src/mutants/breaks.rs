//! Ways to break a function: small changes of its text, most of which change what it does.
//!
//! It works on tokens and gives back byte ranges with what shall stand there instead. Whether the result compiles is
//! for the compiler to say.

use std::ops::Range;

use proc_macro2::{Delimiter, Group, Spacing, TokenTree};

/// One change of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The bytes that go.
    pub range: Range<usize>,
    /// What comes instead.
    pub text: String,
}

/// Operators that stand between two spaces, and what they turn into.
const OPERATORS: [(&str, &str); 14] = [
    ("==", "!="),
    ("!=", "=="),
    ("&&", "||"),
    ("||", "&&"),
    ("<", "<="),
    (">", ">="),
    ("<=", "<"),
    (">=", ">"),
    ("+", "-"),
    ("-", "+"),
    ("<<", ">>"),
    (">>", "<<"),
    ("&", "|"),
    ("+=", "-="),
];

/// Words and what they turn into; `.` and `::` before a word are part of it, so that only fields and variants match.
const WORDS: [(&str, &str); 46] = [
    ("true", "false"),
    ("false", "true"),
    (".any", ".all"),
    (".all", ".any"),
    (".min", ".max"),
    (".max", ".min"),
    (".is_some_and", ".is_none_or"),
    (".is_some", ".is_none"),
    (".is_none", ".is_some"),
    ("::Reject", "::Drop"),
    ("::Drop", "::Reject"),
    (".cluster", ".local"),
    (".local", ".cluster"),
    ("::Main", "::Other"),
    ("::Other", "::Main"),
    ("::Cluster", "::Local"),
    ("::Local", "::Cluster"),
    ("::V4", "::V6"),
    ("::V6", "::V4"),
    ("::Direct", "::Alias"),
    ("::Alias", "::Direct"),
    (".pod", ".outside"),
    (".host", ".pod"),
    (".outside", ".host"),
    ("::LoadBalancer", "::ExternalIp"),
    ("::ClusterIp", "::ExternalIp"),
    ("::Source", "::Destination"),
    ("::Destination", "::Source"),
    ("::TcpReset", "::PortUnreachable"),
    (".serving", ".ready"),
    (".ready", ".serving"),
    (".terminating", ".serving"),
    (".nodes", ".zones"),
    (".zones", ".nodes"),
    (".added", ".removed"),
    (".removed", ".added"),
    (".add", ".remove"),
    (".remove", ".add"),
    (".network", ".broadcast"),
    (".broadcast", ".network"),
    ("old", "new"),
    ("new", "old"),
    ("was", "is"),
    ("is", "was"),
    (".saturating_add", ".saturating_sub"),
    (".saturating_sub", ".saturating_add"),
];

/// Calls in a chain that it can do without.
const CALLS: [&str; 8] = [
    "filter",
    "min",
    "max",
    "take",
    "rev",
    "clamp",
    "chain",
    "then_some",
];

/// Macros that only words for people are in, or nothing that a release does.
const SILENT: [&str; 6] = [
    "format",
    "write",
    "debug_assert",
    "panic",
    "f",
    "debug_assert_eq",
];

/// Every way to break the code inside `body`, a block of `source`.
pub fn breaks(source: &str, body: &Group) -> Vec<Break> {
    let mut finder = Finder {
        source,
        found: Vec::new(),
    };
    finder.block(body);
    finder.found
}

struct Finder<'a> {
    source: &'a str,
    found: Vec<Break>,
}

fn bytes(token: &TokenTree) -> Range<usize> {
    token.span().byte_range()
}

fn is(token: Option<&TokenTree>, text: &str) -> bool {
    match token {
        Some(TokenTree::Ident(ident)) => ident == text,
        Some(TokenTree::Punct(punct)) => text.len() == 1 && text.starts_with(punct.as_char()),
        _ => false,
    }
}

fn is_block(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace)
}

impl Finder<'_> {
    fn put(&mut self, range: Range<usize>, text: impl Into<String>) {
        let text = text.into();
        self.found.push(Break { range, text });
    }

    fn before(&self, at: usize) -> &str {
        self.source
            .get(at.saturating_sub(2)..at)
            .unwrap_or_default()
    }

    fn block(&mut self, group: &Group) {
        let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
        match group.delimiter() {
            Delimiter::Brace => self.statements(&tokens),
            Delimiter::Bracket => self.elements(&tokens),
            _ => {}
        }
        self.tokens(&tokens);
    }

    fn tokens(&mut self, tokens: &[TokenTree]) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Group(group) => {
                    let name = at.checked_sub(2).and_then(|at| tokens.get(at));
                    let silent = SILENT.iter().any(|silent| is(name, silent));
                    if !(silent && is(tokens.get(at - 1), "!")) {
                        self.block(group);
                    }
                }
                TokenTree::Ident(ident) => {
                    self.word(&ident.to_string(), bytes(token));
                    if ident == "if" {
                        self.condition(&tokens[at + 1..]);
                    }
                }
                TokenTree::Literal(literal) => self.number(&literal.to_string(), bytes(token)),
                TokenTree::Punct(_) => {
                    self.call(&tokens[at..]);
                    at += self.operator(&tokens[at..], at.checked_sub(1).map(|at| &tokens[at]));
                    continue;
                }
            }
            at += 1;
        }
    }

    /// A word that stands for something else.
    fn word(&mut self, word: &str, range: Range<usize>) {
        let before = self.before(range.start);
        let mark = match before {
            "::" => "::",
            _ if before.ends_with('.') && before != ".." => ".",
            _ => "",
        };
        let word = format!("{mark}{word}");
        for (from, to) in WORDS.iter().filter(|(from, _)| *from == word) {
            debug_assert!(from.starts_with(mark));
            self.put(range.clone(), &to[mark.len()..]);
        }
    }

    /// One more.
    fn number(&mut self, text: &str, range: Range<usize>) {
        let is_field = self.before(range.start).ends_with('.');
        if let (Ok(number), false) = (text.parse::<u64>(), is_field) {
            self.put(range, (number + 1).to_string());
        }
    }

    /// A condition that always holds, or never.
    fn condition(&mut self, rest: &[TokenTree]) {
        let end = (0..rest.len()).find(|at| is_block(rest.get(*at)) || is_arrow(&rest[*at..]));
        let Some(condition) = end.map(|end| &rest[..end]) else {
            return;
        };
        let (Some(first), Some(last)) = (condition.first(), condition.last()) else {
            return;
        };
        if condition.iter().any(|token| is(Some(token), "let")) {
            return;
        }
        let range = bytes(first).start..bytes(last).end;
        let text = self.source[range.clone()].to_owned();
        self.put(range.clone(), format!("false && ({text})"));
        self.put(range, format!("true || ({text})"));
    }

    /// A chain without this call.
    fn call(&mut self, rest: &[TokenTree]) {
        if let [dot, TokenTree::Ident(name), call @ TokenTree::Group(_), ..] = rest
            && is(Some(dot), ".")
            && CALLS.iter().any(|known| name == known)
        {
            self.put(bytes(dot).start..bytes(call).end, "");
        }
    }

    /// Another operator; says how many tokens this one has.
    fn operator(&mut self, rest: &[TokenTree], previous: Option<&TokenTree>) -> usize {
        let mut text = String::new();
        for token in rest {
            let TokenTree::Punct(punct) = token else {
                break;
            };
            text.push(punct.as_char());
            if punct.spacing() == Spacing::Alone {
                break;
            }
        }
        let count = text.len();
        let range = bytes(&rest[0]).start..bytes(&rest[count - 1]).end;
        let apart = self.before(range.start).ends_with([' ', '\n'])
            && self.source[range.end..].starts_with([' ', '\n']);
        // `|| expression` is a closure, unless something stands before it.
        let between = matches!(
            previous,
            Some(TokenTree::Group(_) | TokenTree::Ident(_) | TokenTree::Literal(_))
        ) || is(previous, "?");
        if let Some((_, to)) = OPERATORS.iter().find(|(from, _)| *from == text)
            && apart
            && between
        {
            self.put(range, *to);
        } else if text == "!"
            && !apart
            && !matches!(previous, Some(TokenTree::Ident(name)) if self.source[..range.start].ends_with(&name.to_string()))
        {
            self.put(range, "");
        }
        count
    }

    /// A block without one of its statements.
    fn statements(&mut self, tokens: &[TokenTree]) {
        let mut start = 0;
        for at in 0..tokens.len() {
            let first = tokens.get(start);
            let next = tokens.get(at + 1);
            let is_loop = ["for", "if", "while"].iter().any(|word| is(first, word));
            let done = is(tokens.get(at), ";");
            let done_block =
                is_loop && is_block(tokens.get(at)) && !is(next, "else") && !is(next, ".");
            if !done && !done_block {
                continue;
            }
            let stays = ["let", "use", "const", "static", "#"];
            let empty = is(first, ";") || SILENT.iter().any(|name| is(first, name));
            if !empty && !stays.iter().any(|word| is(first, word)) {
                self.put(bytes(&tokens[start]).start..bytes(&tokens[at]).end, "");
            }
            start = at + 1;
        }
    }

    /// A list without one of its elements.
    fn elements(&mut self, tokens: &[TokenTree]) {
        let mut start = 0;
        for at in 0..tokens.len() {
            let last = at + 1 == tokens.len();
            if is(tokens.get(at), ",") || last {
                self.put(bytes(&tokens[start]).start..bytes(&tokens[at]).end, "");
                start = at + 1;
            }
        }
    }
}

fn is_arrow(tokens: &[TokenTree]) -> bool {
    is(tokens.first(), "=") && is(tokens.get(1), ">")
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn broken(body: &str) -> Vec<String> {
        let stream = proc_macro2::TokenStream::from_str(body).expect("tokens");
        let Some(TokenTree::Group(group)) = stream.into_iter().next() else {
            panic!("no block");
        };
        let apply = |b: &Break| {
            format!(
                "{}{}{}",
                &body[..b.range.start],
                b.text,
                &body[b.range.end..]
            )
        };
        breaks(body, &group).iter().map(apply).collect()
    }

    #[test]
    fn operators_words_and_numbers_turn() {
        assert_eq!(broken("{ a == b }"), ["{ a != b }"]);
        assert_eq!(broken("{ a || !b }"), ["{ a && !b }", "{ a || b }"]);
        assert_eq!(broken("{ Way::Reject }"), ["{ Way::Drop }"]);
        assert_eq!(broken("{ x.0 + 7 }"), ["{ x.0 - 7 }", "{ x.0 + 8 }"]);
        assert_eq!(broken("{ f(|| y) }"), [""; 0]);
        assert_eq!(broken("{ v!(old) }"), ["{ v!(new) }"]);
        assert_eq!(broken("{ format!(\"{}\", 1) }"), [""; 0]);
    }

    #[test]
    fn statements_elements_and_calls_go() {
        assert_eq!(broken("{ let x = y; g(x); x }"), ["{ let x = y;  x }"]);
        assert_eq!(broken("{ g([a, b]) }"), ["{ g([ b]) }", "{ g([a, ]) }"]);
        assert_eq!(broken("{ x.filter(p).count() }"), ["{ x.count() }"]);
        let loops = broken("{ for x in y { z } w }");
        assert_eq!(loops, ["{  w }"]);
    }

    #[test]
    fn conditions_are_forced() {
        let forced = broken("{ if a { b } else { c } d }");
        assert_eq!(forced.len(), 3, "{forced:?}");
        assert!(forced.contains(&"{ if false && (a) { b } else { c } d }".to_owned()));
        assert!(broken("{ if let Some(a) = b { c } d }").len() == 1);
    }
}
