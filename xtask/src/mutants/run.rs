//! Runs the tests with one mutant active.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::Fate;
use super::build::Built;

/// A program with a mutant that runs this many times longer than without one has been sent round and round.
const PATIENCE_FACTOR: u32 = 8;

/// Patience with the fastest program: a busy machine may need some seconds to start it.
const PATIENCE_MIN: Duration = Duration::from_secs(10);

/// Memory that a program may ask for, in KiB: a mutant may let a list grow for ever.
const MEMORY_MAX_KIB: u32 = 4 << 20;

/// The random tests of every mutant meet the same cases, so that a run says what the run before said.
const SEED: &str = "20260";

/// What tests of a program run, in this order: those that notice most in the shortest time come first.
const PASSES: [(&str, &[&str]); 9] = [
    ("portolan_model-", &[]),
    ("golden-", &[]),
    (
        "scenarios-",
        &[
            "--exact",
            "the_oracle_agrees",
            "the_trace_of_nftables_agrees",
        ],
    ),
    ("portolan_dataplane-", &[]),
    ("portal-", &[]),
    ("laws-", &[]),
    // Modes that stand on nftables mode have parts of it to themselves.
    ("ipvs-", &[]),
    (
        "scenarios-",
        &[
            "--exact",
            "the_trace_of_ipvs_agrees",
            "the_trace_of_userspace_agrees",
        ],
    ),
    ("scenarios-", &["nftables_"]),
];

/// The test programs, and how long each may take.
pub struct Runner<'a> {
    built: &'a Built,
    patience: Vec<Duration>,
}

impl<'a> Runner<'a> {
    /// Runs every program once without a mutant: it must pass, or nothing could be said about mutants.
    pub fn new(built: &'a Built) -> anyhow::Result<Self> {
        let mut runner = Runner {
            built,
            patience: vec![Duration::from_secs(3600); PASSES.len()],
        };
        for (pass, (name, arguments)) in PASSES.iter().enumerate() {
            let begun = Instant::now();
            ensure!(
                runner.passes(pass, 0)?,
                "the tests {name} {arguments:?} fail without a mutant"
            );
            runner.patience[pass] = (begun.elapsed() * PATIENCE_FACTOR).max(PATIENCE_MIN);
        }
        Ok(runner)
    }

    /// What becomes of the mutant with this number.
    pub fn fate(&self, number: usize) -> anyhow::Result<Fate> {
        for pass in 0..PASSES.len() {
            if !self.passes(pass, number)? {
                return Ok(Fate::Noticed);
            }
        }
        Ok(Fate::Unnoticed)
    }

    fn passes(&self, pass: usize, number: usize) -> anyhow::Result<bool> {
        let (name, arguments) = PASSES[pass];
        let is = |path: &Path| {
            path.file_name()
                .is_some_and(|file| file.to_string_lossy().starts_with(name))
        };
        let mut programs = self.built.programs.iter();
        let (program, folder) = programs
            .find(|(program, _)| is(program))
            .with_context(|| format!("no test program {name}"))?;
        let limited = format!("ulimit -v {MEMORY_MAX_KIB}; exec timeout \"$@\"");
        let status = Command::new("sh")
            .args(["-c", &limited, "sh"])
            .arg(self.patience[pass].as_secs().to_string())
            .arg(program)
            .args(arguments)
            .current_dir(folder)
            .env("MUTANT", number.to_string())
            .env("PORTOLAN_SEED", SEED)
            .env("PROPTEST_RNG_SEED", SEED)
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("PROPTEST_FAILURE_PERSISTENCE", "off")
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .with_context(|| program.display().to_string())?;
        Ok(status.success())
    }
}
