//! `make soak`: a lab under load with rolling updates, in which endpoints hang and a node is cut off. Whoever does not
//! answer has to leave rotation, and nobody who answers may.
//!
//! ```text
//!   soak [--short] [--seconds N] [--updates N] [--hangs N] [--cuts N]
//!     Lab    the real binary: three nodes, a Deployment that is updated, one whose pods hang   (lab.rs)
//!     Load   clients on two nodes, a connection for each request                               (lab.rs)
//!     Judge  what the nodes' logs say, against what was done to whom                           (judge.rs)
//! ```
//!
//! `PORTOLAN` names the binary, `KUBECTL` the kubectl. With `--short` nothing is said about how long things may take.

mod judge;
mod lab;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use portolan_k8s::Timestamp;
use portolan_testkit::wait;

use judge::{Judge, Manner};
use lab::{Lab, Load, Result};

/// How long an endpoint that does not answer may stay in rotation.
const OUT_WITHIN: Duration = Duration::from_secs(2);
/// Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Clients of whoever falls silent have been there for so long.
const WARM_UP: Duration = Duration::from_secs(1);
/// What is wrong goes on for so long once everybody knows it.
const LASTS: Duration = Duration::from_secs(2);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    /// At least so long.
    seconds: u64,
    /// Rolling updates, evenly.
    updates: u32,
    /// Processes that hang, one after the other.
    hangs: u32,
    /// Times that a node is cut off.
    cuts: u32,
    /// Whether an endpoint that stays for longer than it may is a failure.
    is_timed: bool,
}

impl Plan {
    const FULL: Plan = Plan {
        seconds: 600,
        updates: 100,
        hangs: 10,
        cuts: 4,
        is_timed: true,
    };
    const SHORT: Plan = Plan {
        seconds: 0,
        updates: 2,
        hangs: 1,
        cuts: 1,
        is_timed: false,
    };

    fn of(arguments: &[String]) -> Result<Plan> {
        let usage = "usage: soak [--short] [--seconds N] [--updates N] [--hangs N] [--cuts N]";
        let mut plan = Plan::FULL;
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut number = || words.next().ok_or(usage)?.parse::<u32>().map_err(|_| usage);
            match word.as_str() {
                "--short" => plan = Plan::SHORT,
                "--seconds" => plan.seconds = number()?.into(),
                "--updates" => plan.updates = number()?.max(1),
                "--hangs" => plan.hangs = number()?,
                "--cuts" => plan.cuts = number()?,
                _ => return Err(usage.into()),
            }
        }
        Ok(plan)
    }

    /// Whether something that is done `times` in all is to be done after update `index`.
    fn is_due(self, times: u32, index: u32) -> bool {
        let done = |updates: u32| u64::from(updates) * u64::from(times) / u64::from(self.updates);
        done(index + 1) > done(index)
    }
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("soak: {error}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let plan = Plan::of(&arguments)?;
    let lab = Lab::up()?;
    let mut judge = Judge::default();
    let web = Load::begin(&lab, "web")?;
    let began = Instant::now();
    for index in 0..plan.updates {
        eprintln!(
            "[{:6.1} s] update {} of {}",
            began.elapsed().as_secs_f64(),
            index + 1,
            plan.updates
        );
        lab.update(index)?;
        if plan.is_due(plan.hangs, index) {
            hang(&lab, &mut judge, index)?;
        }
        if plan.is_due(plan.cuts, index) {
            cut(&lab, &mut judge)?;
        }
        let next = Duration::from_secs(plan.seconds) * (index + 1) / plan.updates;
        // The pace: updates are spread over the whole time.
        wait::until(next.saturating_sub(began.elapsed()), || false);
    }
    judge.took(began.elapsed(), plan.updates);
    judge.load("web", web.end()?);
    judge.hear(&lab.logs()?);
    let figures = judge.figures();
    let mut out = std::io::stdout().lock();
    write!(out, "{figures}")?;
    let wrong = figures.wrong(plan.is_timed.then_some(OUT_WITHIN));
    for wrong in &wrong {
        writeln!(out, "soak: {wrong}")?;
    }
    Ok(match wrong.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// A process hangs, as the kernel lets processes hang: stopped.
fn hang(lab: &Lab, judge: &mut Judge, index: u32) -> Result<()> {
    let steady = Load::begin(lab, "steady")?;
    let pods = lab.pods("steady")?;
    let pod = &pods[index as usize % pods.len()];
    wait::until(WARM_UP, || false);
    let began = lab.signal(&pod.name, "STOP")?;
    judge.begin(Manner::Hung, vec![pod.address.clone()], began);
    let out = lab.await_ejected(&[&pod.address], PATIENCE);
    wait::until(LASTS, || false);
    lab.signal(&pod.name, "CONT")?;
    out?;
    lab.await_nobody(PATIENCE)?;
    judge.end(Timestamp::now());
    judge.load("steady", steady.end()?);
    Ok(())
}

/// Nothing reaches the last node any more.
fn cut(lab: &Lab, judge: &mut Judge) -> Result<()> {
    let steady = Load::begin(lab, "steady")?;
    let mut pods = lab.pods("steady")?;
    pods.extend(lab.pods("web")?);
    let there: Vec<_> = pods
        .into_iter()
        .filter(|pod| pod.node == lab::CUT)
        .collect();
    let addresses: Vec<String> = there.iter().map(|pod| pod.address.clone()).collect();
    let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    wait::until(WARM_UP, || false);
    let began = lab.cut(true)?;
    judge.begin(Manner::CutOff, addresses.clone(), began);
    let out = lab.await_ejected(&all, PATIENCE);
    wait::until(LASTS, || false);
    lab.cut(false)?;
    out?;
    lab.await_nobody(PATIENCE)?;
    judge.end(Timestamp::now());
    judge.load("steady", steady.end()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_some_times_is_spread_evenly() {
        let due = |times, updates| {
            let plan = Plan {
                updates,
                ..Plan::FULL
            };
            let days = (0..updates).filter(|index| plan.is_due(times, *index));
            days.collect::<Vec<_>>()
        };
        assert_eq!(due(2, 10), [4, 9]);
        assert_eq!(due(1, 1), [0]);
        assert!(due(0, 10).is_empty());
        assert_eq!(due(10, 100).len(), 10);
    }

    #[test]
    fn the_command_line() {
        let plan = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(Into::into).collect();
            Plan::of(&words)
        };
        assert_eq!(plan("").unwrap(), Plan::FULL);
        assert_eq!(plan("--short").unwrap(), Plan::SHORT);
        assert_eq!(plan("--short --hangs 3").unwrap().hangs, 3);
        assert!(plan("--hangs").is_err() && plan("--hangs x").is_err() && plan("?").is_err());
    }
}
