//! `make front`: the front door under full load while endpoints and routes change. No request may fail, no WebSocket may
//! end, and nobody may be asked who has long been gone.
//!
//! ```text
//!   front [SECONDS] [CHANGES]                         300 s and 1000 changes unless told otherwise
//!     API ──watch──▶ portolan gateway ◀── clients: requests without a pause, WebSockets that say something   (clients.rs)
//!      ▲                   └──▶ endpoints, which end their connections soon after they are gone              (endpoints.rs)
//!      └── writer: a new endpoint for an old one, a new route for an old one, in turns, until each is live   (changes.rs)
//! ```
//!
//! The real binary, in a network namespace of this process. `PORTOLAN` names it; else it is the one beside this program.
#![allow(clippy::print_stdout)] // The results are for people.

mod changes;
mod clients;
mod endpoints;
mod site;

use std::process::{Command, ExitCode};
use std::time::Duration;

use portolan_kernel::Links;
use portolan_kernel::namespace::{Kinds, enter_new};
use portolan_testkit::program::{Api, Process};

use changes::Changes;
use clients::{Clients, Traffic};
use endpoints::Endpoints;

/// What is wrong with the machine or the run, in words.
type Result<T> = std::result::Result<T, String>;

const USAGE: &str = "usage: front [SECONDS] [CHANGES]";
const SECONDS: u64 = 300;
const CHANGES: u32 = 1_000;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("front: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (seconds, count) = match &*words {
        [] => (SECONDS, CHANGES),
        [seconds] => (seconds.parse().map_err(|_| USAGE)?, CHANGES),
        [seconds, count] => (
            seconds.parse().map_err(|_| USAGE)?,
            count.parse().map_err(|_| USAGE)?,
        ),
        _ => return Err(USAGE.into()),
    };
    // Before the first thread: nothing of this is to be seen in the machine's own namespace.
    enter_new(Kinds::CLONE_NEWNET).map_err(|e| e.to_string())?;
    let links = Links::here().and_then(|mut links| links.up("lo"));
    links.map_err(|e| e.to_string())?;
    let endpoints = Endpoints::start()?;
    let api = Api::start()?;
    api.create(site::objects())?;
    let _gateway = gateway(&api)?;
    clients::await_all()?;
    let clients = Clients::start()?;
    let changes = changes::run(&api, &endpoints, Duration::from_secs(seconds), count);
    let traffic = clients.stop()?;
    Ok(tell(&changes?, &traffic, endpoints.late()))
}

fn gateway(api: &Api) -> Result<Process> {
    let mut command = Command::new(&api.portolan);
    command.args(["gateway", "--watch-ingress-without-class", "--http"]);
    command.arg(site::GATEWAY.to_string());
    command.args(["--https", "127.0.0.1:443", "--kubeconfig"]);
    command.arg(api.kubeconfig());
    Process::start(&mut command, &api.folder().join("gateway.log"))
}

/// Says what has happened, and whether it was right.
fn tell(changes: &Changes, traffic: &Traffic, late: u64) -> bool {
    println!(
        "front: {} changes in {:.0} s: {} of endpoints, {} of routes",
        changes.endpoints.len() + changes.routes.len(),
        changes.took.as_secs_f64(),
        changes.endpoints.len(),
        changes.routes.len(),
    );
    println!(
        "  requests: {}, {:.0} a second; {} failed",
        traffic.requests,
        traffic.requests as f64 / changes.took.as_secs_f64(),
        traffic.failed.count
    );
    println!(
        "  WebSockets: {}, {} messages to and fro; {} dropped",
        clients::WEB_SOCKETS,
        traffic.messages,
        traffic.dropped.count
    );
    println!(
        "  requests to endpoints that had been gone for more than {:?}: {late}",
        endpoints::GRACE
    );
    for (what, times) in [
        ("a new endpoint has its first request", &changes.endpoints),
        (
            "a new route is served, and the old one is not",
            &changes.routes,
        ),
    ] {
        let [half, most, all] = [50, 99, 100].map(|percent| quantile(times, percent));
        println!("  {what} after, in ms: p50 {half:.1}, p99 {most:.1}, at most {all:.1}");
    }
    for words in traffic.failed.words.iter().chain(&traffic.dropped.words) {
        println!("front: {words}");
    }
    let is_live = traffic.requests > 0 && traffic.messages > 0;
    is_live && traffic.failed.count == 0 && traffic.dropped.count == 0 && late == 0
}

/// Milliseconds that this share of all times does not exceed.
fn quantile(times: &[Duration], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times
        .get(rank - 1)
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(
            [50, 99, 100].map(|percent| quantile(&times, percent)),
            [100.0, 198.0, 200.0]
        );
    }
}
