//! dnsperf as the client: one run, and what it says of it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::topology::Host;

use super::cluster::{Kind, OUTSTANDING};

/// Answers of a hundred that must be right; what is lost is so few that it says nothing about the others.
const RIGHT_PERCENT: f64 = 99.9;

/// How long a run is.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    Seconds(u64),
    /// Every question once.
    Once,
}

/// What a run said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Answers.
    pub answers: f64,
    /// Answers in a second.
    pub per_second: f64,
    /// Of a query, in the middle of a crowd of 100, in µs.
    pub latency_us: f64,
}

/// Asks a server from a host, on a core, for questions of a kind.
pub fn run(
    client: &Host,
    core: usize,
    server: Ipv4Addr,
    kind: Kind,
    questions: &Path,
    length: Length,
) -> Result<Run, String> {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string(), "dnsperf", "-T", "1"]);
    command.args([
        "-c",
        &kind.clients().to_string(),
        "-q",
        &OUTSTANDING.to_string(),
        "-s",
        &server.to_string(),
        "-d",
    ]);
    command.arg(questions);
    match length {
        Length::Seconds(seconds) => command.args(["-l", &seconds.to_string()]),
        Length::Once => command.args(["-n", "1"]),
    };
    if kind.needs_edns() {
        command.arg("-e");
    }
    command
        .stdin(Stdio::null())
        .in_netns(&client.netns)
        .map_err(|e| e.to_string())?;
    let output = command.output().map_err(|e| format!("dnsperf: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("dnsperf: {}: {words}", output.status));
    }
    read(&text, kind.code())
}

fn read(text: &str, code: &str) -> Result<Run, String> {
    let after = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        number.ok_or_else(|| format!("dnsperf does not say {name:?}: {text}"))
    };
    let (sent, answers) = (after("Queries sent:")?, after("Queries completed:")?);
    // `Response codes: NOERROR 10 (99.00%), SERVFAIL 1 (1.00%)`
    let codes = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Response codes:"))
        .unwrap_or_default();
    let right = codes.split(',').find_map(|one| {
        one.trim()
            .strip_prefix(code)?
            .split_whitespace()
            .next()?
            .parse::<f64>()
            .ok()
    });
    if right.unwrap_or_default() < sent * RIGHT_PERCENT / 100.0 || sent == 0.0 {
        return Err(format!(
            "of {sent} queries {answers} were answered, with codes {codes}; {code} was to be expected"
        ));
    }
    Ok(Run {
        answers,
        per_second: after("Queries per second:")?,
        latency_us: after("Average Latency (s):")? * 1e6,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Statistics:

  Queries sent:         1000
  Queries completed:    1000 (100.00%)
  Queries lost:         0 (0.00%)

  Response codes:       NOERROR 999 (99.90%), SERVFAIL 1 (0.10%)
  Average packet size:  request 51, response 67
  Run time (s):         2.000123
  Queries per second:   124003.112233

  Average Latency (s):  0.000774 (min 0.000021, max 0.003451)
";

    #[test]
    fn what_dnsperf_says() {
        let run = read(TEXT, "NOERROR").unwrap();
        assert_eq!(
            run,
            Run {
                answers: 1000.0,
                per_second: 124_003.112_233,
                latency_us: 774.0
            }
        );
        assert!(
            read(TEXT, "NXDOMAIN")
                .unwrap_err()
                .contains("NXDOMAIN was to be expected")
        );
        assert!(read(&TEXT.replace("999", "998"), "NOERROR").is_err());
        assert!(read("", "NOERROR").is_err());
    }
}
