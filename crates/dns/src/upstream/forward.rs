//! One `forward` of a Corefile: which server is asked, and what happens when it fails.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::server::Server;
use super::tls::TlsError;
use super::{Ask, DEADLINE, Failure, check};
use crate::corefile::Zone;
use crate::corefile::plugin::forward::{Forward as Options, Order, To, UPSTREAMS_MAX};
use crate::message::Message;
use crate::wire::rcode;

/// Queries at a time of a `forward` that names no number: at 5 s each, and with a socket for each, more would only be
/// a longer queue. Most processes may have 1 048 576 files open in a container.
pub const CONCURRENT_DEFAULT: usize = 10_000;

/// Servers of the policy `parallel` that are asked at a time.
const PARALLEL: usize = 2;

/// Why there is no answer.
#[derive(Debug)]
pub enum Failed {
    /// Too many queries wait for their answers: REFUSED.
    Busy,
    /// What the last server said, or why none did: SERVFAIL.
    Servers(Vec<(String, Failure)>),
}

/// What came, and from whom.
#[derive(Debug)]
pub struct Report {
    /// The answer.
    pub message: Message,
    /// Who gave it.
    pub server: String,
}

/// Servers for the names below one zone.
pub struct Forward {
    /// What the file says.
    pub options: Options,
    servers: Vec<Arc<Server>>,
    turn: AtomicUsize,
    /// For queries that wait.
    pub(super) room: Semaphore,
    /// Queries that found no room.
    pub rejected: AtomicU64,
    /// Queries that found all servers down.
    pub broken: AtomicU64,
    /// Watch the servers; end with us.
    _checks: JoinSet<()>,
}

impl Forward {
    /// Sets up the servers. Must be called inside tokio's runtime. `find_loops`: whether the block has `loop`.
    pub fn new(options: &Options, find_loops: bool) -> Result<Forward, TlsError> {
        let mut servers = Vec::new();
        for to in with_files(&options.to)?.iter().take(UPSTREAMS_MAX) {
            servers.push(Arc::new(Server::new(to, options)?));
        }
        let mut checks = JoinSet::new();
        for server in &servers {
            checks.spawn(check::watch(Arc::clone(server), options.check.clone()));
            if find_loops {
                checks.spawn(check::find_loop(Arc::clone(server)));
            }
        }
        let room = match options.concurrent_max {
            0 => CONCURRENT_DEFAULT,
            max => max,
        };
        Ok(Forward {
            options: options.clone(),
            servers,
            turn: AtomicUsize::new(0),
            room: Semaphore::new(room),
            rejected: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            _checks: checks,
        })
    }

    /// Whether names such as this one (absolute, in small letters) are for these servers.
    pub fn takes(&self, name: &str) -> bool {
        let holds = |zone: &Zone| zone.holds(name);
        holds(&self.options.from) && !self.options.except.iter().any(holds)
    }

    /// Whether the next `forward` is asked after such an answer.
    pub fn passes(&self, message: &Message) -> bool {
        let options = &self.options;
        options.next.contains(&message.rcode) || options.next_on_nodata && message.is_nodata()
    }

    /// The servers.
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// A query for this name is one of ours that has come back: its server is left out from now on.
    pub fn is_token(&self, name: &str) -> bool {
        let Some(server) = self.servers.iter().find(|server| server.token == name) else {
            return false;
        };
        if !server.looping.swap(true, Ordering::Relaxed) {
            let server = &server.label;
            tracing::error!(
                server,
                "it sends our own queries back to us: it is not asked any more"
            );
        }
        true
    }

    /// Asks until a server answers, for [`DEADLINE`] at most.
    pub async fn ask(&self, ask: &Ask) -> Result<Report, Failed> {
        let Ok(_place) = self.room.try_acquire() else {
            self.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(Failed::Busy);
        };
        let deadline = Instant::now() + DEADLINE;
        let list = self.list();
        let mut failed = Vec::new();
        let mut last = None;
        let width = match self.options.policy {
            Order::Parallel => PARALLEL,
            _ => 1,
        };
        for servers in list.chunks(width) {
            match timeout_at(deadline, first_of(servers, ask)).await {
                Ok(Ok(report)) if self.is_final(&report.message) => return Ok(report),
                Ok(Ok(report)) => last = Some(report),
                Ok(Err(failures)) => failed.extend(failures),
                Err(_) => {
                    let slow = servers
                        .iter()
                        .map(|server| (server.label.clone(), Failure::Timeout(DEADLINE)));
                    failed.extend(slow);
                    break;
                }
            }
        }
        last.ok_or(Failed::Servers(failed))
    }

    /// SERVFAIL of one server is not the last word while there are others, nor is what `failover` names.
    fn is_final(&self, message: &Message) -> bool {
        message.rcode != rcode::SERVFAIL && !self.options.failover.contains(&message.rcode)
    }

    /// The servers in the order of the policy, those that are well; when all are down, one at random, for it may be
    /// that only our checks fail.
    fn list(&self) -> Vec<Arc<Server>> {
        let mut list: Vec<Arc<Server>> = self.servers.to_vec();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match self.options.policy {
            Order::Random | Order::Parallel => fastrand::shuffle(&mut list),
            Order::RoundRobin if !list.is_empty() => {
                let first = turn % list.len();
                list.rotate_left(first);
            }
            Order::RoundRobin | Order::Sequential => {}
        }
        let fails_max = self.options.max_fails;
        let well: Vec<_> = list
            .iter()
            .filter(|server| !server.is_down(fails_max))
            .cloned()
            .collect();
        let mut chosen = match (well.is_empty(), self.options.fail_fast) {
            (false, _) => well,
            (true, true) => Vec::new(),
            (true, false) => {
                self.broken.fetch_add(1, Ordering::Relaxed);
                list.retain(|server| !server.is_looping());
                list.truncate(1);
                list
            }
        };
        if self.options.attempts_max > 0 {
            chosen.truncate(self.options.attempts_max as usize);
        }
        chosen
    }
}

/// The first answer of several servers that are asked at the same time.
async fn first_of(servers: &[Arc<Server>], ask: &Ask) -> Result<Report, Vec<(String, Failure)>> {
    if let [server] = servers {
        return one(Arc::clone(server), ask.clone())
            .await
            .map_err(|failure| vec![failure]);
    }
    let mut asking = JoinSet::new();
    for server in servers {
        asking.spawn(one(Arc::clone(server), ask.clone()));
    }
    let mut failed = Vec::new();
    let mut refused = None;
    while let Some(done) = asking.join_next().await {
        match done {
            Ok(Ok(report)) if report.message.rcode == rcode::SERVFAIL => refused = Some(report),
            Ok(Ok(report)) => return Ok(report),
            Ok(Err(failure)) => failed.push(failure),
            Err(_) => {}
        }
    }
    refused.ok_or(failed)
}

async fn one(server: Arc<Server>, ask: Ask) -> Result<Report, (String, Failure)> {
    match server.ask(&ask).await {
        Ok(message) => {
            // A SERVFAIL is an answer, but maybe the sign of a server that is ill: the check finds out.
            if message.rcode == rcode::SERVFAIL {
                server.failed.notify_one();
            }
            let server = server.label.clone();
            Ok(Report { message, server })
        }
        Err(failure) => Err((server.label.clone(), failure)),
    }
}

/// Files become the servers that they name.
fn with_files(to: &[To]) -> Result<Vec<To>, TlsError> {
    let mut all = Vec::new();
    for to in to {
        match to {
            To::File(path) => all.extend(read_resolv_conf(path)?.0.into_iter().map(To::Dns)),
            other => all.push(other.clone()),
        }
    }
    Ok(all)
}

/// Servers and search path of a resolv.conf(5).
pub fn read_resolv_conf(path: &Path) -> Result<(Vec<std::net::SocketAddr>, Vec<String>), TlsError> {
    let wrong = |words: String| TlsError::File {
        path: path.to_path_buf(),
        words,
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let address = words.next().unwrap_or_default();
                let bare = address.split('%').next().unwrap_or_default();
                let found: std::net::IpAddr = bare
                    .parse()
                    .map_err(|_| wrong(format!("{address:?} is no address of a nameserver")))?;
                servers.push(std::net::SocketAddr::new(found, 53));
            }
            // The last line of both counts.
            Some("search" | "domain") => search = words.map(str::to_string).collect(),
            _ => {}
        }
    }
    Ok((servers, search))
}
