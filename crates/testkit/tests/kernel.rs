//! Every scenario file on the real kernel, with nftables: `cargo test --test kernel -- [PART OF A NAME]…`.
//!
//! This is no libtest program: the process must enter its namespaces before it has a second thread.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use portolan_dataplane::nftables::Nftables;
use portolan_kernel::namespace::{Kinds, enter_new};
use portolan_kernel::nft::NftTarget;
use portolan_testkit::live::{Outcome, against_kernel};
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
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let scenarios = Scenario::all().map_err(io::Error::other)?;
    let chosen = |scenario: &Scenario| {
        wanted.is_empty() || wanted.iter().any(|part| scenario.name.contains(part))
    };
    let mut scenarios: Vec<Scenario> = scenarios.into_iter().filter(chosen).collect();
    if std::env::args().any(|argument| argument == "--list") {
        for scenario in &scenarios {
            writeln!(io::stdout(), "{}: test", scenario.name)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    enter_new(Kinds::CLONE_NEWNET | Kinds::CLONE_NEWNS).map_err(io::Error::other)?;
    let begun = Instant::now();
    let blind = notices_what_is_wrong();
    let mut outcomes = run_all(&scenarios);
    let mut random = None;
    if wanted.is_empty() {
        random = Some(run_random(&mut scenarios, &mut outcomes)?);
    }
    let mut counts = [0; 3];
    for (scenario, outcome) in scenarios.iter().zip(&outcomes) {
        let place = match outcome {
            Outcome::Passed(_) => 0,
            Outcome::Failed(_) => 1,
            // CI's machine can do everything.
            Outcome::Skipped(_) if std::env::var_os("CI").is_some() => 1,
            Outcome::Skipped(_) => 2,
        };
        counts[place] += 1;
        tell(scenario, outcome)?;
    }
    counts[usize::from(blind.is_some())] += 1;
    if let Some(words) = blind {
        writeln!(io::stdout(), "FAILED  the proof itself: {words}")?;
    }
    if let Some(random) = random {
        writeln!(
            io::stdout(),
            "\nrandom on the kernel: {} flows, {} differences",
            random.flows,
            random.differences
        )?;
        // Fewer are a proof that did not take place.
        counts[usize::from(random.flows < RANDOM_FLOWS_MIN)] += 1;
    }
    let [passed, failed, skipped] = counts;
    writeln!(
        io::stdout(),
        "\n{} scenarios on the real kernel in {:.1?}",
        scenarios.len(),
        begun.elapsed()
    )?;
    writeln!(
        io::stdout(),
        "kernel: {passed} passed, {failed} failed, {skipped} skipped"
    )?;
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What random clusters have shown.
struct Random {
    flows: usize,
    differences: usize,
}

/// Runs random clusters until they have made flows enough, and adds them to the others.
/// The seed of the first is `PORTOLAN_SEED`, or a new one for each run; it is a part of their names.
fn run_random(scenarios: &mut Vec<Scenario>, outcomes: &mut Vec<Outcome>) -> io::Result<Random> {
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
                ..random::seeded(seed, RANDOM_STEPS_MAX)
            })
            .collect();
        let found = run_all(&batch);
        for outcome in &found {
            match outcome {
                Outcome::Passed(flows) => random.flows += flows,
                Outcome::Failed(words) => random.differences += words.len(),
                Outcome::Skipped(_) => {}
            }
        }
        scenarios.extend(batch);
        outcomes.extend(found);
        if random.flows >= RANDOM_FLOWS_MIN || random.differences > 0 {
            break;
        }
    }
    Ok(random)
}

fn run_all(scenarios: &[Scenario]) -> Vec<Outcome> {
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
                    let outcome = run(&scenarios[index]);
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

fn run(scenario: &Scenario) -> Outcome {
    let target = |netns: &portolan_kernel::Netns| match netns.run(NftTarget::open) {
        Ok(Ok(target)) => Ok(target),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    against_kernel(&Nftables, target, scenario)
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
    "{from: pod, to: 172.30.0.1:80, expect: [10.1.0.10:8080, 10.2.0.10:8080], shares: [9, 9], inTurn: true}",
    "{from: pod, to: 172.30.0.1:80, expect: REJECT}",
    "{from: pod, to: 172.30.0.1:80, expect: DROP}",
    "{from: pod, to: 172.30.0.1:81, expect: DROP}",
    "{from: pod, to: 172.30.0.1:80, expect: PASS}",
];

/// A proof that cannot fail proves nothing: says which wrong expectation it lets through, if it does.
fn notices_what_is_wrong() -> Option<String> {
    let scenario = |packet: &&str| Scenario::parse("wrong", &format!("{SOUND}  - {packet}\n"));
    let scenarios: Result<Vec<Scenario>, _> = WRONG.iter().map(scenario).collect();
    let outcomes = run_all(&scenarios.expect("invariant: well-formed scenarios"));
    let noticed = |outcome: &Outcome| matches!(outcome, Outcome::Failed(words) if words.iter().any(|words| words.contains("172.30.0.1")));
    let missed = WRONG
        .iter()
        .zip(&outcomes)
        .find(|(_, outcome)| !noticed(outcome));
    missed.map(|(packet, outcome)| format!("{packet} went through: {outcome:?}"))
}

fn tell(scenario: &Scenario, outcome: &Outcome) -> io::Result<()> {
    let mut out = io::stdout();
    match outcome {
        Outcome::Passed(_) => writeln!(out, "ok      {}", scenario.name),
        Outcome::Skipped(why) => writeln!(out, "SKIPPED {}: {why}", scenario.name),
        Outcome::Failed(words) => {
            writeln!(out, "FAILED  {}: {}", scenario.name, scenario.about)?;
            words
                .iter()
                .try_for_each(|words| writeln!(out, "          {words}"))
        }
    }
}
