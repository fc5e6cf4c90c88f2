//! What is done with bytes that nobody has checked: one function for each kind of input from outside.
//!
//! A function panics when something does not hold; whoever calls it (libFuzzer, or crates/dns/tests/fuzz.rs) brings bytes.

pub mod names;

/// Everything that is fuzzed, by the name of its corpus.
pub const ALL: [(&str, fn(&[u8])); 3] = [
    ("query", names::query),
    ("message", names::message),
    ("corefile", names::corefile),
];
