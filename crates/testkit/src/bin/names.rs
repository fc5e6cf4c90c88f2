//! Random clusters and questions for so many seconds: `names SECONDS [FIRST_SEED]`.
//!
//! Ends with the seed and the question of the first difference between the zone and the reference.
#![allow(clippy::print_stdout)] // The result is for people.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use portolan_testkit::dns::random::check;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let (Some(Ok(seconds)), first) = (arguments.next(), arguments.next()) else {
        eprintln!("names SECONDS [FIRST_SEED]");
        return ExitCode::FAILURE;
    };
    let first = first.and_then(Result::ok).unwrap_or(1 << 32);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut seed, mut asked) = (first, 0);
    while Instant::now() < end {
        match check(seed) {
            Ok(count) => asked += count,
            Err(difference) => {
                println!("{difference}");
                return ExitCode::FAILURE;
            }
        }
        seed += 1;
    }
    println!(
        "{} clusters, {asked} questions, no difference (seeds {first} to {})",
        seed - first,
        seed - 1
    );
    ExitCode::SUCCESS
}
