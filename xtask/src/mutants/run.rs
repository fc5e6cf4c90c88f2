//! Runs the tests with one mutant active.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;

use super::Fate;
use super::build::Built;

/// A program that runs longer has been sent round and round by its mutant: the slowest needs 20 s on two cores.
const PATIENCE_S: u32 = 120;

/// What tests of a program run, in this order: those that catch most in the shortest time come first.
const PASSES: [(&str, &[&str]); 6] = [
    (
        "scenarios-",
        &[
            "--exact",
            "the_oracle_agrees",
            "the_trace_of_nftables_agrees",
        ],
    ),
    ("portolan_model-", &[]),
    ("portolan_dataplane-", &[]),
    ("golden-", &[]),
    ("laws-", &[]),
    ("scenarios-", &["nftables_"]),
];

/// What becomes of the mutant with this number.
pub fn fate(built: &Built, number: usize) -> anyhow::Result<Fate> {
    for (name, arguments) in PASSES {
        let is = |path: &Path| {
            path.file_name()
                .is_some_and(|file| file.to_string_lossy().starts_with(name))
        };
        let (program, folder) = built
            .programs
            .iter()
            .find(|(program, _)| is(program))
            .with_context(|| format!("no test program {name}"))?;
        if !passes(program, folder, arguments, number)? {
            return Ok(Fate::Caught);
        }
    }
    Ok(Fate::Survived)
}

fn passes(
    program: &Path,
    folder: &Path,
    arguments: &[&str],
    number: usize,
) -> anyhow::Result<bool> {
    let status = Command::new("timeout")
        .arg(PATIENCE_S.to_string())
        .arg(program)
        .args(arguments)
        .current_dir(folder)
        .env("MUTANT", number.to_string())
        .env("PROPTEST_FAILURE_PERSISTENCE", "off")
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| program.display().to_string())?;
    Ok(status.success())
}
