//! The threads of the relay. What a thread has begun stays with it, so that no thread wakes another one for a
//! connection that comes, says little and goes; who has more than another one hands its door on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

use crate::limits::AHEAD_MAX;

/// A thread, and how many connections and UDP clients it has.
struct Worker {
    handle: Handle,
    load: AtomicUsize,
}

/// All of them. They end when `stop` is cancelled.
pub(crate) struct Workers {
    all: Vec<Worker>,
    stop: CancellationToken,
}

/// The number of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Workers {
    /// Starts so many threads, at least one, in the network namespace of the calling one.
    pub fn start(threads: usize) -> io::Result<Arc<Self>> {
        let stop = CancellationToken::new();
        let mut all = Vec::new();
        for _ in 0..threads.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            all.push(Worker {
                handle: runtime.handle().clone(),
                load: AtomicUsize::new(0),
            });
            let stopped = stop.clone();
            let work = move || run(&runtime, &stopped);
            std::thread::Builder::new()
                .name("relay".into())
                .spawn(work)
                // Those that run already must not stay.
                .inspect_err(|_| stop.cancel())?;
        }
        Ok(Arc::new(Workers { all, stop }))
    }

    /// Ends all of them with everything that they have.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Where work is spawned.
    pub fn handle(&self, place: Place) -> &Handle {
        &self.all[place.0].handle
    }

    /// The one that has least.
    pub fn least(&self) -> Place {
        let loads = self.all.iter().map(|worker| worker.load.load(Relaxed));
        let least = loads.enumerate().min_by_key(|(_, load)| *load);
        Place(least.map_or(0, |(index, _)| index))
    }

    /// Who should take the next connection, if it should not be `here`.
    pub fn better(&self, here: Place) -> Option<Place> {
        let least = self.least();
        let load = |place: Place| self.all[place.0].load.load(Relaxed);
        (load(here) > load(least) + AHEAD_MAX).then_some(least)
    }

    /// Counts for `place` as long as it is held.
    pub fn load(self: &Arc<Self>, place: Place) -> Load {
        self.all[place.0].load.fetch_add(1, Relaxed);
        Load(Arc::clone(self), place)
    }
}

/// Something that a worker has to do.
pub(crate) struct Load(Arc<Workers>, Place);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.all[self.1.0].load.fetch_sub(1, Relaxed);
    }
}

fn run(runtime: &Runtime, stopped: &CancellationToken) {
    runtime.block_on(stopped.cancelled());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_more_hands_on() {
        let workers = Workers::start(3).unwrap();
        let here = workers.least();
        let mut held = Vec::new();
        for _ in 0..=AHEAD_MAX {
            assert_eq!(workers.better(here), None);
            held.push(workers.load(here));
        }
        let better = workers.better(here).unwrap();
        assert_ne!(better, here);
        held.push(workers.load(better));
        assert_ne!(workers.better(here), Some(better));
        held.clear();
        assert_eq!(workers.better(here), None);
        workers.stop();
    }
}
