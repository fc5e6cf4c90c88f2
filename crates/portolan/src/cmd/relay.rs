//! `portolan relay`: the relay of userspace mode as a process of its own, so that connections outlive the agent.
//!
//! ```text
//!   agent (portolan proxy) ──unix socket: Snapshot, doors──▶ relay ──▶ endpoints
//!          ◀── connections that begin, counts ──────────────   │
//!   killed, upgraded, started anew                             └─ goes on by what it was told last
//! ```
//!
//! The agent starts it; standard input is the socket at which it listens for its agent. It decides nothing: without an
//! agent it goes on by the newest Snapshot, tries the next endpoint when one does not answer, and ends only when it is
//! told to, or when it has given its doors away and its last connection has ended.

mod agent;

use std::num::NonZero;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use portolan_kernel::confine::{Capability, Needs, confine};
use portolan_kernel::{Conntrack, inherit, memory};
use portolan_relay::wire::{Draft, Hello, PROTOCOL};
use portolan_relay::{Limits, Relay, Unknown};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use agent::Agent;

/// Threads of the relay: one for each core, up to this. One moves some gigabits in a second.
const THREADS_MAX: usize = 8;

/// File descriptors that are asked for, kube-proxy's number and a little more: 19 661 connections and as many clients of
/// UDP.
const FILES_WANTED: u64 = 1 << 16;

/// How long doors stay open when their mode is over: a client whose first packet was on its way, or was lost, comes to
/// them after that. It repeats it after 1 s, and after 2 s more.
const DOORS_STAY: Duration = Duration::from_secs(5);

/// Time that passes after no agent could be heard.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections to endpoints that may wait to be told; more are not told of, and one of many is enough.
const DIALS_WAITING_MAX: usize = 512;

/// Arguments of `portolan relay`.
#[derive(clap::Args)]
pub struct Args {
    /// Rules of the kernel lead to the doors: ask conntrack where flows were going.
    #[arg(long)]
    portal: bool,
    /// Verbosity of the log.
    #[arg(long, default_value_t = 0)]
    verbosity: u32,
    /// Format of the log.
    #[arg(long, default_value = "text")]
    logging_format: String,
}

/// Runs until it is told to end.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    inherit::close_others(0).context("cannot close what is open")?;
    super::logging::start_with(args.verbosity, &args.logging_format);
    memory::share_heap();
    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    let control = UnixListener::from(stdin.context("standard input is not open")?);
    let here = control
        .local_addr()
        .context("standard input is no socket at which an agent can be heard")?;
    let directory = here.as_pathname().and_then(Path::parent);
    let needs = Needs {
        capabilities: args
            .portal
            .then_some(Capability::NetAdmin)
            .into_iter()
            .collect(),
        // The socket is taken away at the end.
        writable: directory.map(Into::into).into_iter().collect(),
        ..Needs::default()
    };
    confine(&needs).context("cannot give up privileges")?;
    let (dials_in, dials) = mpsc::channel(DIALS_WAITING_MAX);
    let (ended, end) = std::sync::mpsc::sync_channel(1);
    let relay = start(args.portal)?;
    relay.tell_dials(dials_in);
    let process = Arc::new(Process {
        counts: relay.counts(),
        state: Mutex::new(State {
            relay: Some(relay),
            draft: Draft::default(),
            retired: 0,
        }),
        agent: Agent::default(),
        control,
        clock: clock()?,
        ended,
    });
    end_on_signals(Arc::clone(&process))?;
    let telling = Arc::clone(&process);
    thread("relay tells", move || telling.tell(dials))?;
    thread("relay listens", move || process.listen())?;
    // Nothing comes when nobody can say it any more: that is an end, too.
    let _ = end.recv();
    tracing::info!("the relay ends");
    Ok(ExitCode::SUCCESS)
}

fn start(portal: bool) -> anyhow::Result<Relay> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = threads.min(THREADS_MAX);
    if !portal {
        return Ok(Relay::start(threads, limits(), Unknown)?);
    }
    let mut conntrack = Conntrack::open()?;
    let original = move |protocol, client, door| {
        let found = conntrack.original(protocol, client, door);
        found.map_err(|error| error.to_string())
    };
    Ok(Relay::start(threads, limits(), original)?)
}

/// What fits into the file descriptors that this process may have; as many as that is asked for.
fn limits() -> Limits {
    let files = super::proxy::raise_files(FILES_WANTED);
    match files {
        Ok(files) => Limits::for_files(files),
        Err(error) => {
            tracing::warn!(%error, "the relay has room for few connections only");
            Limits::for_files(1024)
        }
    }
}

/// This process.
struct Process {
    state: Mutex<State>,
    counts: portolan_relay::CountsOf,
    agent: Agent,
    control: UnixListener,
    /// For threads that wait.
    clock: Runtime,
    ended: SyncSender<()>,
}

struct State {
    /// `None` when its doors are given away, and it ends with its last connection.
    relay: Option<Relay>,
    draft: Draft,
    /// Counts up whenever it retires, or is adopted: who wants to close doors later knows whether that still holds.
    retired: u64,
}

impl Process {
    /// Hears everybody who comes, for ever.
    fn listen(self: &Arc<Self>) {
        loop {
            let heard = self.control.accept().and_then(|(stream, _)| {
                let process = Arc::clone(self);
                thread("relay hears", move || process.hear(stream))
            });
            if let Err(error) = heard {
                tracing::error!(%error, "an agent is not heard");
                self.wait(PAUSE);
            }
        }
    }

    /// Lets time pass.
    fn wait(&self, time: Duration) {
        let pass = async { tokio::time::sleep(time).await };
        self.clock.block_on(pass);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            program: program(),
            drains: self.lock().relay.is_none(),
        }
    }

    /// Its mode is over: doors close in a moment, unless an agent comes.
    fn retire(self: &Arc<Self>) {
        let number = {
            let mut state = self.lock();
            state.retired += 1;
            state.retired
        };
        let process = Arc::clone(self);
        let close = move || {
            process.wait(DOORS_STAY);
            if process.lock().retired == number {
                process.drain();
            }
        };
        if let Err(error) = thread("relay retires", close) {
            tracing::error!(%error, "the doors of the relay stay open");
        }
    }

    /// Closes its doors, and ends when its last connection has. Returns at once if it drains already.
    fn drain(&self) {
        let relay = self.lock().relay.take();
        if let Some(relay) = relay {
            tracing::info!("the relay takes no more connections, and ends with its last one");
            self.agent.leave();
            relay.drain();
            self.end();
        }
    }

    /// The process ends, and with it what is left of connections.
    fn end(&self) {
        if let Ok(address) = self.control.local_addr()
            && let Some(path) = address.as_pathname()
        {
            // Whoever finds it sees that nobody listens.
            let _ = std::fs::remove_file(path);
        }
        // An error: it ends already.
        let _ = self.ended.try_send(());
    }
}

/// Which program this is: its file, and when that was written.
pub(super) fn program() -> String {
    use std::os::unix::fs::MetadataExt;
    let version = env!("CARGO_PKG_VERSION");
    match std::fs::metadata("/proc/self/exe") {
        Ok(file) => format!(
            "{version} {}:{} {} {}.{}",
            file.dev(),
            file.ino(),
            file.size(),
            file.mtime(),
            file.mtime_nsec()
        ),
        Err(error) => format!("{version} ({error})"),
    }
}

/// A polite signal lets connections come to their end; the agent starts another relay meanwhile.
fn end_on_signals(process: Arc<Process>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = clock()?;
    let inside = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(inside);
    Ok(thread("relay signals", move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        process.drain();
    })?)
}

fn clock() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(work);
    spawned.map(drop)
}
