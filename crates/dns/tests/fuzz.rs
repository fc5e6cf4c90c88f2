//! The fuzz targets of fuzz/ for a moment, without libFuzzer: their corpus, and the same bytes changed at random.
#![allow(clippy::unwrap_used)]

use fastrand::Rng;
use std::path::Path;

#[path = "../../../fuzz/src/names.rs"]
mod names;

/// Changed inputs of each target: a few seconds.
const INPUTS: u64 = 20_000;

/// Pieces of Corefiles and of messages, which bytes at random would not be.
const PIECES: [&[u8]; 10] = [
    b"{",
    b"}",
    b"\"",
    b"\n",
    b"{$",
    b"{{ .Group.a }}",
    b"import a",
    b"\xc0\x0c",
    b"\xff\xff\xff\xff",
    b"\x00\xfb\x00\x01",
];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let files = std::fs::read_dir(path.join(target)).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn change(rng: &mut Rng, input: &mut Vec<u8>) {
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(0..=input.len());
        match rng.u8(0..5) {
            0 if at < input.len() => input[at] = rng.u8(..),
            1 if at < input.len() => input[at] ^= 1 << rng.u8(0..8),
            2 => input.truncate(at.max(1)),
            3 => input.extend_from_within(at..),
            _ => drop(input.splice(at..at, PIECES[rng.usize(0..PIECES.len())].iter().copied())),
        }
        input.truncate(70_000);
    }
}

fn run(target: &str, function: fn(&[u8])) {
    let corpus = corpus(target);
    corpus.iter().for_each(|input| function(input));
    for seed in 0..INPUTS {
        let mut rng = Rng::with_seed(seed);
        let mut input = corpus[rng.usize(0..corpus.len())].clone();
        change(&mut rng, &mut input);
        let done = std::panic::catch_unwind(|| function(&input));
        assert!(done.is_ok(), "{target}: seed {seed}: {input:02x?}");
    }
}

#[test]
fn queries() {
    run("query", names::query);
}

#[test]
fn messages() {
    run("message", names::message);
}

#[test]
fn corefiles() {
    run("corefile", names::corefile);
}
