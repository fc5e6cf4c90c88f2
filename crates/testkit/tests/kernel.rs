//! Every scenario file on the real kernel, in every mode:
//! `cargo test --test kernel -- [--mode NAME]… [PART OF A NAME]…`.
//!
//! This is no libtest program: the process must enter its namespaces before it has a second thread.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use portolan_kernel::machine::{self, Ended, Luggage};
use portolan_kernel::namespace::{Kinds, enter_new};
use portolan_testkit::live::Outcome;
use portolan_testkit::modes::{self, Mode};
use portolan_testkit::{Scenario, random};

/// Scenarios that run at once: most of their time they wait for links and for silence.
const AT_ONCE: usize = 8;

/// Flows that random clusters make besides those of the scenario files, at least.
const RANDOM_FLOWS_MIN: usize = 2_000;

/// Random clusters that run together before their flows are counted.
const RANDOM_BATCH: u64 = 16;

/// Random clusters at most: one makes some hundred flows, so that twenty suffice; more means that they make too few.
const RANDOM_CLUSTERS_MAX: u64 = 160;

/// Changes of a random cluster, each of which reaches the kernel as an update.
const RANDOM_STEPS_MAX: usize = 2;

fn main() -> io::Result<ExitCode> {
    let wanted = Wanted::read(std::env::args().skip(1)).map_err(io::Error::other)?;
    let mut scenarios = Scenario::all().map_err(io::Error::other)?;
    scenarios.retain(|scenario| wanted.names(scenario));
    if wanted.list {
        for scenario in &scenarios {
            writeln!(io::stdout(), "{}: test", scenario.name)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    enter_new(Kinds::CLONE_NEWNET | Kinds::CLONE_NEWNS).map_err(io::Error::other)?;
    let mut sums = Vec::new();
    for mode in &wanted.modes {
        sums.push(match lacks(mode) {
            false => prove(*mode, &scenarios, &wanted)?,
            true => prove_in_machine(*mode, &wanted)?,
        });
    }
    for (mode, sum) in wanted.modes.iter().zip(&sums) {
        let Sum {
            passed,
            other,
            failed,
            skipped,
        } = sum;
        let skipped = match skipped {
            0 => String::new(),
            count => format!(", {count} skipped"),
        };
        writeln!(
            io::stdout(),
            "matrix {}: {passed} passed, {other} not applicable, {failed} failed{skipped}",
            mode.name
        )?;
    }
    Ok(match sums.iter().all(|sum| sum.failed == 0) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What the command line asks for.
struct Wanted {
    modes: Vec<Mode>,
    parts: Vec<String>,
    list: bool,
}

impl Wanted {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut modes, mut parts, mut list) = (Vec::new(), Vec::new(), false);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--mode" => {
                    let name = arguments.next().unwrap_or_default();
                    let known = modes::ALL.iter().find(|mode| mode.name == name);
                    let names = modes::ALL.map(|mode| mode.name).join(", ");
                    modes.push(*known.ok_or(format!("--mode {name:?} is none of {names}"))?);
                }
                "--list" => list = true,
                // Of the test harness, which this program does not have.
                other if other.starts_with('-') => {}
                part => parts.push(part.to_owned()),
            }
        }
        if modes.is_empty() {
            modes = modes::ALL.to_vec();
        }
        Ok(Wanted { modes, parts, list })
    }

    /// Whether nothing was left out.
    fn whole(&self) -> bool {
        self.parts.is_empty()
    }

    fn names(&self, scenario: &Scenario) -> bool {
        self.whole() || self.parts.iter().any(|part| scenario.name.contains(part))
    }
}

/// How many went how.
#[derive(Default)]
struct Sum {
    passed: usize,
    other: usize,
    failed: usize,
    skipped: usize,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        let place = match outcome {
            Outcome::Passed(_) => &mut self.passed,
            Outcome::NotApplicable(_) => &mut self.other,
            Outcome::Failed(_) => &mut self.failed,
            // CI's machine can do everything.
            Outcome::Skipped(_) if std::env::var_os("CI").is_some() => &mut self.failed,
            Outcome::Skipped(_) => &mut self.skipped,
        };
        *place += 1;
    }

    /// Out of its own line, as [`main`] writes it.
    fn read(line: &str) -> Option<Self> {
        let (_, counts) = line.split_once(": ")?;
        let mut sum = Sum::default();
        for part in counts.split(", ") {
            let (count, what) = part.split_once(' ')?;
            let place = match what {
                "passed" => &mut sum.passed,
                "not applicable" => &mut sum.other,
                "failed" => &mut sum.failed,
                "skipped" => &mut sum.skipped,
                _ => return None,
            };
            *place = count.parse().ok()?;
        }
        Some(sum)
    }

    fn holds(&mut self, holds: bool) {
        match holds {
            true => self.passed += 1,
            false => self.failed += 1,
        }
    }
}

/// Runs everything in one mode and tells what did not go as it should.
fn prove(mode: Mode, scenarios: &[Scenario], wanted: &Wanted) -> io::Result<Sum> {
    let mut out = io::stdout();
    let mut sum = Sum::default();
    let begun = Instant::now();
    writeln!(out, "\n== {} on the real kernel", mode.name)?;
    let blind = notices_what_is_wrong(mode);
    sum.holds(blind.is_none());
    if let Some(words) = blind {
        writeln!(out, "FAILED  the proof itself: {words}")?;
    }
    let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let scenarios: Vec<Scenario> = scenarios.iter().map(|s| mode.seen(s)).collect();
    for (scenario, outcome) in scenarios.iter().zip(run_all(mode, &scenarios)) {
        sum.add(&outcome);
        if let Outcome::NotApplicable(why) = outcome {
            others.entry(why).or_default().push(&scenario.name);
        }
        tell(scenario, &outcome, !wanted.whole())?;
    }
    if wanted.whole() {
        let random = run_random(mode, &mut sum)?;
        writeln!(
            out,
            "random clusters: {} flows, {} differences",
            random.flows, random.differences
        )?;
        // Fewer are a proof that did not take place.
        sum.holds(random.flows >= RANDOM_FLOWS_MIN);
    }
    for (why, names) in others {
        writeln!(out, "not applicable: {why} ({})", names.join(", "))?;
    }
    writeln!(out, "in {:.1?}", begun.elapsed())?;
    Ok(sum)
}

/// Whether this machine's kernel cannot do a mode at all; Debian's can.
fn lacks(mode: &Mode) -> bool {
    mode.name == "ipvs" && !portolan_kernel::ipvs::is_known()
}

/// Runs this program for one mode in a small machine with Debian's kernel, and reads its sum.
fn prove_in_machine(mode: Mode, wanted: &Wanted) -> io::Result<Sum> {
    let mut out = io::stdout();
    let mut sum = Sum::default();
    let mut arguments = vec!["--mode".to_owned(), mode.name.to_owned()];
    arguments.extend(wanted.parts.iter().cloned());
    let mut found = None;
    let begun = Instant::now();
    writeln!(out, "\n== {} in a machine of its own", mode.name)?;
    let luggage = Luggage {
        files: vec![Scenario::folder()],
        ..Luggage::default()
    };
    let ended = machine::run(&arguments, &luggage, |line| {
        match line.strip_prefix("matrix ") {
            Some(line) => found = Sum::read(line),
            None => drop(writeln!(io::stdout(), "  {line}")),
        }
    });
    writeln!(out, "in {:.1?} with the machine", begun.elapsed())?;
    match (ended.map_err(io::Error::other)?, found) {
        (Ended::Missing, _) => {
            let why = "QEMU or its kernel is missing: run scripts/setup.sh".to_owned();
            writeln!(out, "SKIPPED {}: {why}", mode.name)?;
            sum.add(&Outcome::Skipped(why));
        }
        (Ended::Status(0), Some(found)) => sum = found,
        (ended, found) => {
            writeln!(out, "FAILED  the machine: {ended:?}")?;
            sum = found.unwrap_or_default();
            sum.failed = sum.failed.max(1);
        }
    }
    Ok(sum)
}

/// What random clusters have shown.
struct Random {
    flows: usize,
    differences: usize,
}

/// Runs random clusters until they have made flows enough, and adds them to the sum.
/// The seed of the first is `PORTOLAN_SEED`, or a new one for each run; it is a part of their names.
fn run_random(mode: Mode, sum: &mut Sum) -> io::Result<Random> {
    let given = std::env::var("PORTOLAN_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let first = given.unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    writeln!(io::stdout(), "random clusters from PORTOLAN_SEED={first}")?;
    let mut random = Random {
        flows: 0,
        differences: 0,
    };
    for begin in (first..first + RANDOM_CLUSTERS_MAX).step_by(RANDOM_BATCH as usize) {
        let seeds = begin..begin + RANDOM_BATCH;
        let batch: Vec<Scenario> = seeds
            .map(|seed| Scenario {
                name: format!("random with PORTOLAN_SEED={seed}"),
                ..mode.seen(&random::seeded(seed, RANDOM_STEPS_MAX))
            })
            .collect();
        for (scenario, outcome) in batch.iter().zip(run_all(mode, &batch)) {
            sum.add(&outcome);
            tell(scenario, &outcome, false)?;
            match outcome {
                Outcome::Passed(flows) => random.flows += flows,
                Outcome::Failed(words) => random.differences += words.len(),
                Outcome::Skipped(_) | Outcome::NotApplicable(_) => {}
            }
        }
        if random.flows >= RANDOM_FLOWS_MIN || random.differences > 0 {
            break;
        }
    }
    Ok(random)
}

fn run_all(mode: Mode, scenarios: &[Scenario]) -> Vec<Outcome> {
    let next = Mutex::new(0..scenarios.len());
    let outcomes: Vec<Mutex<Option<Outcome>>> =
        scenarios.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(index) = next.lock().expect("no scenario panics").next() else {
                        break;
                    };
                    let outcome = (mode.run)(&scenarios[index]);
                    *outcomes[index].lock().expect("no scenario panics") = Some(outcome);
                }
            });
        }
    });
    outcomes
        .into_iter()
        .map(|outcome| {
            outcome
                .into_inner()
                .expect("no scenario panics")
                .expect("invariant: every index was taken")
        })
        .collect()
}

/// A cluster with one endpoint here and one elsewhere, for packets whose expected verdict is wrong.
const SOUND: &str = "
about: The packets of this scenario expect what does not happen.
objects:
  - apiVersion: v1
    kind: Service
    metadata: {namespace: shop, name: web}
    spec:
      clusterIP: 172.30.0.1
      clusterIPs: [172.30.0.1]
      ipFamilies: [IPv4]
      ports: [{name: http, protocol: TCP, port: 80}]
  - apiVersion: discovery.k8s.io/v1
    kind: EndpointSlice
    metadata: {namespace: shop, name: web-1, labels: {kubernetes.io/service-name: web}}
    addressType: IPv4
    ports: [{name: http, protocol: TCP, port: 8080}]
    endpoints:
      - {addresses: [10.1.0.10], nodeName: n1}
      - {addresses: [10.2.0.10], nodeName: n2}
packets:
";

/// Each is wrong about the cluster of [`SOUND`].
const WRONG: [&str; 11] = [
    "{from: pod, to: 172.30.0.1:80, expect: [10.1.0.10:8080]}",
    "{from: pod, to: 172.30.0.1:80, expect: [10.1.0.10:8080, 10.2.0.10:8080, 10.3.0.10:8080]}",
    "{from: pod, to: 172.30.0.1:80, expect: [10.1.0.10:8080, 10.2.0.10:8080], masquerade: true}",
    "{from: outside, to: 172.30.0.1:80, expect: [10.1.0.10:8080, 10.2.0.10:8080], masquerade: false}",
    "{from: pod, to: 172.30.0.1:80, expect: [10.1.0.10:8080, 10.2.0.10:8080], sticks: true}",
    "{from: pod, to: 172.30.0.1:80, expect: [10.1.0.10:8080, 10.2.0.10:8080], shares: [9, 1]}",
    "{from: pod, to: 172.30.0.1:80, expect: [10.1.0.10:8080, 10.2.0.10:8080], shares: [9, 1], inTurn: true}",
    "{from: pod, to: 172.30.0.1:80, expect: REJECT}",
    "{from: pod, to: 172.30.0.1:80, expect: DROP}",
    "{from: pod, to: 172.30.0.1:81, expect: DROP}",
    "{from: pod, to: 172.30.0.1:80, expect: PASS}",
];

/// A proof that cannot fail proves nothing: says which wrong expectation it lets through, if it does.
fn notices_what_is_wrong(mode: Mode) -> Option<String> {
    let parse = |packet: &str| Scenario::parse("wrong", &format!("{SOUND}  - {packet}\n"));
    // With a relay, what is wrong elsewhere is right, and the other way round.
    let scenario = |packet: &&str| match mode.relays() && packet.contains("masquerade") {
        true => parse(&packet.replace("masquerade: true", "masquerade: false")),
        false if mode.relays() => {
            let packet = packet.replace("[9, 9], inTurn", "[9, 3], inTurn");
            parse(&packet).map(|scenario| mode.seen(&scenario))
        }
        false => parse(packet),
    };
    let scenarios: Result<Vec<Scenario>, _> = WRONG.iter().map(scenario).collect();
    let outcomes = run_all(mode, &scenarios.expect("invariant: well-formed scenarios"));
    let noticed = |outcome: &Outcome| matches!(outcome, Outcome::Failed(words) if words.iter().any(|words| words.contains("172.30.0.1")));
    let missed = WRONG
        .iter()
        .zip(&outcomes)
        .find(|(_, outcome)| !noticed(outcome));
    missed.map(|(packet, outcome)| format!("{packet} went through: {outcome:?}"))
}

fn tell(scenario: &Scenario, outcome: &Outcome, all: bool) -> io::Result<()> {
    let mut out = io::stdout();
    match outcome {
        Outcome::Passed(_) if all => writeln!(out, "ok      {}", scenario.name),
        // Those of one reason are told together.
        Outcome::Passed(_) | Outcome::NotApplicable(_) => Ok(()),
        Outcome::Skipped(why) => writeln!(out, "SKIPPED {}: {why}", scenario.name),
        Outcome::Failed(words) => {
            writeln!(out, "FAILED  {}: {}", scenario.name, scenario.about)?;
            words
                .iter()
                .try_for_each(|words| writeln!(out, "          {words}"))
        }
    }
}
