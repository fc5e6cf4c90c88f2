//! Userspace mode in proofs: what scenarios expect of it, a fake, and the real one in a namespace.

use portolan_dataplane::nftables::{Portal, PortalTarget, State as PortalState};
use portolan_kernel::nft::NftTarget;
use portolan_kernel::{Conntrack, Netns};
use portolan_model::{ApplyError, Doors, Protocol, Snapshot, Target, Verdict};
use portolan_relay::{Limits, Ops, Relay, RelayTarget, State, Userspace};

use crate::fake_nft::FakeNft;
use crate::scenario::Scenario;

/// The backend with the doors that everybody has.
pub fn backend() -> Userspace<Portal> {
    Userspace {
        portal: Portal::default(),
        doors: Doors::default(),
    }
}

/// The scenario as this mode makes it come true. One thing differs, and docs/operating.md says so: the relay dials
/// endpoints itself, so they always see an address of the node. SCTP is not relayed.
pub fn seen(scenario: &Scenario) -> Scenario {
    let mut scenario = scenario.clone();
    let probes = scenario.steps.iter_mut().flat_map(|step| &mut step.probes);
    for probe in probes.filter(|probe| probe.packet.protocol != Protocol::Sctp) {
        if let Verdict::Deliver(choices) = &mut probe.verdict {
            choices
                .values_mut()
                .for_each(|masquerade| *masquerade = true);
        }
    }
    scenario
}

/// Opens the kernel's rules and a relay in the namespace `netns`.
pub fn open(netns: &Netns) -> Result<RelayTarget<PortalTarget<NftTarget>>, String> {
    let work = || {
        let portal = PortalTarget(NftTarget::open().map_err(|e| e.to_string())?);
        let mut conntrack = Conntrack::open().map_err(|e| e.to_string())?;
        let original = move |protocol, client, door| {
            let found = conntrack.original(protocol, client, door);
            found.map_err(|e| e.to_string())
        };
        let relay = Relay::start(1, Limits::default(), original).map_err(|e| e.to_string())?;
        let doors = Doors::default();
        Ok(RelayTarget {
            portal,
            relay,
            doors,
        })
    };
    netns.run(work).map_err(|e| e.to_string())?
}

/// A relay that carries nothing, over a fake nf_tables: it holds what it is told.
#[derive(Clone, Debug, Default)]
pub struct FakeUserspace {
    portal: PortalTarget<FakeNft>,
    snapshot: Snapshot,
}

impl FakeUserspace {
    /// Somebody flushes all rules of the machine; the relay knows nothing of that.
    pub fn wipe(&mut self) {
        self.portal.0.wipe();
    }
}

impl Target<Userspace<Portal>> for FakeUserspace {
    fn apply(
        &mut self,
        ops: &Ops<<Portal as portolan_model::Backend>::Ops>,
    ) -> Result<(), ApplyError> {
        if let Some(snapshot) = &ops.snapshot {
            self.snapshot = snapshot.clone();
        }
        match ops.portal_changes {
            true => self.portal.apply(&ops.portal),
            false => Ok(()),
        }
    }

    fn read(&mut self) -> Result<Option<State<PortalState>>, ApplyError> {
        let snapshot = self.snapshot.clone();
        let portal = self.portal.read()?;
        Ok(portal.map(|portal| State { portal, snapshot }))
    }
}
