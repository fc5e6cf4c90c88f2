//! docs/performance.md: the last run's report as a page for people, with the machine's kind.

use std::fmt::Write as _;

use crate::plot::number;
use crate::report::{Limit, Outcome, Report, Row, TARGETS, Verdict, ratio};

/// What kind of machine it was: nothing that names one.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many cores it shows.
    pub cores: usize,
    /// Memory in GiB.
    pub memory_gib: u64,
    /// The kernel's version.
    pub kernel: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let kilobytes = field(&memory, "MemTotal").trim_end_matches("kB").trim();
        let kernel = read("/proc/sys/kernel/osrelease");
        Machine {
            processor: field(&cpu, "model name").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kilobytes.parse::<u64>().unwrap_or_default() >> 20,
            // What follows the numbers names a builder.
            kernel: kernel
                .split('-')
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned(),
        }
    }
}

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':'))
        .map_or("", |(_, value)| value.trim())
}

/// The whole page.
pub fn markdown(report: &Report, machine: &Machine) -> String {
    let mut page = String::from(HEAD);
    let _ = writeln!(
        page,
        "The machine: {}, {} cores, {} GiB of memory, Linux {}.",
        machine.processor, machine.cores, machine.memory_gib, machine.kernel
    );
    for note in &report.notes {
        let _ = writeln!(page, "{note}");
    }
    page.push_str("\n![Start, one change and memory of all programs, by shape](performance.svg)\n\n## Targets\n\n");
    targets(&mut page, report);
    page.push_str(METHOD);
    for (section, rows) in sections(report) {
        let _ = writeln!(page, "\n### {section}\n");
        table(&mut page, &rows);
    }
    page
}

const HEAD: &str = "# Performance\n\n\
    `make bench` measures, and writes this page, performance.svg beside it, and bench/out/results.json.\n\
    These are the figures of its last run.\n";

const METHOD: &str = "\n## Figures\n\n\
    A shape is a number of Services and of endpoints for each: 10000 x 2 has 20,000 endpoints.\n\n\
    - *programming*: one process compiles, diffs and applies to the kernel; no API, no other thread.\n\
    - *agent*: `portolan proxy` as a process against `portolan apiserver`, in a network namespace of its own.\n  \
      A change is a PATCH of an EndpointSlice. *Write to commit* runs from the moment before the PATCH is sent until the kernel announces the transaction with the new address; it is measured in the same way for the peer.\n  \
      Whoever commits makes these announcements, so nobody listens during a start and while processor time is taken; a program that writes everything anew for each change pays more for them than one that does not.\n  \
      *Event to commit* is the agent's own clock (`portolan_change_delay_seconds`).\n  \
      Memory is in MB of a million bytes, as the kernel counts it for the process: *resident memory* (VmRSS) is that after all changes, and has in it the parts of the program's file that are mapped, which every process of the same file shares.\n\
    - *packets*: connections of a pod through its node to a server behind it, over veth links, with 10,000 Services loaded.\n\
    - *traffic*: a pod on the node and a server behind it, over veth links, with 1000 x 2 loaded: through one Service in each mode, and *direct*, around all Services, in turns. \
      Processor time is that of the whole machine: client, node and server. Of datagrams those count that arrive. \
    Beside userspace mode haproxy stands, forwarding TCP to the one endpoint, with its defaults and with `option splice-auto`.\n\
    - *dns*: `portolan dns` with kubeadm's Corefile, metrics on, and 8,200 Services with 82,000 endpoints from `portolan apiserver`, half of the Services headless. \
    Every server has a network namespace of its own, and all have the same one core; dnsperf asks over a veth link from another core, with 100 queries on their way, which are those of 8 clients or, *one query a client*, of 100, for 1,000 names of a kind, 2 s at a time, all servers in turns. \
    *Processor time* is that of the server's processes (user and system, /proc/PID/stat), divided by the answers that dnsperf had; the middle one of five turns. \
    CoreDNS has the same Corefile; knot, nsd, unbound and dnsmasq have the same records in files, but for reverse names, and no metrics. Authoritative servers have no names of others, and dnsmasq no SRV. \
    A *relist* is what follows when the API ends and everything is listed anew; the highest memory counts from its begin.\n\
    - *gateway*: `portolan gateway --threads 1` with Ingresses of five paths each from `portolan apiserver`, and nginx and haproxy with the same routes in files, one worker each, no access log, connections to 200 endpoints kept open, and the same headers for endpoints. \
    Every server has a network namespace of its own, and all have the same one core; wrk (HTTP/1.1, 64 connections), h2load (HTTP/2 with 16 connections of 8 streams in TLS; 500 new connections in a second, nothing resumed), 32 connections at 100 requests a second each, and the endpoints are on the other core, 2 s at a time, all servers in turns. \
    *A CPU second* is one of the server's processes (user and system, /proc/PID/stat); the middle one of three turns. \
    A certificate is ECDSA on P-256. Resident memory is that of the largest process. \
    A new route is written to the API for us, into the file that nginx then reads (SIGHUP), and told to haproxy's socket; it is served when a new connection gets its answer.\n\n\
    The peer is a kube-proxy with `minSyncPeriod: 10ms`, and otherwise its defaults; it reads JSON from the same API server.\n\
    It programs iptables through the older kernel interface, on which it is faster; that one announces nothing, so its changes are seen by asking every millisecond who answers.\n\
    The peer gets less time than we for single changes: where it made fewer than 100 of them, its p99 is its slowest one.\n\
    A ratio says how often our value goes into the peer's.\n\
    What is measured in turns has a ratio for each turn. Where the middle one is below a target, and the range in which it lies with 95 % confidence (as the sign test has it) is not, the target's word is *within the noise*.\n";

fn targets(page: &mut String, report: &Report) {
    page.push_str("| what | target | measured | |\n| --- | ---: | ---: | --- |\n");
    for target in TARGETS {
        let row = report.rows.iter().find(|row| row.name == target.name);
        let unit = match target.limit {
            Limit::Below(_) => row.map_or("", |row| row.unit.as_str()),
            Limit::Times(..) | Limit::NotAbove(_) => "times",
        };
        let (measured, word) = match row.and_then(|row| target.outcome(row)) {
            Some(Outcome { measured, verdict }) => (
                number(measured),
                match verdict {
                    Verdict::Met => "met".into(),
                    Verdict::Missed => "**missed**".into(),
                    Verdict::Open(range) => range.to_string(),
                },
            ),
            None => ("–".into(), "not measured".into()),
        };
        let words = match target.limit {
            Limit::Below(limit) => format!("< {} {unit}", number(limit)),
            Limit::Times(..) | Limit::NotAbove(_) => target.words(),
        };
        let _ = writeln!(
            page,
            "| {} | {words} | {measured} {unit} | {word} |",
            target.name,
        );
    }
}

/// Rows with what stands before the colon of their names, in order.
fn sections(report: &Report) -> Vec<(String, Vec<(&str, &Row)>)> {
    let mut sections: Vec<(String, Vec<(&str, &Row)>)> = Vec::new();
    for row in &report.rows {
        let (section, what) = row.name.split_once(": ").unwrap_or(("other", &row.name));
        match sections.iter_mut().find(|(name, _)| name == section) {
            Some((_, rows)) => rows.push((what, row)),
            None => sections.push((section.to_owned(), vec![(what, row)])),
        }
    }
    sections
}

fn table(page: &mut String, rows: &[(&str, &Row)]) {
    let mut peers: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|(_, row)| &row.peers) {
        if !peers.contains(&name.as_str()) {
            peers.push(name);
        }
    }
    page.push_str("| | unit | Portolan |");
    peers
        .iter()
        .for_each(|peer| page.push_str(&format!(" {peer} | ratio |")));
    page.push_str("\n| --- | --- | ---: |");
    peers.iter().for_each(|_| page.push_str(" ---: | ---: |"));
    page.push('\n');
    for (what, row) in rows {
        let ours = row.value.map_or("–".into(), number);
        let _ = write!(page, "| {what} | {} | {ours} |", row.unit);
        for peer in &peers {
            let theirs = row
                .peers
                .iter()
                .find(|(name, _)| name == peer)
                .map(|(_, value)| *value);
            let value = theirs.map_or("–".into(), number);
            let ratio = theirs
                .and_then(|theirs| ratio(row.value, theirs))
                .map_or("–".into(), number);
            let _ = write!(page, " {value} | {ratio} |");
        }
        page.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_was_missed_and_what_was_not_measured() {
        let mut report = Report::default();
        report.add(None, "agent, 10000 x 2: resident memory", 40.0, "MB");
        report.add(
            Some("peer"),
            "agent, 10000 x 2: resident memory",
            200.0,
            "MB",
        );
        report.add(None, "agent, 10000 x 2: other", 1.5, "ms");
        report.notes.push("Left out: much.".into());
        let page = markdown(&report, &Machine::default());
        for line in [
            "| agent, 10000 x 2: resident memory | < 36 MB | 40 MB | **missed** |",
            "| agent, 10000 x 10: resident memory | < 55  | –  | not measured |",
            "### agent, 10000 x 2",
            "| | unit | Portolan | peer | ratio |",
            "| resident memory | MB | 40 | 200 | 5 |",
            "| other | ms | 1.5 | – | – |",
            "Left out: much.",
        ] {
            assert!(page.contains(line), "no {line:?} in:\n{page}");
        }
    }

    #[test]
    fn the_machine_has_a_kind_and_no_name() {
        let machine = Machine::here();
        assert!(machine.cores > 0 && machine.memory_gib > 0);
        assert!(!machine.kernel.contains('-'), "{}", machine.kernel);
        assert_eq!(field("model name\t: A B\n", "model name"), "A B");
    }
}
