//! One proxy from outside, as a process of its own on a node of its own: start, memory, changes, processor time.
//!
//! ```text
//!   portolan apiserver ◀── watch ── proxy ──▶ nf_tables of its namespace
//!     ▲ PATCH                                     │ Monitor hears the commit
//!     └────────────── this module ◀───────────────┘
//! ```

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use portolan_testkit::wait;

use crate::api::{self, Api, SERVICES, SLICES};
use crate::bed::{self, Bed};
use crate::contender::{Contender, METRICS};
use crate::monitor::Monitor;
use crate::objects::{self, Shape, replacement};
use crate::packets::{self, Felt};
use crate::process::{self, Memory};
use crate::samples::Samples;
use crate::traffic;

/// What is measured of a proxy, and for how long at most.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Changes of one endpoint, one after the other.
    pub changes: u32,
    /// Services that are added, and removed again.
    pub additions: u32,
    /// No new change is begun after this time.
    pub patience: Duration,
    /// Changes in a second, and for how long.
    pub rates: &'static [(u32, Duration)],
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// From the start of the process until Services all over the list answer.
    pub cold: Duration,
    /// Processor time until then and until it was idle again.
    pub cold_processor: Duration,
    /// Memory, some seconds after the start.
    pub settled: Memory,
    /// Memory after all changes.
    pub after: Memory,
    /// What the agent's own clock says from an event to its commit: quantile and milliseconds.
    pub own_clock: Vec<(String, f64)>,
    /// From the PATCH of an EndpointSlice to the commit.
    pub changes: Samples,
    /// From the POST of a Service to the commit.
    pub additions: Samples,
    /// From the DELETE of a Service to the commit.
    pub removals: Samples,
    /// Share of one core, in percent, for each rate of the plan.
    pub processor_percent: Vec<(u32, f64)>,
}

/// For the first start; kube-proxy needs a minute for 10,000 Services on top of iptables-nft.
const COLD_LIMIT: Duration = Duration::from_secs(120);
/// For one change: an old kube-proxy writes everything anew, and may have just begun to.
const CHANGE_LIMIT: Duration = Duration::from_secs(90);
/// Between two changes: what a change left behind is over.
const PAUSE: Duration = Duration::from_millis(20);
/// After which memory is called settled.
const SETTLE: Duration = Duration::from_secs(4);
/// Services that are asked whether all stand.
const PROBES: u32 = 16;

/// A running proxy. It ends when this is dropped.
pub struct Running<'a> {
    contender: &'a Contender,
    api: &'a Api,
    bed: &'a Bed,
    shape: Shape,
    child: Child,
    folder: PathBuf,
    /// Numbers the changes of the whole program, so that no address comes twice.
    round: u32,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Err(error) = self.contender.clean_up(&self.bed.node, &self.folder) {
            eprintln!("bench: {}: {error}", self.contender.name());
        }
    }
}

/// Starts a proxy and waits until the rules of all Services stand.
pub fn start<'a>(
    contender: &'a Contender,
    api: &'a Api,
    bed: &'a Bed,
    shape: Shape,
    round: u32,
) -> Result<(Running<'a>, Run), String> {
    let folder: PathBuf = api.folder().join(format!("contender-{round}"));
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let begun = Instant::now();
    let child = contender.start(&bed.node, &folder, &api.kubeconfig())?;
    let mut running = Running {
        contender,
        api,
        bed,
        shape,
        child,
        folder,
        round,
    };
    let stands = bed
        .client
        .run(|| match contender.is_relay() {
            true => answer_in_time(traffic::services()),
            false => answer_in_time(spread(shape)),
        })
        .map_err(|e| e.to_string())?;
    let cold = begun.elapsed();
    if !stands {
        let state = running.child.try_wait();
        let words = std::fs::read_to_string(running.folder.join("proxy.log")).unwrap_or_default();
        let tail: Vec<_> = words.lines().rev().take(5).collect();
        return Err(format!(
            "its rules do not stand after {COLD_LIMIT:?} ({state:?}); it said last: {tail:#?}"
        ));
    }
    pause(SETTLE);
    let run = Run {
        cold,
        cold_processor: process::processor_time(&running.pid()),
        settled: process::memory(&running.pid()),
        ..Run::default()
    };
    Ok((running, run))
}

/// Services all over the list. The last one first: it tells the most.
fn spread(shape: Shape) -> impl Iterator<Item = u32> {
    (0..PROBES).map(move |n| shape.services - 1 - n * (shape.services / PROBES))
}

/// Waits until all answer; false when that takes too long.
fn answer_in_time(mut services: impl Iterator<Item = u32>) -> bool {
    let deadline = Instant::now() + COLD_LIMIT;
    services.all(|service| {
        let left = deadline.saturating_duration_since(Instant::now());
        wait::until(left, || bed::is_open(service))
    })
}

impl Running<'_> {
    /// How many changes there were so far.
    pub fn round(&self) -> u32 {
        self.round
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// What packets feel: around all Services, through the first one, and through the last.
    pub fn packets(&self) -> Result<Vec<Felt>, String> {
        let (first, last) = self
            .contender
            .ends(&self.bed.node, &self.folder, self.shape)?;
        let ways = [
            packets::direct(self.shape.endpoint(first, 1)),
            bed::virtual_address(first),
            bed::virtual_address(last),
        ];
        packets::measure(&ways.map(|to| (self.bed, vec![to])))
    }

    /// Everything after the start.
    pub fn measure(&mut self, plan: &Plan, run: &mut Run) -> Result<(), String> {
        let begun = Instant::now();
        let mut watcher = Watcher::start(self)?;
        let mut changes = Vec::new();
        while changes.len() < plan.changes as usize
            && (changes.is_empty() || begun.elapsed() < plan.patience)
        {
            changes.push(self.change(&mut watcher)?);
            pause(PAUSE);
        }
        run.changes = changes.into_iter().collect();
        run.own_clock = self.own_clock()?;
        let (mut additions, mut removals) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        while additions.len() < plan.additions as usize && begun.elapsed() < plan.patience {
            let (added, removed) = self.add_and_remove(&mut watcher)?;
            additions.push(added);
            removals.push(removed);
        }
        run.additions = additions.into_iter().collect();
        run.removals = removals.into_iter().collect();
        // The kernel would make announcements at the expense of whoever commits.
        drop(watcher);
        for &(rate, time) in plan.rates {
            run.processor_percent
                .push((rate, self.under_load(rate, time)?));
        }
        pause(SETTLE);
        run.after = process::memory(&self.pid());
        Ok(())
    }

    /// The delays that our agent tells of; empty for others.
    fn own_clock(&self) -> Result<Vec<(String, f64)>, String> {
        let page = self.bed.node.run(scrape).map_err(|e| e.to_string())?;
        Ok(delays(&page.map_err(|e| format!("no metrics: {e}"))?))
    }

    /// Gives one Service another first endpoint; the time until the kernel has it.
    fn change(&mut self, watcher: &mut Watcher) -> Result<Duration, String> {
        self.round += 1;
        let (service, address) = (
            self.round * 7919 % self.shape.services,
            replacement(self.round),
        );
        watcher.want(address);
        let path = format!("{SLICES}/{}", objects::slice_name(service));
        let body = self.shape.patch(service, address);
        let begun = Instant::now();
        self.write("PATCH", path, Some(body))?;
        let committed = watcher.committed(self, service, Sign::Answers(address))?;
        Ok(committed.duration_since(begun))
    }

    /// Adds a Service whose EndpointSlice is there already, and removes it again.
    fn add_and_remove(&mut self, watcher: &mut Watcher) -> Result<(Duration, Duration), String> {
        self.round += 1;
        let service = self.shape.services + self.round % 100;
        let path = format!("{SERVICES}/{}", objects::name(service));
        let slice = self.shape.slice(service, None);
        self.write("POST", SLICES.into(), Some(slice))?;
        pause(PAUSE);
        let address = objects::cluster_ip(service);
        watcher.want(address);
        let begun = Instant::now();
        self.write("POST", SERVICES.into(), Some(objects::service(service)))?;
        let added = watcher
            .committed(self, service, Sign::Stands)?
            .duration_since(begun);
        pause(PAUSE);
        watcher.want(address);
        let begun = Instant::now();
        self.write("DELETE", path, None)?;
        let removed = watcher
            .committed(self, service, Sign::Gone)?
            .duration_since(begun);
        let slice = format!("{SLICES}/{}", objects::slice_name(service));
        self.write("DELETE", slice, None)?;
        pause(PAUSE);
        Ok((added, removed))
    }

    fn write(
        &self,
        method: &str,
        path: String,
        body: Option<serde_json::Value>,
    ) -> Result<(), String> {
        self.api.runtime.block_on(self.api.send(method, path, body))
    }

    /// Share of a core, in percent, that the proxy takes while endpoints change at this rate.
    fn under_load(&mut self, rate: u32, time: Duration) -> Result<f64, String> {
        let (begun, before) = (Instant::now(), process::processor_time(&self.pid()));
        let count = rate * time.as_secs() as u32;
        let first = self.round + 1;
        self.round += count;
        let (shape, client) = (self.shape, self.api.client());
        let writes = async {
            let clock = tokio::time::interval(Duration::from_secs(1) / rate);
            let ticks = stream::unfold((clock, first), |(mut clock, round)| async move {
                clock.tick().await;
                Some((round, (clock, round + 1)))
            })
            .take(count as usize);
            let write = |round: u32| {
                let (client, service) = (client.clone(), round * 7919 % shape.services);
                let path = format!("{SLICES}/{}", objects::slice_name(service));
                async move {
                    let body = shape.patch(service, replacement(round));
                    api::request(&client, "PATCH", path, Some(body)).await
                }
            };
            let results = ticks.map(write).buffer_unordered(rate as usize);
            results.collect::<Vec<_>>().await
        };
        let results = self.api.runtime.block_on(writes);
        results.into_iter().collect::<Result<(), String>>()?;
        let (took, spent) = (
            begun.elapsed(),
            process::processor_time(&self.pid()) - before,
        );
        Ok(100.0 * spent.as_secs_f64() / took.as_secs_f64())
    }
}

/// What the proxy of the calling thread's namespace serves as metrics.
fn scrape() -> std::io::Result<String> {
    let mut stream = TcpStream::connect(METRICS)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {METRICS}\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// The lines `portolan_change_delay_seconds{quantile="0.99"} 0.0012`, in milliseconds.
fn delays(page: &str) -> Vec<(String, f64)> {
    let delay = |line: &str| {
        let rest = line.strip_prefix("portolan_change_delay_seconds{quantile=\"")?;
        let (quantile, seconds) = rest.split_once("\"} ")?;
        Some((quantile.to_owned(), seconds.parse::<f64>().ok()? * 1e3))
    };
    page.lines().filter_map(delay).collect()
}

/// How it is seen that a change stands.
#[derive(Clone, Copy)]
enum Sign {
    Answers(std::net::Ipv4Addr),
    Stands,
    Gone,
}

/// Sees when a change stands: from the kernel's notifications, or by asking with packets where there are none.
enum Watcher {
    Netlink(Monitor),
    Packets,
}

impl Watcher {
    fn start(running: &Running<'_>) -> Result<Self, String> {
        match running.contender.is_told_by_netlink() {
            true => Monitor::start(&running.bed.node).map(Watcher::Netlink),
            false => Ok(Watcher::Packets),
        }
    }

    fn want(&mut self, address: std::net::Ipv4Addr) {
        if let Watcher::Netlink(monitor) = self {
            monitor.want(address);
        }
    }

    fn committed(
        &self,
        running: &Running<'_>,
        service: u32,
        sign: Sign,
    ) -> Result<Instant, String> {
        let late = || format!("a change does not stand after {CHANGE_LIMIT:?}");
        match self {
            Watcher::Netlink(monitor) => monitor.committed(CHANGE_LIMIT)?.ok_or_else(late),
            Watcher::Packets => {
                let holds = || match sign {
                    Sign::Answers(address) => {
                        bed::who_answers(service).is_ok_and(|who| who == address)
                    }
                    Sign::Stands => bed::who_answers(service).is_ok(),
                    Sign::Gone => bed::who_answers(service).is_err(),
                };
                let seen = running.bed.client.run(|| wait::until(CHANGE_LIMIT, holds));
                match seen.map_err(|e| e.to_string())? {
                    true => Ok(Instant::now()),
                    false => Err(late()),
                }
            }
        }
    }
}

/// Nothing happens for a while: time for a program to become idle, never to win a race.
#[expect(
    clippy::disallowed_methods,
    reason = "measured programs must be idle between measurements"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_found_among_metrics() {
        let page =
            "# TYPE x gauge\nportolan_change_delay_seconds{quantile=\"0.99\"} 0.0025\nother 1\n";
        assert_eq!(delays(page), [("0.99".to_owned(), 2.5)]);
        assert_eq!(
            delays("portolan_change_delay_seconds{quantile=\"0.99\"} none"),
            []
        );
    }
}
