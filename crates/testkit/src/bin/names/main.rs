//! `make names`: the long runs of names, each by itself or all of them one after the other.
//!
//! ```text
//!   names [all]
//!   names random [SECONDS] [FIRST_SEED]   random clusters and questions against the reference          (an hour)
//!   names changes [SECONDS] [RATE]        so many endpoints change in a second: how stale is an answer?  (changes.rs)
//!   names kills [SECONDS] [RATE]          answerers are killed under so many queries in a second         (kills.rs)
//!      Bed    the API and answerers, the real binary, in a network namespace of this process  (bed.rs)
//!      Fleet  Services that change, and what an answer about them is worth                     (fleet.rs)
//! ```
//!
//! `PORTOLAN` names the binary; else it is the one beside this program. The exit status says whether all was as it must.
#![allow(clippy::print_stdout)] // The results are for people.

mod bed;
mod changes;
mod fleet;
mod kills;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use portolan_kernel::Links;
use portolan_kernel::namespace::{Kinds, enter_new};
use portolan_testkit::dns::random::check;

/// What is wrong with the machine or the run, in words.
type Result<T> = std::result::Result<T, String>;

const USAGE: &str = "usage: names [all | random [SECONDS] [FIRST_SEED] | changes [SECONDS] [RATE] | kills [SECONDS] [RATE]]";

/// How long each run takes unless told otherwise, in seconds.
const RANDOM_S: u64 = 3600;
const CHANGES_S: u64 = 600;
const KILLS_S: u64 = 60;
/// Changes, and queries, in a second.
const CHANGES: u64 = 1_000;
const QUERIES: u64 = 10_000;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("names: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let what = words.first().map_or("all", String::as_str);
    let numbers = words.iter().skip(1).map(|word| word.parse::<u64>());
    let numbers: Vec<u64> = numbers
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| USAGE)?;
    let number = |index: usize, default: u64| numbers.get(index).copied().unwrap_or(default);
    // Before the first thread: nothing of this is to be seen in the machine's own namespace.
    if what != "random" {
        enter_new(Kinds::CLONE_NEWNET).map_err(|e| e.to_string())?;
        let links = Links::here().and_then(|mut links| links.up("lo"));
        links.map_err(|e| e.to_string())?;
    }
    match (what, numbers.len()) {
        ("random", 0..=2) => Ok(random(number(0, RANDOM_S), number(1, 1 << 32))),
        ("changes", 0..=2) => changes::run(number(0, CHANGES_S), number(1, CHANGES)),
        ("kills", 0..=2) => kills::run(number(0, KILLS_S), number(1, QUERIES)),
        ("all", 0) => {
            let kills = kills::run(KILLS_S, QUERIES)?;
            let changes = changes::run(CHANGES_S, CHANGES)?;
            Ok(random(RANDOM_S, 1 << 32) && changes && kills)
        }
        _ => Err(USAGE.into()),
    }
}

/// Random clusters and questions for so long. Ends with the seed and the question of the first difference.
fn random(seconds: u64, first: u64) -> bool {
    let begun = Instant::now();
    let (mut seed, mut asked) = (first, 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        match check(seed) {
            Ok(count) => asked += count,
            Err(difference) => {
                println!("{difference}");
                return false;
            }
        }
        seed += 1;
    }
    println!(
        "random: {} clusters, {asked} questions, no difference (seeds {first} to {}); {:.0} s, {} of them of a processor",
        seed - first,
        seed - 1,
        begun.elapsed().as_secs_f64(),
        processor_seconds(),
    );
    true
}

/// Processor time of this process.
fn processor_seconds() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
        (usage.user_time() + usage.system_time()).num_seconds()
    })
}
