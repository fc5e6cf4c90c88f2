//! What was done to whom, what the nodes have found out, and what comes of it in figures.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use portolan_k8s::Timestamp;
use serde_json::Value;

/// What an agent logs.
const EJECTED: &str = "endpoint ejected:";
/// Ejected in the very moment in which it answers again, by what was seen before.
const AFTERMATH: Duration = Duration::from_secs(2);

/// How endpoints do not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Hung,
    CutOff,
}

/// One deed, from its beginning to when everybody was back.
#[derive(Clone, Debug)]
struct Deed {
    manner: Manner,
    addresses: Vec<String>,
    began: Timestamp,
    ended: Option<Timestamp>,
}

/// An ejection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ejection {
    at: Timestamp,
    node: String,
    address: String,
}

/// Collects everything.
#[derive(Debug, Default)]
pub struct Judge {
    deeds: Vec<Deed>,
    ejections: Vec<Ejection>,
    loads: BTreeMap<&'static str, Sum>,
    took: Duration,
    updates: u32,
}

/// Requests of some clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    requests: u64,
    failed: u64,
    /// How often clients gave which reason.
    reasons: BTreeMap<String, u64>,
}

/// What people read.
#[derive(Debug)]
pub struct Figures {
    judge: Judge,
}

impl Judge {
    /// These do not answer any more.
    pub fn begin(&mut self, manner: Manner, addresses: Vec<String>, began: Timestamp) {
        self.deeds.push(Deed {
            manner,
            addresses,
            began,
            ended: None,
        });
    }

    /// All answer again, and are back.
    pub fn end(&mut self, ended: Timestamp) {
        if let Some(deed) = self.deeds.last_mut() {
            deed.ended = Some(ended);
        }
    }

    /// What the clients of a Service say.
    pub fn load(&mut self, service: &'static str, clients: Vec<Value>) {
        let sum = self.loads.entry(service).or_default();
        for client in clients {
            sum.requests += client["requests"].as_u64().unwrap_or(0);
            sum.failed += client["failed"].as_u64().unwrap_or(0);
            for (reason, count) in client["failures"].as_object().into_iter().flatten() {
                let reasons = sum.reasons.entry(reason.clone()).or_default();
                *reasons += count.as_u64().unwrap_or(0);
            }
        }
    }

    pub fn took(&mut self, took: Duration, updates: u32) {
        (self.took, self.updates) = (took, updates);
    }

    /// The logs of the nodes.
    pub fn hear(&mut self, logs: &[(String, String)]) {
        for (node, text) in logs {
            let lines = text.lines().filter(|line| line.contains(EJECTED));
            self.ejections.extend(lines.filter_map(|line| {
                let (at, rest) = line.split_once(' ')?;
                let address = rest.split("endpoint=").nth(1)?.split('/').next()?;
                Some(Ejection {
                    at: at.parse().ok()?,
                    node: node.clone(),
                    address: address.to_string(),
                })
            }));
        }
        self.ejections.sort_by_key(|ejection| ejection.at);
    }

    pub fn figures(self) -> Figures {
        Figures { judge: self }
    }
}

impl Deed {
    /// Whether this ejection is due to it.
    fn explains(&self, ejection: &Ejection) -> bool {
        let until = self.ended.map(|ended| ended + AFTERMATH);
        ejection.at >= self.began
            && until.is_none_or(|until| ejection.at <= until)
            && (self.addresses.contains(&ejection.address)
                // Who is cut off sees the others silent.
                || (self.manner == Manner::CutOff && ejection.node == super::lab::CUT))
    }
}

impl Figures {
    /// All that may not be; endpoints may stay for so long, if for any time.
    pub fn wrong(&self, within: Option<Duration>) -> Vec<String> {
        let mut wrong = self.healthy_ejected();
        wrong.extend(within.map(|within| self.late(within)).unwrap_or_default());
        wrong
    }

    /// Ejections of endpoints to which nothing had been done.
    fn healthy_ejected(&self) -> Vec<String> {
        let innocent = |e: &&Ejection| !self.judge.deeds.iter().any(|deed| deed.explains(e));
        let ejections = self.judge.ejections.iter().filter(innocent);
        ejections
            .map(|e| {
                format!(
                    "{} was healthy when {} ejected it at {}",
                    e.address, e.node, e.at
                )
            })
            .collect()
    }

    /// Who left too late.
    fn late(&self, within: Duration) -> Vec<String> {
        let times = self.times();
        let late = times.iter().filter(|(_, took)| *took > within);
        late.map(|(who, took)| format!("{who} left rotation after {} ms", took.as_millis()))
            .collect()
    }

    /// How long each deed took to be noticed by each node with clients: its first ejection of one of those concerned.
    fn times(&self) -> Vec<(String, Duration)> {
        let mut times = Vec::new();
        for (index, deed) in self.judge.deeds.iter().enumerate() {
            for node in super::lab::CLIENTS {
                let mine = |e: &&Ejection| {
                    e.node == node && deed.addresses.contains(&e.address) && deed.explains(e)
                };
                if let Some(first) = self.judge.ejections.iter().find(mine) {
                    let took = first.at.duration_since(deed.began);
                    let took = Duration::try_from(took).unwrap_or_default();
                    times.push((format!("{:?} {index} on {node}", deed.manner), took));
                }
            }
        }
        times
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let judge = &self.judge;
        writeln!(
            f,
            "{} rolling updates in {:.0} s",
            judge.updates,
            judge.took.as_secs_f64()
        )?;
        for (service, sum) in &judge.loads {
            writeln!(
                f,
                "{service}: {} requests, {} failed {:?}",
                sum.requests, sum.failed, sum.reasons
            )?;
        }
        let count = |manner| judge.deeds.iter().filter(|d| d.manner == manner).count();
        writeln!(
            f,
            "{} processes were stopped, a node was cut off {} times; {} ejections, {} of them of healthy endpoints",
            count(Manner::Hung),
            count(Manner::CutOff),
            judge.ejections.len(),
            self.healthy_ejected().len()
        )?;
        for (who, took) in self.times() {
            writeln!(f, "out of rotation: {who}: {} ms", took.as_millis())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: u32, address: &str) -> String {
        format!(
            "2026-01-01T00:00:{second:02}.500000Z  WARN x: endpoint ejected: it refuses connections endpoint={address}/TCP reason=\"refused\"\n"
        )
    }

    fn at(second: u32) -> Timestamp {
        format!("2026-01-01T00:00:{second:02}Z").parse().unwrap()
    }

    #[test]
    fn the_guilty_and_the_healthy_are_told_apart() {
        let mut judge = Judge::default();
        judge.begin(Manner::Hung, vec!["10.1.0.2:8080".into()], at(10));
        judge.end(at(20));
        judge.begin(Manner::CutOff, vec!["10.3.0.2:8080".into()], at(30));
        judge.end(at(40));
        let n1 = [
            line(11, "10.1.0.2:8080"),
            line(12, "10.1.0.3:8080"),
            line(33, "10.3.0.2:8080"),
            line(50, "10.1.0.2:8080"),
        ];
        let n3 = [line(35, "10.1.0.9:8080"), line(45, "10.1.0.9:8080")];
        judge.hear(&[("n1".into(), n1.concat()), ("n3".into(), n3.concat())]);
        let figures = judge.figures();
        let healthy = figures.healthy_ejected();
        assert_eq!(healthy.len(), 3, "{healthy:?}");
        assert!(healthy[0].starts_with("10.1.0.3:8080 was healthy when n1"));
        let times: Vec<u128> = figures.times().iter().map(|(_, t)| t.as_millis()).collect();
        assert_eq!(times, [1500, 3500]);
        let late = figures.late(Duration::from_secs(2));
        assert_eq!(late, ["CutOff 1 on n1 left rotation after 3500 ms"]);
    }
}
