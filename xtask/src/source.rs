//! Rust source as words: enough understanding to check laws, without comments and strings in the way.
//!
//! It lexes with proc-macro2 and knows three things more: which words are test code, which paths are used
//! (also through `use` trees), and which items have a doc comment.

use std::str::FromStr;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// One token, with where it stands.
#[derive(Clone, Debug)]
pub struct Word {
    /// Its text; `::` is one word, a string literal keeps its quotes.
    pub text: String,
    /// Line, from 1.
    pub line: usize,
    /// Inside an item under `#[cfg(test)]`, `#[test]` or the like.
    pub test: bool,
}

/// The words of a source file; `None` if it does not lex (the compiler will say why).
pub fn words(text: &str) -> Option<Vec<Word>> {
    let stream = TokenStream::from_str(text).ok()?;
    let mut words = Vec::new();
    flatten(stream, false, &mut words);
    Some(words)
}

fn flatten(stream: TokenStream, test: bool, into: &mut Vec<Word>) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut item_is_test = false;
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        let next = tokens.get(at + 1);
        if is_punct(token, '#')
            && let Some(TokenTree::Group(attribute)) = next
            && is_test_attribute(&attribute.stream().to_string())
        {
            item_is_test = true;
        }
        let line = token.span().start().line;
        let mut push = |text: String, line| {
            into.push(Word {
                text,
                line,
                test: test || item_is_test,
            })
        };
        match token {
            TokenTree::Group(group) => {
                let (open, close) = delimiters(group.delimiter());
                push(open.to_owned(), group.span_open().start().line);
                flatten(group.stream(), test || item_is_test, into);
                let line = group.span_close().start().line;
                into.push(Word {
                    text: close.to_owned(),
                    line,
                    test: test || item_is_test,
                });
                if group.delimiter() == Delimiter::Brace {
                    item_is_test = false;
                }
            }
            TokenTree::Punct(punct)
                if punct.as_char() == ':'
                    && punct.spacing() == Spacing::Joint
                    && next.is_some_and(|next| is_punct(next, ':')) =>
            {
                push("::".to_owned(), line);
                at += 1;
            }
            other => {
                push(other.to_string(), line);
                if is_punct(other, ';') {
                    item_is_test = false;
                }
            }
        }
        at += 1;
    }
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn is_test_attribute(attribute: &str) -> bool {
    let compact: String = attribute.split_whitespace().collect();
    compact == "test" || compact.starts_with("cfg(test") || compact.ends_with("::test")
}

fn delimiters(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

/// Every path that the code names, as segments, with the line: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
pub fn paths(words: &[Word]) -> Vec<(Vec<String>, usize, bool)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let word = &words[at];
        if word.text == "use" {
            at = use_tree(words, at + 1, &mut Vec::new(), &mut found);
            continue;
        }
        if !is_identifier(&word.text) {
            at += 1;
            continue;
        }
        let mut path = vec![word.text.clone()];
        let mut next = at + 1;
        while next + 1 < words.len()
            && words[next].text == "::"
            && is_identifier(&words[next + 1].text)
        {
            path.push(words[next + 1].text.clone());
            next += 2;
        }
        found.push((path, word.line, word.test));
        at = next;
    }
    found
}

/// Reads one use tree from `at` with the segments in front of it; returns where it ends.
fn use_tree(
    words: &[Word],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, usize, bool)>,
) -> usize {
    let depth = prefix.len();
    while at < words.len() {
        let word = &words[at];
        match word.text.as_str() {
            ";" | "," | "}" => break,
            "{" => {
                at += 1;
                while at < words.len() && words[at].text != "}" {
                    at = use_tree(words, at, prefix, found);
                    if words.get(at).is_some_and(|word| word.text == ",") {
                        at += 1;
                    }
                }
                prefix.truncate(depth);
                return at + 1;
            }
            "as" => at += 1,
            "::" => {}
            segment => prefix.push(segment.to_owned()),
        }
        at += 1;
    }
    if prefix.len() > depth {
        let (line, test) = words
            .get(at - 1)
            .map_or((0, false), |word| (word.line, word.test));
        found.push((prefix.clone(), line, test));
    }
    prefix.truncate(depth);
    at
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<String> {
        paths(&words(text).unwrap())
            .into_iter()
            .map(|(path, _, test)| {
                format!("{}{}", path.join("::"), if test { " (test)" } else { "" })
            })
            .collect()
    }

    #[test]
    fn use_trees_are_unfolded() {
        assert_eq!(
            named("use std::{fs, net::{IpAddr, TcpStream as T}}; fn f() {}"),
            [
                "std::fs",
                "std::net::IpAddr",
                "std::net::TcpStream",
                "fn",
                "f"
            ]
        );
    }

    #[test]
    fn test_items_are_marked_and_end() {
        let text = "#[cfg(test)] mod tests { fn a() { x.unwrap() } } fn b() {} #[cfg(test)] mod more; fn c() {}";
        let found = named(text);
        assert!(found.contains(&"unwrap (test)".to_owned()), "{found:?}");
        assert!(found.contains(&"b".to_owned()), "{found:?}");
        assert!(found.contains(&"c".to_owned()), "{found:?}");
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        assert_eq!(
            named("// std::fs\nconst A: &str = \"std::fs\";"),
            ["const", "A", "str"]
        );
    }
}
