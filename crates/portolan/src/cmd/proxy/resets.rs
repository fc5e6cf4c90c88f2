//! `--reset-gone-connections`: TCP connections to endpoints that are gone for good are reset, on a thread of their own,
//! because a look through all connections may take longer than a change of rules may wait.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use portolan_kernel::conntrack::Doomed;
use portolan_kernel::nft::Ends;
use portolan_kernel::{Conntrack, Resets};
use portolan_model::reset::{Gone, Look, OVER_AFTER, Resetter, Resetting};
use portolan_model::{ApplyError, Snapshot};
use tokio::sync::watch;

use super::metrics::Telemetry;
use super::waiting;

/// Connections that are being reset at a time: a few megabytes of ours and of the kernel's. Others come after them.
const AT_A_TIME_MAX: usize = 16_384;

/// The thread's belongings.
pub(super) struct Worker {
    conntrack: Conntrack,
    resets: Resets,
    resetter: Resetter,
    resetting: Resetting<Ends>,
    /// What stands in the kernel.
    standing: watch::Receiver<Option<Snapshot>>,
    telemetry: Arc<Telemetry>,
}

impl Worker {
    /// For the network namespace that the calling thread is in.
    pub(super) fn open(
        standing: watch::Receiver<Option<Snapshot>>,
        telemetry: Arc<Telemetry>,
    ) -> anyhow::Result<Self> {
        let needs = "--reset-gone-connections needs CAP_NET_ADMIN and CAP_NET_RAW";
        Ok(Worker {
            conntrack: Conntrack::open()?,
            resets: Resets::open().context(needs)?,
            resetter: Resetter::default(),
            resetting: Resetting::default(),
            standing,
            telemetry,
        })
    }

    /// Works until nothing can stand any more.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        let runtime = waiting()?;
        let start = Instant::now();
        loop {
            let due = [self.resetter.due(), self.resetting.due()];
            let due = due.into_iter().flatten().min();
            let due = due.map(|due| due.saturating_sub(start.elapsed()));
            let changed = runtime.block_on(async {
                let changed = self.standing.changed();
                match due {
                    None => changed.await.map(|()| true),
                    Some(due) => tokio::time::timeout(due, changed)
                        .await
                        .map_or(Ok(false), |changed| changed.map(|()| true)),
                }
            });
            match changed {
                Err(_) => return Ok(()),
                Ok(false) => {}
                Ok(true) => {
                    if let Some(snapshot) = &*self.standing.borrow_and_update() {
                        self.resetter.on_stands(start.elapsed(), snapshot);
                    }
                }
            }
            self.look(start);
            self.provoke(start);
        }
    }

    fn look(&mut self, start: Instant) {
        let began = Instant::now();
        let Some(gone) = self.resetter.begin(start.elapsed()) else {
            return;
        };
        let mut doomed = Vec::new();
        let at_sockets = self.telemetry.sockets.reset(|c| gone.fate(c));
        let result = self.reset(&gone, start.elapsed(), &mut doomed);
        let (ended, result) = match at_sockets {
            Ok(ended) => (ended as usize, result),
            Err(error) => (0, Err(error)),
        };
        let took = began.elapsed();
        let look = match &result {
            Ok(true) => Look::Whole,
            Ok(false) => Look::Part,
            Err(_) => Look::Failed,
        };
        self.resetter.end(start.elapsed(), took, look);
        self.telemetry.reset(doomed.len() + ended, look);
        match result {
            Ok(_) => tracing::debug!(
                count = doomed.len() + ended,
                ?took,
                "gone connections reset"
            ),
            Err(error) => {
                tracing::error!(%error, "gone connections may live on, trying again");
            }
        }
    }

    fn reset(
        &mut self,
        gone: &Gone,
        now: Duration,
        doomed: &mut Vec<Doomed>,
    ) -> Result<bool, ApplyError> {
        let room = AT_A_TIME_MAX.saturating_sub(self.resetting.len());
        let fate = |connection: &_| gone.fate(connection);
        let whole = self.conntrack.connections(fate, room, doomed)?;
        let addresses: &BTreeSet<IpAddr> = &gone.now().node().addresses;
        let rest = self.resets.begin(doomed, addresses, OVER_AFTER)?;
        self.resetting.add(now, rest);
        for doomed in doomed {
            self.conntrack.forget(doomed)?;
        }
        Ok(whole)
    }

    fn provoke(&mut self, start: Instant) {
        let before = self.resetting.len();
        for due in self.resetting.step(start.elapsed()) {
            if let Err(error) = self.resets.provoke(&due.whom, due.round) {
                tracing::debug!(%error, "a client could not be provoked");
            }
        }
        if before > 0
            && self.resetting.is_empty()
            && let Err(error) = self.resets.end()
        {
            tracing::warn!(%error, "rules that reset connections are left");
        }
    }
}
