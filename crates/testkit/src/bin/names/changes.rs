//! Endpoints change, so many in a second, and answers are looked at: how long until a change is in them, is any of them
//! older than it may be, is a query without an answer?
//!
//! ```text
//!   writer ──PATCH──▶ API ──watch──▶ answerer ◀──── prober: each change, until it is in the answer
//!                      └────watch──▶ hearer      ◀─ asker: any Service, all the time
//! ```

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use portolan_k8s::watch::{Event, Filter, watch};
use portolan_k8s::wire::EndpointSlice;
use portolan_testkit::program::{Api, PATIENCE, WRITES_MAX, request};
use portolan_testkit::wait;

use crate::Result;
use crate::bed::{self, LOST_AFTER};
use crate::fleet::{self, Fleet, Worth};

/// Services; each changes once in a second at a thousand changes.
const SERVICES: u32 = 1_000;
/// No answer may be older.
const STALE_MAX: Duration = Duration::from_millis(100);
/// Changes that wait for the prober.
const PROBES_MAX: usize = 16_384;
/// Between two looks at the changes that are not in the answers yet.
const LOOK: Duration = Duration::from_micros(200);
/// Between two questions of the asker.
const PACE: Duration = Duration::from_micros(400);

/// A change that is written.
struct Written {
    service: u32,
    round: u32,
    at: Instant,
}

/// Times, and what went wrong.
#[derive(Default)]
struct Seen {
    asked: u64,
    lost: u64,
    wrong: Vec<String>,
    /// From the acknowledgement of a change to the first answer with it.
    since_written: Vec<Duration>,
    /// From the moment at which another watch heard of it.
    since_heard: Vec<Duration>,
    /// How old answers were that did not know a change.
    stale: Vec<Duration>,
}

/// Runs for so long; whether all was as it must.
pub fn run(seconds: u64, rate: u64) -> Result<bool> {
    let api = Api::start()?;
    let fleet = Fleet::new(SERVICES);
    api.create(fleet.objects())?;
    let _answerer = bed::answerer(&api, 0)?;
    let mut first = Client::new(&fleet)?;
    if !wait::until(PATIENCE, || first.ask(SERVICES - 1).is_some()) {
        return Err("the answerer does not answer".into());
    }
    let (tell, told) = sync_channel(PROBES_MAX);
    let done = AtomicBool::new(false);
    let kubeconfig = api.kubeconfig();
    let (written, probed, asked) = std::thread::scope(|scope| {
        scope.spawn(|| hear(&kubeconfig, &fleet, &done));
        let prober = scope.spawn(|| probe(&fleet, told));
        let asker = scope.spawn(|| ask_on(&fleet, &done));
        let written = write(&api, &fleet, seconds, rate, tell);
        done.store(true, Ordering::Relaxed);
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Seen>>| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (written, join(prober), join(asker))
    });
    Ok(tell_all(written?, rate, probed?, asked?))
}

/// Writes changes at their pace; says how many, and in what time.
fn write(
    api: &Api,
    fleet: &Fleet,
    seconds: u64,
    rate: u64,
    tell: SyncSender<Written>,
) -> Result<(u64, Duration)> {
    let begun = Instant::now();
    let count = seconds * rate;
    let writes = async {
        let clock = tokio::time::interval(Duration::from_secs(1).div_f64(rate as f64));
        let ticks = stream::unfold((clock, 0), |(mut clock, number)| async move {
            clock.tick().await;
            Some((number, (clock, number + 1)))
        });
        let write = |number: u64| {
            let tell = tell.clone();
            async move {
                let round = SERVICES + number as u32;
                // Each Service comes once in a round of all: 7919 has no divisor in common with their number.
                let service = (number * 7919 % u64::from(SERVICES)) as u32;
                let (path, body) = fleet.begin(service, round);
                request(&api.client, "PATCH", path, body).await?;
                let at = Instant::now();
                fleet.acknowledge(service, round, at);
                tell.try_send(Written { service, round, at })
                    .map_err(|_| "the prober is too slow".to_owned())
            }
        };
        let done = ticks
            .take(count as usize)
            .map(write)
            .buffer_unordered(WRITES_MAX);
        done.collect::<Vec<Result<()>>>().await
    };
    let results = api.runtime.block_on(writes);
    results.into_iter().collect::<Result<()>>()?;
    Ok((count, begun.elapsed()))
}

/// Another watch: when does the API tell of a change?
fn hear(kubeconfig: &std::path::Path, fleet: &Fleet, done: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let Ok(client) = portolan_k8s::client(Some(kubeconfig)).await else {
            return;
        };
        let mut events = std::pin::pin!(watch(
            kube::Api::<EndpointSlice>::all(client),
            Filter::default()
        ));
        while !done.load(Ordering::Relaxed) {
            let event = tokio::time::timeout(LOST_AFTER, events.next()).await;
            let Ok(Some(Event::Apply(slice))) = event else {
                continue;
            };
            let at = Instant::now();
            let first = slice.endpoints.iter().flatten().next();
            let address = first.and_then(|first| first.addresses.as_ref()?.first()?.parse().ok());
            if let (Some(name), Some(address)) = (&slice.metadata.name, address) {
                fleet.hear(name, address, at);
            }
        }
    });
}

/// Asks for every change until it is in the answer.
fn probe(fleet: &Fleet, told: Receiver<Written>) -> Result<Seen> {
    let mut client = Client::new(fleet)?;
    let mut pending: Vec<Written> = Vec::new();
    loop {
        let wait = if pending.is_empty() { LOST_AFTER } else { LOOK };
        match told.recv_timeout(wait) {
            Ok(written) => pending.push(written),
            Err(RecvTimeoutError::Disconnected) if pending.is_empty() => break,
            Err(_) => {}
        }
        pending.extend(told.try_iter());
        pending.retain(|written| {
            let is_in = client
                .ask(written.service)
                .is_some_and(|round| round >= written.round);
            let now = Instant::now();
            let since = now.duration_since(written.at);
            if is_in || since > LOST_AFTER {
                client.seen.since_written.push(since);
                // What is in an answer before others hear of it is not late.
                let heard = fleet.heard(written.service, written.round).unwrap_or(now);
                client.seen.since_heard.push(now.duration_since(heard));
            }
            !is_in && since <= LOST_AFTER
        });
    }
    Ok(client.seen)
}

/// Asks for any Service, all the time.
fn ask_on(fleet: &Fleet, done: &AtomicBool) -> Result<Seen> {
    let mut client = Client::new(fleet)?;
    let (_never, pace) = sync_channel::<()>(0);
    while !done.load(Ordering::Relaxed) {
        client.ask(fastrand::u32(0..SERVICES));
        let _ = pace.recv_timeout(PACE);
    }
    Ok(client.seen)
}

/// One socket, and what its answers were worth.
struct Client<'a> {
    fleet: &'a Fleet,
    socket: UdpSocket,
    queries: Vec<Vec<u8>>,
    number: u16,
    seen: Seen,
}

impl<'a> Client<'a> {
    fn new(fleet: &'a Fleet) -> Result<Client<'a>> {
        let queries = (0..fleet.len()).map(fleet::query).collect();
        Ok(Client {
            fleet,
            socket: bed::socket()?,
            queries,
            number: 0,
            seen: Seen::default(),
        })
    }

    /// The change that the answer for a Service knows.
    fn ask(&mut self, service: u32) -> Option<u32> {
        self.number = self.number.wrapping_add(1);
        let query = &mut self.queries[service as usize];
        query[..2].copy_from_slice(&self.number.to_be_bytes());
        let asked = Instant::now();
        self.seen.asked += 1;
        let mut answer = [0; 1500];
        let _ = self.socket.send(query);
        let length = loop {
            match self.socket.recv(&mut answer) {
                // An answer to a query that was given up.
                Ok(length) if answer[..2] != query[..2] || length < 12 => {}
                Ok(length) => break length,
                Err(_) => {
                    self.seen.lost += 1;
                    return None;
                }
            }
        };
        match self.fleet.judge(service, asked, &answer[..length]) {
            Worth::Right(round) => Some(round),
            Worth::Stale(round, age) => {
                self.seen.stale.push(age);
                Some(round)
            }
            Worth::Wrong(words) => {
                self.seen.wrong.push(words);
                None
            }
        }
    }
}

fn tell_all((count, took): (u64, Duration), rate: u64, probed: Seen, asked: Seen) -> bool {
    let reached = count as f64 / took.as_secs_f64();
    let (queries, lost) = (probed.asked + asked.asked, probed.lost + asked.lost);
    let wrong: Vec<&String> = probed.wrong.iter().chain(&asked.wrong).collect();
    let stale: Vec<Duration> = probed.stale.iter().chain(&asked.stale).copied().collect();
    println!(
        "changes: {count} in {:.0} s, {reached:.0} a second",
        took.as_secs_f64()
    );
    println!(
        "changes: {queries} queries, {lost} without an answer, {} wrong",
        wrong.len()
    );
    wrong
        .iter()
        .take(5)
        .for_each(|wrong| println!("changes: wrong: {wrong}"));
    times(
        "from the API's acknowledgement to an answer with the change",
        &probed.since_written,
    );
    times(
        "from another watch's event to an answer with the change",
        &probed.since_heard,
    );
    times("how old an answer was that did not know a change", &stale);
    let longest = probed
        .since_written
        .iter()
        .chain(&stale)
        .max()
        .copied()
        .unwrap_or_default();
    let all = [
        (
            "fewer changes than asked for",
            reached >= rate as f64 * 0.98,
        ),
        ("queries were lost", lost == 0),
        ("answers were wrong", wrong.is_empty()),
        ("answers were staler than 100 ms", longest <= STALE_MAX),
    ];
    all.iter()
        .filter(|(_, holds)| !holds)
        .for_each(|(words, _)| println!("changes: FAILED: {words}"));
    all.iter().all(|(_, holds)| *holds)
}

fn times(what: &str, times: &[Duration]) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |share: f64| {
        let index = (sorted.len() as f64 * share).ceil() as usize;
        sorted
            .get(index.max(1) - 1)
            .map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    println!(
        "changes: {what}: {} times, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
        sorted.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}
