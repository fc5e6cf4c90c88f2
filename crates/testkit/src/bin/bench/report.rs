//! All that was measured, in the order in which it came: printed, written as JSON, and read by the document and plot.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::noise::{self, Range};
use crate::packets;

/// One measured thing and what everybody needed for it. Less is better unless the unit is "per a second".
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Our value.
    pub value: Option<f64>,
    /// The peers' values, with who they are.
    pub peers: Vec<(String, f64)>,
    /// What was measured turn by turn: ours, and each peer's; empty for what has no turns.
    turns: Vec<(Option<String>, Vec<f64>)>,
}

impl Row {
    /// The range of how often the peer's value goes into ours, where both were measured in turns.
    fn range(&self, peer: &str) -> Option<Range> {
        let of = |who: Option<&str>| {
            let mut all = self.turns.iter();
            let found = all.find(|(name, _)| name.as_deref() == who);
            found.map(|(_, counts)| counts)
        };
        noise::range(of(None)?, of(Some(peer))?)
    }
}

/// What a value must reach.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The row's name.
    pub name: &'static str,
    /// The limit.
    pub limit: Limit,
}

/// Where a value has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Below this, in the row's unit.
    Below(f64),
    /// At least so many times the value of every peer whose name begins so.
    Times(f64, &'static str),
    /// At most that of the best peer whose name begins so.
    NotAbove(&'static str),
}

/// What a target says of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The row's value, or how many times the best peer's it is.
    pub measured: f64,
    /// Whether that is enough.
    pub verdict: Verdict,
}

/// Whether a target is reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    Missed,
    /// The value is below it, and this run's noise may be the reason: the ratio lies in this range.
    Open(Range),
}

/// The targets of the project.
pub const TARGETS: [Target; 30] = [
    Target {
        name: "programming, 100000 x 2: cold load",
        limit: Limit::Below(5_000.0),
    },
    Target {
        name: "agent, 100000 x 2: from start to all rules",
        limit: Limit::Below(5_000.0),
    },
    Target {
        name: "programming, 100000 x 2: one endpoint changes, p99",
        limit: Limit::Below(5.0),
    },
    Target {
        name: "agent, 100000 x 2: one endpoint changes, event to commit, p99",
        limit: Limit::Below(5.0),
    },
    Target {
        name: "programming, 10000 x 10: cold load",
        limit: Limit::Below(1_000.0),
    },
    Target {
        name: "agent, 10000 x 10: from start to all rules",
        limit: Limit::Below(1_000.0),
    },
    Target {
        name: "agent, 10000 x 2: one endpoint changes, event to commit, p99",
        limit: Limit::Below(5.0),
    },
    Target {
        name: "agent, 10000 x 2: processor at 20 changes a second",
        limit: Limit::Below(2.0),
    },
    Target {
        name: "agent, 10000 x 2: resident memory",
        limit: Limit::Below(36.0),
    },
    Target {
        name: "agent, 10000 x 10: resident memory",
        limit: Limit::Below(55.0),
    },
    Target {
        name: "traffic, ebpf: connections",
        limit: Limit::Times(0.97, "direct"),
    },
    Target {
        name: "traffic, nftables: connections",
        limit: Limit::Times(1.0, "kube-proxy"),
    },
    Target {
        name: "traffic, iptables: connections",
        limit: Limit::Times(1.0, "kube-proxy"),
    },
    Target {
        name: "traffic, iptables-legacy: connections",
        limit: Limit::Times(1.0, "kube-proxy"),
    },
    Target {
        name: "traffic, userspace: one stream",
        limit: Limit::Times(1.0, "haproxy"),
    },
    Target {
        name: "traffic, userspace: 16 streams",
        limit: Limit::Times(1.0, "haproxy"),
    },
    Target {
        name: "traffic, userspace: connections",
        limit: Limit::Times(1.0, "haproxy"),
    },
    Target {
        name: "dns, 8200 x 10: processor time of an answer, ClusterIP",
        limit: Limit::Below(7.0),
    },
    Target {
        name: "dns, 8200 x 10: processor time of an answer, NXDOMAIN",
        limit: Limit::Below(7.0),
    },
    Target {
        name: "dns, 8200 x 10: processor time of an answer, SRV x 10",
        limit: Limit::Below(10.0),
    },
    Target {
        name: "dns, 8200 x 10: resident memory after all answers",
        limit: Limit::Below(60.0),
    },
    Target {
        name: "dns, 8200 x 10: highest resident memory of a relist",
        limit: Limit::Below(60.0),
    },
    Target {
        name: "gateway, 10 routes: HTTP/1.1, 128 bytes",
        limit: Limit::Times(1.0, "nginx"),
    },
    Target {
        name: "gateway, 10 routes: HTTP/1.1, 64 KiB",
        limit: Limit::Times(1.0, "nginx"),
    },
    Target {
        name: "gateway, 10 routes: HTTP/2 in TLS, 128 bytes",
        limit: Limit::Times(1.0, "nginx"),
    },
    Target {
        name: "gateway, 10 routes: TLS handshakes with one request each",
        limit: Limit::Times(1.0, "nginx"),
    },
    Target {
        name: "gateway, 10 routes: 3200 requests a second, p99",
        limit: Limit::NotAbove("nginx"),
    },
    Target {
        name: "gateway, 5000 routes: HTTP/1.1, 128 bytes of every route",
        limit: Limit::Times(1.0, "nginx"),
    },
    Target {
        name: "gateway, 5000 routes: resident memory after all requests",
        limit: Limit::Below(40.0),
    },
    Target {
        name: "gateway, 5000 routes: a new route is served, p99",
        limit: Limit::Below(30.0),
    },
];

/// Everything that was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// In the order of the first measurement.
    pub rows: Vec<Row>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

impl Report {
    /// Takes in what turns of ours (`peer` is `None`) or of a peer have given, as the one in the middle; returns the line
    /// to print. Nothing without turns.
    pub fn add_counts(
        &mut self,
        peer: Option<&str>,
        name: &str,
        counts: &[f64],
        unit: &str,
    ) -> Option<String> {
        if counts.is_empty() {
            return None;
        }
        let turns = (peer.map(str::to_owned), counts.to_vec());
        self.row(name, unit).turns.push(turns);
        let middle = packets::middle(counts.to_vec());
        Some(self.add(peer, name, middle, unit))
    }

    /// Takes in a value of ours (`peer` is `None`) or of a peer; returns the line to print.
    pub fn add(&mut self, peer: Option<&str>, name: &str, value: f64, unit: &str) -> String {
        let row = self.row(name, unit);
        match peer {
            None => row.value = Some(value),
            Some(peer) => row.peers.push((peer.to_owned(), value)),
        }
        let mut line = format!("{name:<72}{value:>12.3} {unit}");
        match peer {
            None => {}
            Some(peer) => {
                let ratio = ratio(row.value, value)
                    .map_or(String::new(), |ratio| format!(", {ratio:.2} times ours"));
                let _ = write!(line, " ({peer}{ratio})");
            }
        }
        line.push_str(&verdict(row, peer));
        line
    }

    /// The row of this name.
    fn row(&mut self, name: &str, unit: &str) -> &mut Row {
        let index = match self.rows.iter().position(|row| row.name == name) {
            Some(index) => index,
            None => {
                self.rows.push(Row {
                    name: name.to_owned(),
                    unit: unit.to_owned(),
                    value: None,
                    peers: Vec::new(),
                    turns: Vec::new(),
                });
                self.rows.len() - 1
            }
        };
        &mut self.rows[index]
    }

    /// The list that bench/out/results.json holds: one entry for each row and peer, or one without a peer.
    pub fn json(&self) -> Value {
        let entry = |row: &Row, peer: Option<&(String, f64)>| {
            json!({
                "name": row.name,
                "value": row.value,
                "unit": row.unit,
                "peer": peer.map(|(name, _)| name),
                "peer_value": peer.map(|(_, value)| value),
                "ratio": peer.and_then(|(_, value)| ratio(row.value, *value)),
            })
        };
        let of_row = |row: &Row| -> Vec<Value> {
            match row.peers.is_empty() {
                true => vec![entry(row, None)],
                false => row
                    .peers
                    .iter()
                    .map(|peer| entry(row, Some(peer)))
                    .collect(),
            }
        };
        self.rows.iter().flat_map(of_row).collect()
    }
}

/// How often our value goes into the peer's.
pub fn ratio(ours: Option<f64>, peer: f64) -> Option<f64> {
    ours.filter(|value| *value > 0.0).map(|value| peer / value)
}

/// The verdict of the row's target, as far as the value that was just added decides it.
fn verdict(row: &Row, peer: Option<&str>) -> String {
    let target = TARGETS.iter().find(|target| target.name == row.name);
    let decides = |target: &&Target| match (target.limit, peer) {
        (Limit::Below(_), peer) => peer.is_none(),
        (Limit::Times(_, of) | Limit::NotAbove(of), Some(peer)) => peer.starts_with(of),
        (Limit::Times(..) | Limit::NotAbove(_), None) => false,
    };
    let outcome = target
        .filter(decides)
        .and_then(|t| Some((t, t.outcome(row)?)));
    outcome.map_or(String::new(), |(target, outcome)| {
        let word = match outcome.verdict {
            Verdict::Met => "met".to_owned(),
            Verdict::Missed => "MISSED".to_owned(),
            Verdict::Open(range) => range.to_string(),
        };
        format!("  {word} (target: {})", target.words())
    })
}

impl Target {
    /// The limit in words, without the unit of a number.
    pub fn words(&self) -> String {
        match self.limit {
            Limit::Below(limit) => format!("below {limit}"),
            Limit::Times(1.0, peer) => format!("at least that of {peer}"),
            Limit::Times(times, peer) => format!("at least {times} of {peer}"),
            Limit::NotAbove(peer) => format!("at most that of {peer}"),
        }
    }

    /// What a row is worth; `None` when it was not measured, or its peer was not there.
    pub fn outcome(&self, row: &Row) -> Option<Outcome> {
        let value = row.value?;
        let of_peers = |of| {
            let peers = row.peers.iter();
            peers.filter(move |(name, _)| name.starts_with(of))
        };
        match self.limit {
            Limit::Below(limit) => Some(Outcome {
                measured: value,
                verdict: Verdict::of(value < limit),
            }),
            Limit::Times(times, of) => {
                let (name, best) = of_peers(of).max_by(|(_, a), (_, b)| a.total_cmp(b))?;
                let measured = value / best;
                let verdict = match row.range(name) {
                    Some(range) if measured < times && range.high >= times => Verdict::Open(range),
                    _ => Verdict::of(measured >= times),
                };
                Some(Outcome { measured, verdict })
            }
            Limit::NotAbove(of) => {
                let (_, best) = of_peers(of).min_by(|(_, a), (_, b)| a.total_cmp(b))?;
                Some(Outcome {
                    measured: value / best,
                    verdict: Verdict::of(value <= *best),
                })
            }
        }
    }
}

impl Verdict {
    fn of(met: bool) -> Verdict {
        match met {
            true => Verdict::Met,
            false => Verdict::Missed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.add(None, "agent, 10000 x 2: resident memory", 40.0, "MB");
        report.add(
            Some("kube-proxy 1.30 nftables"),
            "agent, 10000 x 2: resident memory",
            200.0,
            "MB",
        );
        report.add(None, "something", 1.0, "ms");
        report
    }

    #[test]
    fn results_are_a_list_with_a_ratio_for_each_peer() {
        assert_eq!(
            report().json(),
            json!([
                {
                    "name": "agent, 10000 x 2: resident memory", "value": 40.0, "unit": "MB",
                    "peer": "kube-proxy 1.30 nftables", "peer_value": 200.0, "ratio": 5.0
                },
                {"name": "something", "value": 1.0, "unit": "ms", "peer": null, "peer_value": null, "ratio": null},
            ])
        );
    }

    #[test]
    fn a_missed_target_is_said() {
        let mut report = report();
        let line = report.add(None, "agent, 10000 x 2: resident memory", 40.0, "MB");
        assert!(line.ends_with("MISSED (target: below 36)"), "{line}");
        let line = report.add(None, "agent, 10000 x 2: resident memory", 30.0, "MB");
        assert!(line.ends_with("met (target: below 36)"), "{line}");
    }

    #[test]
    fn a_target_beside_a_peer_is_that_of_the_best_one() {
        let mut report = Report::default();
        let row = "traffic, userspace: one stream";
        report.add(None, row, 90.0, "Mbit a second");
        let mut line = |peer, value| report.add(Some(peer), row, value, "Mbit a second");
        assert!(line("direct", 500.0).ends_with("ours)"));
        let verdict = |word: &str| format!("{word} (target: at least that of haproxy)");
        assert!(line("haproxy 2.6", 80.0).ends_with(&verdict("met")));
        assert!(line("haproxy 2.6, splice", 100.0).ends_with(&verdict("MISSED")));
        assert!(line("haproxy 2.6 again", 70.0).ends_with(&verdict("MISSED")));
    }

    #[test]
    fn noise_is_no_verdict() {
        let row = "traffic, iptables: connections";
        let ours = [9.0, 11.0, 9.5, 10.5, 9.8, 9.9, 9.7];
        let mut lines = [10.0, 10.9].into_iter().map(|theirs| {
            let mut report = Report::default();
            assert_eq!(report.add_counts(None, row, &[], "a second"), None);
            report.add_counts(None, row, &ours, "a second").unwrap();
            let peer = Some("kube-proxy 1.30");
            report.add_counts(peer, row, &[theirs; 7], "a second")
        });
        let target = "(target: at least that of kube-proxy)";
        let open = format!("within the noise, between 0.90 and 1.10 times {target}");
        assert!(lines.next().unwrap().unwrap().ends_with(&open));
        assert!(
            lines
                .next()
                .unwrap()
                .unwrap()
                .contains("between 0.83 and 1.01 times")
        );
        let mut report = Report::default();
        report.add_counts(None, row, &ours, "a second").unwrap();
        let line = report.add_counts(Some("kube-proxy 1.30"), row, &[12.0; 7], "a second");
        assert!(line.unwrap().ends_with(&format!("MISSED {target}")));
    }

    #[test]
    fn less_than_the_best_peer_may_be_the_target() {
        let mut report = Report::default();
        let row = "gateway, 10 routes: 3200 requests a second, p99";
        report.add(None, row, 0.5, "ms");
        let mut line = |peer, value| report.add(Some(peer), row, value, "ms");
        let verdict = |word: &str| format!("{word} (target: at most that of nginx)");
        assert!(line("haproxy 2.6", 0.1).ends_with("ours)"));
        assert!(line("nginx 1.22", 0.5).ends_with(&verdict("met")));
        assert!(line("nginx 1.26", 0.4).ends_with(&verdict("MISSED")));
    }

    #[test]
    fn a_peer_without_us_has_no_ratio() {
        let mut report = Report::default();
        let line = report.add(Some("peer"), "x", 3.0, "ms");
        assert!(line.ends_with("(peer)"), "{line}");
        assert_eq!(report.json()[0]["ratio"], Value::Null);
    }
}
