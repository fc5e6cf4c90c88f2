//! Userspace mode as the proxy runs it: the portal's rules, and a relay with as much room as this process may have.

use std::num::NonZero;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use portolan_dataplane::nftables::{Portal, PortalTarget};
use portolan_kernel::{Conntrack, NftTarget};
use portolan_model::{ApplyError, Backend, Target};
use portolan_relay::{Dial, Limits, Ops, Relay, RelayError, RelayTarget, State, Userspace};
use tokio::sync::mpsc;

use super::metrics::Telemetry;

/// Threads of the relay: one for each core, up to this. One moves some gigabits in a second.
const THREADS_MAX: usize = 8;

/// File descriptors that are asked for, kube-proxy's number and a little more: 19 661 connections and as many clients of
/// UDP.
const FILES_WANTED: u64 = 1 << 16;

/// How long the doors of a relay stay open when its mode is over: a client whose first packet was on its way, or was
/// lost, comes to them after that. It repeats it after 1 s, and after 2 s more.
const DOORS_STAY: Duration = Duration::from_secs(5);

/// What both halves go by.
pub(super) fn backend() -> Userspace<Portal> {
    Userspace::default()
}

/// The relay of this process: in use, or retired with its doors open, so that the mode can come back to it.
pub(super) struct Relays {
    /// Who hears of connections to endpoints.
    dials: mpsc::Sender<Dial>,
    retired: Arc<Retired>,
}

/// A relay whose mode is over, and when its doors close.
#[derive(Default)]
struct Retired {
    relay: Mutex<Option<(Relay, Instant)>>,
    taken: Condvar,
}

impl Retired {
    fn lock(&self) -> MutexGuard<'_, Option<(Relay, Instant)>> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a mode that comes back to it.
    fn take(&self) -> Option<Relay> {
        let (relay, _) = self.lock().take()?;
        self.taken.notify_all();
        Some(relay)
    }

    /// Ends it when its time has come. When the mode has come back to it meanwhile, whoever retires it again sees to it.
    fn drain(&self) {
        let stays = |relay: &mut Option<(Relay, Instant)>| relay.is_some();
        let waited = self
            .taken
            .wait_timeout_while(self.lock(), DOORS_STAY, stays);
        let (mut relay, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let over = relay.take_if(|(_, close)| *close <= Instant::now());
        drop(relay);
        if let Some((relay, _)) = over {
            relay.drain();
        }
    }
}

impl Relays {
    /// There is none yet.
    pub(super) fn new(dials: mpsc::Sender<Dial>) -> Self {
        let retired = Arc::default();
        Relays { dials, retired }
    }

    /// The target of this mode, in the network namespace of the calling thread. The metrics get what it counts.
    pub(super) fn open(&self, telemetry: &Telemetry) -> Result<Lasting, ApplyError> {
        let portal = PortalTarget(NftTarget::open()?);
        let relay = match self.retired.take() {
            Some(relay) => relay,
            None => start()?,
        };
        relay.tell_dials(self.dials.clone());
        telemetry.relays(relay.counts());
        let target = RelayTarget {
            portal,
            relay,
            doors: backend().doors,
        };
        Ok(Lasting {
            target: Some(target),
            retired: Arc::clone(&self.retired),
        })
    }
}

fn start() -> Result<Relay, ApplyError> {
    let mut conntrack = Conntrack::open()?;
    let original = move |protocol, client, door| {
        let found = conntrack.original(protocol, client, door);
        found.map_err(|error| error.to_string())
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let relay = Relay::start(threads.min(THREADS_MAX), limits(), original);
    relay.map_err(told)
}

fn told(error: RelayError) -> ApplyError {
    ApplyError {
        doing: error.doing(),
        words: error.words(),
    }
}

/// What fits into the file descriptors that this process may have; as many as that is asked for.
fn limits() -> Limits {
    let files = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = FILES_WANTED.min(hard).max(soft);
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
        Ok(wanted)
    });
    match files {
        Ok(files) => Limits::for_files(files),
        Err(error) => {
            tracing::warn!(%error, "the relay has room for few connections only");
            Limits::for_files(1024)
        }
    }
}

/// A relay whose connections go on when its mode is not wanted any more; when the process ends, they do.
pub(super) struct Lasting {
    target: Option<RelayTarget<PortalTarget<NftTarget>>>,
    retired: Arc<Retired>,
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let Some(target) = self.target.take() else {
            return;
        };
        *self.retired.lock() = Some((target.relay, Instant::now() + DOORS_STAY));
        let retired = Arc::clone(&self.retired);
        let draining = std::thread::Builder::new().name("relay drains".into());
        if let Err(error) = draining.spawn(move || retired.drain()) {
            tracing::error!(%error, "connections through the relay end now");
            drop(self.retired.take());
        }
    }
}

impl Target<Userspace<Portal>> for Lasting {
    fn apply(&mut self, ops: &Ops<<Portal as Backend>::Ops>) -> Result<(), ApplyError> {
        self.inner().apply(ops)
    }

    fn read(&mut self) -> Result<Option<State<<Portal as Backend>::State>>, ApplyError> {
        self.inner().read()
    }

    fn unchanged(&mut self) -> Result<bool, ApplyError> {
        self.inner().unchanged()
    }
}

impl Lasting {
    fn inner(&mut self) -> &mut RelayTarget<PortalTarget<NftTarget>> {
        self.target
            .as_mut()
            .expect("invariant: it is taken when it is dropped only")
    }
}
