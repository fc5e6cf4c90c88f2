//! What packets feel: how long a connection takes to open, and how many open in a second, through the first and the
//! last Service against no Service at all. Everything passes the same node and ends at the same server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::bed::{self, Bed};
use crate::objects::ENDPOINT_PORT;
use crate::process;
use crate::samples::Samples;

/// Connections that are timed, each way.
const CONNECTIONS: usize = 3000;
/// As many of one way after the other, before the next way has its turn.
const TURN: usize = 100;
/// How long connections are counted, each way, each time.
const COUNTED: Duration = Duration::from_millis(500);
/// How often they are counted; the middle one is told. Short and often: a noise meets all ways.
pub const COUNTS: usize = 15;
/// Clients that open connections at the same time when they are counted.
const CLIENTS: usize = 2;

/// What one way felt.
#[derive(Clone, Debug, Default)]
pub struct Felt {
    /// Time to open one connection.
    pub opening: Samples,
    /// Connections in a second, turn by turn.
    pub per_second: Vec<f64>,
    /// Processor time of the whole machine for one of them, in microseconds, turn by turn: client, node and server
    /// together.
    pub processor_us: Vec<f64>,
}

/// A way that connections take: from the client of a bed to one of these addresses after the other.
pub type Way<'a> = (&'a Bed, Vec<SocketAddr>);

/// The address that has this turn.
fn turn(to: &[SocketAddr], round: usize) -> SocketAddr {
    to[round % to.len()]
}

/// Measures all ways, taking turns, so that a noise of the machine meets all of them.
pub fn measure(ways: &[Way<'_>]) -> Result<Vec<Felt>, String> {
    let (opening, counts) = (time(ways)?, count(ways)?);
    let felt = opening.into_iter().zip(counts);
    Ok(felt
        .map(|(opening, (per_second, processor_us))| Felt {
            opening,
            per_second,
            processor_us,
        })
        .collect())
}

/// Does something on the client of a bed.
fn on<T: Send>(bed: &Bed, work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    bed.client.run(work).map_err(|e| e.to_string())?
}

/// The way around all Services: an endpoint itself.
pub fn direct(endpoint: Ipv4Addr) -> SocketAddr {
    (endpoint, ENDPOINT_PORT).into()
}

fn time(ways: &[Way<'_>]) -> Result<Vec<Samples>, String> {
    let mut times = vec![Vec::with_capacity(CONNECTIONS); ways.len()];
    for round in 0..CONNECTIONS / TURN {
        for ((bed, to), times) in ways.iter().zip(&mut times) {
            times.extend(on(bed, || time_turn(turn(to, round)))?);
        }
    }
    Ok(times
        .into_iter()
        .map(|times| times.into_iter().collect())
        .collect())
}

fn time_turn(to: SocketAddr) -> Result<Vec<Duration>, String> {
    let dial = |_| match bed::dial(to) {
        Ok((took, _)) => Ok(took),
        Err(e) => Err(format!("no connection to {to}: {e}")),
    };
    (0..TURN).map(dial).collect()
}

type Counts = (Vec<f64>, Vec<f64>);

fn count(ways: &[Way<'_>]) -> Result<Vec<Counts>, String> {
    let mut counts = vec![Counts::default(); ways.len()];
    for round in 0..COUNTS {
        for index in order(round, ways.len()) {
            let (bed, to) = &ways[index];
            let (rate, cost) = on(bed, || count_once(turn(to, round)))?;
            counts[index].0.push(rate);
            counts[index].1.push(cost);
        }
    }
    Ok(counts)
}

/// Who follows whom in a round: from the first to the last, then the other way round, so that nobody gains by his place.
pub fn order(round: usize, ways: usize) -> impl Iterator<Item = usize> {
    (0..ways).map(move |index| match round.is_multiple_of(2) {
        true => index,
        false => ways - 1 - index,
    })
}

/// The one in the middle when they are in order.
pub fn middle(mut counts: Vec<f64>) -> f64 {
    counts.sort_by(f64::total_cmp);
    counts[counts.len() / 2]
}

/// Connections in a second, by all clients together, and microseconds of processor time for each. The clients' threads
/// are in the namespace of the calling one.
fn count_once(to: SocketAddr) -> Result<(f64, f64), String> {
    let (begun, before) = (Instant::now(), process::machine_time());
    let client = || -> Result<u64, String> {
        let mut opened = 0;
        while begun.elapsed() < COUNTED {
            bed::dial(to).map_err(|e| format!("no connection to {to}: {e}"))?;
            opened += 1;
        }
        Ok(opened)
    };
    let opened = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .map(|client| {
                client
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .sum::<Result<u64, String>>()
    })?;
    let spent = process::machine_time() - before;
    Ok((
        opened as f64 / begun.elapsed().as_secs_f64(),
        spent.as_secs_f64() * 1e6 / opened as f64,
    ))
}
