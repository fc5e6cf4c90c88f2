//! The half that does the I/O: the kernel's rules by the portal's target, and the relay.

use portolan_model::{ApplyError, Backend, Doors, Target};

use crate::backend::{Ops, State, Userspace};
use crate::relay::{Door, Relay};

/// A portal's target and a relay that belong together.
pub struct RelayTarget<T> {
    /// Where the portal's rules stand.
    pub portal: T,
    /// Who carries the flows.
    pub relay: Relay,
    /// Where it waits.
    pub doors: Doors,
}

impl<P: Backend, T: Target<P>> Target<Userspace<P>> for RelayTarget<T> {
    /// The relay comes first: whoever comes to a door must find its Service there. A Service that goes is still in the
    /// rules for a moment; its clients are reset then.
    fn apply(&mut self, ops: &Ops<P::Ops>) -> Result<(), ApplyError> {
        if let Some(snapshot) = &ops.snapshot {
            let opened = self
                .relay
                .open_doors(Door::of_node(&self.doors, snapshot.node()));
            opened.map_err(|error| ApplyError {
                doing: error.doing(),
                words: error.words(),
            })?;
            self.relay.replace(snapshot.clone());
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
