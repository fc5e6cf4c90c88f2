//! The half that does the I/O: the kernel's rules by the portal's target, and the relay.

use std::collections::BTreeSet;

use portolan_model::{ApplyError, Backend, Doors, Snapshot, Target};

use crate::backend::{Ops, State, Userspace};
use crate::relay::{Door, Relay};

/// A relay, in this process or in another one.
pub trait Carrier {
    /// From now on new flows go by `snapshot`.
    fn replace(&mut self, snapshot: &Snapshot) -> Result<(), ApplyError>;
    /// Makes exactly these doors stand.
    fn open_doors(&mut self, wanted: Vec<Door>) -> Result<(), ApplyError>;
    /// Opens of these doors those that can be opened, and closes all others; says which could not.
    fn open_each(&mut self, wanted: &BTreeSet<Door>) -> Vec<ApplyError>;
    /// The doors that stand.
    fn standing(&self) -> BTreeSet<Door>;
    /// What new flows go by, as far as it is known; one without Services if it is not.
    fn snapshot(&self) -> Snapshot;
}

impl Carrier for Relay {
    fn replace(&mut self, snapshot: &Snapshot) -> Result<(), ApplyError> {
        Relay::replace(self, snapshot.clone());
        Ok(())
    }

    fn open_doors(&mut self, wanted: Vec<Door>) -> Result<(), ApplyError> {
        Ok(Relay::open_doors(self, wanted)?)
    }

    fn open_each(&mut self, wanted: &BTreeSet<Door>) -> Vec<ApplyError> {
        let failed = Relay::open_each(self, wanted);
        failed.into_iter().map(ApplyError::from).collect()
    }

    fn standing(&self) -> BTreeSet<Door> {
        self.doors().into_iter().map(|(door, _)| door).collect()
    }

    fn snapshot(&self) -> Snapshot {
        Relay::snapshot(self)
    }
}

/// A portal's target and a relay that belong together.
pub struct RelayTarget<T, R = Relay> {
    /// Where the portal's rules stand.
    pub portal: T,
    /// Who carries the flows.
    pub relay: R,
    /// Where it waits.
    pub doors: Doors,
}

impl<P: Backend, T: Target<P>, R: Carrier> Target<Userspace<P>> for RelayTarget<T, R> {
    /// The relay comes first: whoever comes to a door must find its Service there. A Service that goes is still in the
    /// rules for a moment; its clients are reset then.
    fn apply(&mut self, ops: &Ops<P::Ops>) -> Result<(), ApplyError> {
        if let Some(snapshot) = &ops.snapshot {
            self.relay.replace(snapshot)?;
            let doors = Door::of_node(&self.doors, snapshot.node());
            self.relay.open_doors(doors)?;
        }
        match ops.portal_changes {
            true => self.portal.apply(&ops.portal),
            false => Ok(()),
        }
    }

    fn read(&mut self) -> Result<Option<State<P::State>>, ApplyError> {
        let snapshot = self.relay.snapshot();
        let portal = self.portal.read()?;
        Ok(portal.map(|portal| State { portal, snapshot }))
    }

    fn unchanged(&mut self) -> Result<bool, ApplyError> {
        self.portal.unchanged()
    }
}
