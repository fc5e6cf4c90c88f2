//! Userspace mode as the proxy runs it: the portal's rules, and a relay with as much room as this process may have.

use std::num::NonZero;

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

/// What both halves go by.
pub(super) fn backend() -> Userspace<Portal> {
    Userspace::default()
}

/// The target of this mode, in the network namespace of the calling thread. It tells `dials` of connections to endpoints,
/// and the metrics what it counts.
pub(super) fn open(
    dials: mpsc::Sender<Dial>,
    telemetry: &Telemetry,
) -> Result<Lasting, ApplyError> {
    let portal = PortalTarget(NftTarget::open()?);
    let mut conntrack = Conntrack::open()?;
    let original = move |protocol, client, door| {
        let found = conntrack.original(protocol, client, door);
        found.map_err(|error| error.to_string())
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let relay = Relay::start(threads.min(THREADS_MAX), limits(), original);
    let relay = relay.map_err(told)?;
    relay.tell_dials(dials);
    telemetry.relays(relay.counts());
    let doors = backend().doors;
    Ok(Lasting(Some(RelayTarget {
        portal,
        relay,
        doors,
    })))
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
pub(super) struct Lasting(Option<RelayTarget<PortalTarget<NftTarget>>>);

impl Drop for Lasting {
    fn drop(&mut self) {
        let Some(target) = self.0.take() else { return };
        let draining = std::thread::Builder::new().name("relay drains".into());
        if let Err(error) = draining.spawn(move || target.relay.drain()) {
            tracing::error!(%error, "connections through the relay end now");
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
        self.0
            .as_mut()
            .expect("invariant: it is taken when it is dropped only")
    }
}
