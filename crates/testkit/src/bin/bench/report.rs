//! All that was measured, in the order in which it came: printed, written as JSON, and read by the document and plot.

use std::fmt::Write as _;

use serde_json::{Value, json};

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
}

/// What a value must stay below.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The row's name.
    pub name: &'static str,
    /// The limit, in the row's unit.
    pub below: f64,
}

/// The targets of the project.
pub const TARGETS: [Target; 10] = [
    Target {
        name: "programming, 100000 x 2: cold load",
        below: 5_000.0,
    },
    Target {
        name: "agent, 100000 x 2: from start to all rules",
        below: 5_000.0,
    },
    Target {
        name: "programming, 100000 x 2: one endpoint changes, p99",
        below: 5.0,
    },
    Target {
        name: "agent, 100000 x 2: one endpoint changes, event to commit, p99",
        below: 5.0,
    },
    Target {
        name: "programming, 10000 x 10: cold load",
        below: 1_000.0,
    },
    Target {
        name: "agent, 10000 x 10: from start to all rules",
        below: 1_000.0,
    },
    Target {
        name: "agent, 10000 x 2: one endpoint changes, event to commit, p99",
        below: 5.0,
    },
    Target {
        name: "agent, 10000 x 2: processor at 20 changes a second",
        below: 2.0,
    },
    Target {
        name: "agent, 10000 x 2: resident memory",
        below: 36.0,
    },
    Target {
        name: "agent, 10000 x 10: resident memory",
        below: 55.0,
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
    /// Takes in a value of ours (`peer` is `None`) or of a peer; returns the line to print.
    pub fn add(&mut self, peer: Option<&str>, name: &str, value: f64, unit: &str) -> String {
        let index = match self.rows.iter().position(|row| row.name == name) {
            Some(index) => index,
            None => {
                self.rows.push(Row {
                    name: name.to_owned(),
                    unit: unit.to_owned(),
                    value: None,
                    peers: Vec::new(),
                });
                self.rows.len() - 1
            }
        };
        let row = &mut self.rows[index];
        match peer {
            None => row.value = Some(value),
            Some(peer) => row.peers.push((peer.to_owned(), value)),
        }
        let mut line = format!("{name:<72}{value:>12.3} {unit}");
        match peer {
            None => line.push_str(&verdict(row)),
            Some(peer) => {
                let ratio = ratio(row.value, value)
                    .map_or(String::new(), |ratio| format!(", {ratio:.1} times ours"));
                let _ = write!(line, " ({peer}{ratio})");
            }
        }
        line
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

fn verdict(row: &Row) -> String {
    let target = TARGETS.iter().find(|target| target.name == row.name);
    match (target, row.value) {
        (Some(target), Some(value)) => format!("  {}", target.verdict(value)),
        _ => String::new(),
    }
}

impl Target {
    /// Whether a value reaches it, in words.
    pub fn verdict(&self, value: f64) -> String {
        let word = match value < self.below {
            true => "met",
            false => "MISSED",
        };
        format!("{word} (target: below {})", self.below)
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
    fn a_peer_without_us_has_no_ratio() {
        let mut report = Report::default();
        let line = report.add(Some("peer"), "x", 3.0, "ms");
        assert!(line.ends_with("(peer)"), "{line}");
        assert_eq!(report.json()[0]["ratio"], Value::Null);
    }
}
