//! Two answerers share a port, and one after the other is killed under load: only what lay in the dead one may be lost,
//! and its successor's first answer must be right.
//!
//! ```text
//!   64 sockets, so many queries in a second ──▶ port 53 ─┬─▶ answerer 0     the kernel divides clients by their ports
//!                                                        └─▶ answerer 1
//!   killer: kill -9, gone; endpoints change; start; it listens; the other one …
//! ```

use std::collections::HashMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use portolan_testkit::program::{Api, PATIENCE, Process, request};
use portolan_testkit::wait;

use crate::Result;
use crate::bed::{self, LOST_AFTER};
use crate::fleet::{self, Fleet, Worth};

/// Services, of which some change while an answerer is away.
const SERVICES: u32 = 200;
const CHANGES: u32 = 20;
/// Clients.
const SOCKETS: usize = 64;
/// How often queries are sent: a few at a time.
const TICK: Duration = Duration::from_millis(1);
/// Between the start of one answerer and the end of the other.
const PAUSE: Duration = Duration::from_millis(700);
/// A query has its answer after this time, or lies in a process.
const FLIGHT: Duration = Duration::from_millis(10);
/// An answer may be as old as this.
const STALE_MAX: Duration = Duration::from_millis(100);

/// A query on its way.
struct Sent {
    service: u32,
    at: Instant,
}

/// All that was asked.
#[derive(Default)]
struct Seen {
    asked: u64,
    answered: u64,
    /// When queries were sent that got no answer.
    lost: Vec<Instant>,
    wrong: Vec<String>,
    stalest: Duration,
}

/// The end of one answerer.
struct Kill {
    at: Instant,
    gone: Instant,
    /// From the start of its successor until that one listens.
    listens: Duration,
}

/// Runs for so long; whether all was as it must.
pub fn run(seconds: u64, rate: u64) -> Result<bool> {
    let api = Api::start()?;
    let fleet = Fleet::new(SERVICES);
    api.create(fleet.objects())?;
    let mut answerers = Vec::new();
    for number in 0..2 {
        answerers.push(bed::answerer(&api, number)?);
    }
    let sockets = 2 * sockets_each();
    if !wait::until(PATIENCE, || listening() == sockets) {
        return Err(format!("{} of {sockets} sockets are there", listening()));
    }
    let done = AtomicBool::new(false);
    let (kills, seen) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&fleet, rate, &done));
        let kills = (|| {
            let (begun, mut kills) = (Instant::now(), Vec::new());
            let mut round = SERVICES;
            while begun.elapsed() < Duration::from_secs(seconds) {
                let number = kills.len() % 2;
                kills.push(kill(
                    &api,
                    &fleet,
                    &mut answerers[number],
                    number,
                    &mut round,
                )?);
                pause(PAUSE);
            }
            Ok::<_, String>(kills)
        })();
        done.store(true, Ordering::Relaxed);
        let seen = load
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (kills, seen)
    });
    Ok(tell(&kills?, &seen?))
}

/// Sockets at which one answerer listens: one for each of its threads, IPv4 only.
fn sockets_each() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// UDP sockets at port 53 of IPv4 in this namespace.
fn listening() -> usize {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap_or_default();
    let local = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1));
    local.filter(|local| local.ends_with(":0035")).count()
}

fn kill(
    api: &Api,
    fleet: &Fleet,
    answerer: &mut Process,
    number: usize,
    round: &mut u32,
) -> Result<Kill> {
    let at = Instant::now();
    answerer.kill()?;
    let gone = Instant::now();
    // What its successor has to know from its first answer on.
    for _ in 0..CHANGES {
        let service = *round % SERVICES;
        let (path, body) = fleet.begin(service, *round);
        api.runtime
            .block_on(request(&api.client, "PATCH", path, body))?;
        fleet.acknowledge(service, *round, Instant::now());
        *round += 1;
    }
    let started = Instant::now();
    *answerer = bed::answerer(api, number)?;
    if !wait::until(PATIENCE, || listening() == 2 * sockets_each()) {
        return Err("the successor does not listen".into());
    }
    Ok(Kill {
        at,
        gone,
        listens: started.elapsed(),
    })
}

/// Time passes; nothing depends on how much.
fn pause(time: Duration) {
    wait::until(time, || false);
}

/// Asks until it is told to stop, and then waits for the last answers.
fn load(fleet: &Fleet, rate: u64, done: &AtomicBool) -> Result<Seen> {
    let mut clients = Vec::new();
    for _ in 0..SOCKETS {
        let socket = bed::socket()?;
        socket.set_nonblocking(true).map_err(|e| e.to_string())?;
        clients.push(Client {
            socket,
            number: 0,
            sent: HashMap::new(),
        });
    }
    let queries: Vec<Vec<u8>> = (0..SERVICES).map(fleet::query).collect();
    let (_never, clock) = sync_channel::<()>(0);
    let (begun, mut seen) = (Instant::now(), Seen::default());
    let mut end = None;
    while end.is_none_or(|end| Instant::now() < end) {
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        while end.is_none() && seen.asked < due {
            let client = &mut clients[(seen.asked % SOCKETS as u64) as usize];
            client.ask(&queries, (seen.asked % u64::from(SERVICES)) as u32);
            seen.asked += 1;
        }
        clients
            .iter_mut()
            .for_each(|client| client.take(fleet, &mut seen));
        if done.load(Ordering::Relaxed) && end.is_none() {
            end = Some(Instant::now() + LOST_AFTER);
        }
        let _ = clock.recv_timeout(TICK);
    }
    let left = clients.iter().flat_map(|client| client.sent.values());
    seen.lost.extend(left.map(|sent| sent.at));
    Ok(seen)
}

struct Client {
    socket: UdpSocket,
    number: u16,
    sent: HashMap<u16, Sent>,
}

impl Client {
    fn ask(&mut self, queries: &[Vec<u8>], service: u32) {
        self.number = self.number.wrapping_add(1);
        let mut query = queries[service as usize].clone();
        query[..2].copy_from_slice(&self.number.to_be_bytes());
        let at = Instant::now();
        // A refusal of before is told here: the query is lost, which will be seen.
        if self.socket.send(&query).is_err() {
            let _ = self.socket.send(&query);
        }
        self.sent.insert(self.number, Sent { service, at });
    }

    /// Takes all answers that are there.
    fn take(&mut self, fleet: &Fleet, seen: &mut Seen) {
        let mut answer = [0; 1500];
        while let Ok(length) = self.socket.recv(&mut answer) {
            let number = u16::from_be_bytes([answer[0], answer[1]]);
            let Some(sent) = self.sent.remove(&number) else {
                continue;
            };
            seen.answered += 1;
            match fleet.judge(sent.service, sent.at, &answer[..length]) {
                Worth::Right(_) => {}
                Worth::Stale(_, age) => seen.stalest = seen.stalest.max(age),
                Worth::Wrong(words) => seen.wrong.push(words),
            }
        }
        // Numbers come again after more than a minute at most; what is as old as that is lost.
        let lost: Vec<u16> = self
            .sent
            .iter()
            .filter(|(_, sent)| sent.at.elapsed() > LOST_AFTER * 2)
            .map(|(number, _)| *number)
            .collect();
        for number in lost {
            seen.lost
                .extend(self.sent.remove(&number).map(|sent| sent.at));
        }
    }
}

fn tell(kills: &[Kill], seen: &Seen) -> bool {
    // Sent while it died, or a moment before: it lay in that process.
    let is_of = |kill: &Kill, at: &Instant| *at + FLIGHT >= kill.at && *at <= kill.gone;
    let of = |kill: &Kill| seen.lost.iter().filter(|at| is_of(kill, at)).count();
    let in_flight: Vec<usize> = kills.iter().map(of).collect();
    let others = seen.lost.len() - in_flight.iter().sum::<usize>();
    let times = |time: fn(&Kill) -> Duration| {
        let mut all: Vec<f64> = kills
            .iter()
            .map(|kill| time(kill).as_secs_f64() * 1e3)
            .collect();
        all.sort_by(f64::total_cmp);
        format!(
            "{:.1} ms in the middle, {:.1} ms at most",
            all[all.len() / 2],
            all[all.len() - 1]
        )
    };
    println!(
        "kills: {} times kill -9; {} queries, {} answered, {} wrong",
        kills.len(),
        seen.asked,
        seen.answered,
        seen.wrong.len()
    );
    seen.wrong
        .iter()
        .take(5)
        .for_each(|wrong| println!("kills: wrong: {wrong}"));
    println!(
        "kills: {} queries were lost, {} at most with one process; {others} of them were not sent while it died",
        seen.lost.len(),
        in_flight.iter().max().copied().unwrap_or_default()
    );
    println!(
        "kills: from kill to the end of its sockets: {}",
        times(|kill| kill.gone - kill.at)
    );
    println!(
        "kills: from the start of a successor until it listens: {}",
        times(|kill| kill.listens)
    );
    println!(
        "kills: the stalest answer was {:.2} ms old",
        seen.stalest.as_secs_f64() * 1e3
    );
    let all = [
        (
            "queries were lost that lay in no dying process",
            others == 0,
        ),
        ("answers were wrong", seen.wrong.is_empty()),
        ("answers were staler than 100 ms", seen.stalest <= STALE_MAX),
    ];
    all.iter()
        .filter(|(_, holds)| !holds)
        .for_each(|(words, _)| println!("kills: FAILED: {words}"));
    all.iter().all(|(_, holds)| *holds)
}
