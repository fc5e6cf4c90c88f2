//! The ipvs target: tables in nf_tables, virtual servers in IPVS, and the way from one to the other, in one network
//! namespace.
//!
//! ```text
//!   Ops ──▶ new virtual servers ─▶ one nf_tables transaction ─▶ what nobody leads to any more
//!   State ◀── tables (as nftables mode reads them) and dumps of virtual servers
//! ```
//!
//! IPVS knows no transactions: after an error a part may stand, and the sync loop reads what does.
//!
//! A TCP connection keeps its endpoint (R-DRAIN-1), but IPVS drops connections with a real server. So one that has
//! connections stays with weight 0, which is as good as gone for new flows and for [`Target::read`], until it has none.

mod routing;
mod settings;
mod socket;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use portolan_dataplane::ipvs::{Ipvs, Op, Ops, Server, Servers, State, is_drained};
use portolan_dataplane::nftables::Spot;
use portolan_model::{ApplyError, Protocol, Scheduler, Target};

use crate::nfnetlink::socket::Nfnetlink;
use crate::nft::{NftTarget, path};
use routing::Routing;
pub use settings::Settings;
use socket::{Change, IpvsSocket, refused};
pub use wire::Timeouts;

/// Changes in one datagram: a hundred bytes each, and an answer to each that is refused.
const CHANGES_MAX: usize = 500;

/// Where schedulers are tried: any port.
const PROBE_PORT: u16 = 9;

/// How often it is looked whether real servers that drain have no connections any more, at most.
const DRAIN_LOOK: Duration = Duration::from_secs(20);

/// Whether this kernel has IPVS. It is loaded if it is a module that can be.
pub fn is_known() -> bool {
    IpvsSocket::open().is_ok()
}

/// Takes away what ipvs mode has left in the network namespace of the calling thread, but for the tables that it shares
/// with nftables mode. Virtual servers that have connections stay without new ones, with the way to them: cleaning up
/// once more later takes them away. Nothing happens if IPVS is not loaded.
pub fn clean_up() -> Result<(), ApplyError> {
    if !Path::new("/proc/thread-self/net/ip_vs").exists() {
        return Ok(());
    }
    let mut target = IpvsTarget::with(IpvsSocket::open()?)?;
    let all = target.unwanted(&Servers::default())?;
    target.carry_out(&all)?;
    if !target.draining.is_empty() {
        return Ok(());
    }
    path::remove(&mut target.netfilter)?;
    target.routing.remove().map_err(told)
}

/// nf_tables and IPVS of one network namespace.
pub struct IpvsTarget {
    nft: NftTarget,
    ipvs: IpvsSocket,
    netfilter: Nfnetlink,
    routing: Routing,
    /// Real servers that keep connections and have weight 0. As many as the kernel has.
    draining: BTreeMap<Spot, BTreeSet<SocketAddr>>,
    looked: Option<Instant>,
}

impl IpvsTarget {
    /// Opens both in the network namespace of the calling thread, and sets what ipvs mode needs there.
    /// The target stays with that namespace.
    pub fn open(settings: &Settings) -> Result<Self, ApplyError> {
        let mut ipvs = IpvsSocket::open()?;
        settings::apply(settings)?;
        if settings.timeouts != Timeouts::default() {
            ipvs.set_timeouts(&settings.timeouts)?;
        }
        let mut target = IpvsTarget::with(ipvs)?;
        target.pave()?;
        Ok(target)
    }

    /// The schedulers that this kernel does not have. Each is tried, which loads those that are modules.
    pub fn missing(&mut self) -> Result<Vec<Scheduler>, ApplyError> {
        let mut missing = Vec::new();
        for scheduler in Scheduler::ALL {
            let server = Server {
                scheduler,
                affinity_s: 0,
                endpoints: Box::default(),
            };
            // No packet has this address, and the virtual server is gone at once.
            let spot = Spot {
                address: IpAddr::V4(Ipv4Addr::BROADCAST),
                protocol: Protocol::Tcp,
                port: PROBE_PORT,
            };
            let taken = [libc::ENOENT, libc::EEXIST];
            match self.ipvs.one(Change::New(&spot, &server), &taken)? {
                true => drop(self.ipvs.one(Change::Delete(&spot), &[libc::ESRCH])?),
                false => missing.push(scheduler),
            }
        }
        Ok(missing)
    }

    fn with(ipvs: IpvsSocket) -> Result<Self, ApplyError> {
        Ok(IpvsTarget {
            nft: NftTarget::open()?,
            ipvs,
            netfilter: Nfnetlink::open()?,
            routing: Routing::open().map_err(told)?,
            draining: BTreeMap::new(),
            looked: None,
        })
    }

    /// Makes the way to virtual servers stand.
    fn pave(&mut self) -> Result<(), ApplyError> {
        self.routing.ensure().map_err(told)?;
        match path::stands(&mut self.netfilter)? {
            true => Ok(()),
            false => path::write(&mut self.netfilter),
        }
    }

    /// What goes after everything else when all is rewritten: virtual servers of ours that nobody wants.
    fn unwanted(&mut self, wanted: &Servers) -> Result<Vec<Op>, ApplyError> {
        let heads = self.ipvs.heads()?.into_iter();
        let gone = heads.filter(|head| head.ours && wanted.get(&head.spot).is_none());
        Ok(gone.map(|head| Op::Remove(head.spot)).collect())
    }

    /// Carries out steps in large datagrams. Where one finds something else than it builds on, those of its datagram are
    /// done anew one by one.
    fn carry_out(&mut self, ops: &[Op]) -> Result<(), ApplyError> {
        let mut rest = ops;
        while !rest.is_empty() {
            let mut changes = Vec::new();
            let mut taken = 0;
            while let Some(op) = rest.get(taken).filter(|_| changes.len() < CHANGES_MAX) {
                if !batch(op, &mut changes) {
                    break;
                }
                taken += 1;
            }
            if taken == 0 {
                self.step(&rest[0])?;
                rest = &rest[1..];
                continue;
            }
            let refusals = self.ipvs.change(&changes)?;
            let known = [libc::EEXIST, libc::ENOENT, libc::ESRCH];
            if let Some((index, errno)) = refusals.iter().find(|(_, e)| !known.contains(e)) {
                return Err(refused(&changes[*index], *errno));
            }
            let (done, later) = rest.split_at(taken);
            if !refusals.is_empty() {
                done.iter().try_for_each(|op| self.step(op))?;
            }
            rest = later;
        }
        Ok(())
    }

    /// One step, whatever stands.
    fn step(&mut self, op: &Op) -> Result<(), ApplyError> {
        match op {
            Op::Put(spot, server) => self.put(spot, server),
            Op::Change(spot, server) => self.ipvs.one(Change::Set(spot, server), &[]).map(drop),
            Op::Weigh(spot, to, weight) => self.weigh(spot, *to, *weight),
            Op::RemoveEndpoint(spot, to) => self.retire(spot, |real| real == *to),
            Op::Remove(spot) => self.retire(spot, |_| true),
        }
    }

    fn put(&mut self, spot: &Spot, server: &Server) -> Result<(), ApplyError> {
        if !self.ipvs.one(Change::New(spot, server), &[libc::EEXIST])? {
            self.ipvs.one(Change::Set(spot, server), &[])?;
        }
        for (to, weight) in &server.endpoints {
            self.weigh(spot, *to, *weight)?;
        }
        let wanted: BTreeSet<SocketAddr> = server.endpoints.iter().map(|(to, _)| *to).collect();
        self.retire(spot, |real| !wanted.contains(&real))
    }

    fn weigh(&mut self, spot: &Spot, to: SocketAddr, weight: u32) -> Result<(), ApplyError> {
        if !self
            .ipvs
            .one(Change::NewReal(spot, to, weight), &[libc::EEXIST])?
        {
            self.ipvs.one(Change::SetReal(spot, to, weight), &[])?;
        }
        Ok(())
    }

    /// Takes away real servers, as soon as they have no connections to keep; the virtual server goes with the last one.
    fn retire(&mut self, spot: &Spot, goes: impl Fn(SocketAddr) -> bool) -> Result<(), ApplyError> {
        let gone = [libc::ENOENT, libc::ESRCH];
        let reals = self.ipvs.reals(spot)?;
        let (going, staying): (Vec<_>, Vec<_>) = reals.into_iter().partition(|r| goes(r.address));
        let mut left = staying.len();
        // At an address of the node a virtual server without endpoints would keep others from the node's own processes,
        // so it stays for established connections only.
        let alone = left == 0 && self.routing.is_local(spot.address).map_err(told)?;
        for real in going {
            let connections = match alone {
                true => u64::from(real.active),
                false => u64::from(real.active) + u64::from(real.inactive),
            };
            if is_drained(spot.protocol) && connections > 0 {
                left += 1;
                if real.weight > 0 {
                    self.ipvs
                        .one(Change::SetReal(spot, real.address, 0), &gone)?;
                }
                let draining = self.draining.entry(*spot).or_default();
                draining.insert(real.address);
            } else {
                self.ipvs
                    .one(Change::DeleteReal(spot, real.address), &gone)?;
            }
        }
        if left == 0 {
            self.ipvs.one(Change::Delete(spot), &gone)?;
        }
        Ok(())
    }

    /// Takes away what has drained, if it is time to look.
    fn look_at_draining(&mut self) -> Result<(), ApplyError> {
        if self
            .looked
            .is_some_and(|looked| looked.elapsed() < DRAIN_LOOK)
        {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        self.drain()
    }

    /// Takes away what has drained. An endpoint that came back has weight again and stays.
    pub fn drain(&mut self) -> Result<(), ApplyError> {
        for (spot, waiting) in std::mem::take(&mut self.draining) {
            let reals = self.ipvs.reals(&spot)?;
            let idle = reals.iter().filter(|real| real.weight == 0);
            let idle: BTreeSet<SocketAddr> = idle.map(|real| real.address).collect();
            let gone: BTreeSet<SocketAddr> = waiting.intersection(&idle).copied().collect();
            self.retire(&spot, |real| gone.contains(&real))?;
        }
        Ok(())
    }

    /// The virtual servers that are ours; `None` if one of them is none that we make.
    fn servers(&mut self) -> Result<Option<Servers>, ApplyError> {
        let mut all = Vec::new();
        for head in self.ipvs.heads()?.into_iter().filter(|head| head.ours) {
            let reals = self.ipvs.reals(&head.spot)?;
            let Some(scheduler) = head.scheduler else {
                return Ok(None);
            };
            let drained = is_drained(head.spot.protocol);
            let (drains, serves): (Vec<_>, Vec<_>) =
                reals.into_iter().partition(|r| drained && r.weight == 0);
            if !drains.is_empty() {
                let draining = self.draining.entry(head.spot).or_default();
                draining.extend(drains.iter().map(|real| real.address));
            }
            if serves.is_empty() && !drains.is_empty() {
                continue;
            }
            let server = Server {
                scheduler,
                affinity_s: head.affinity_s,
                endpoints: serves.iter().map(|r| (r.address, r.weight)).collect(),
            };
            all.push((head.spot, server));
        }
        Ok(Some(all.into_iter().collect()))
    }
}

/// Appends the changes of a step, if it is one that can be made without looking.
fn batch<'a>(op: &'a Op, changes: &mut Vec<Change<'a>>) -> bool {
    match op {
        Op::Put(spot, server) => {
            changes.push(Change::New(spot, server));
            let real = |(to, weight): &(SocketAddr, u32)| Change::NewReal(spot, *to, *weight);
            changes.extend(server.endpoints.iter().map(real));
        }
        Op::Weigh(spot, to, weight) => changes.push(Change::NewReal(spot, *to, *weight)),
        Op::Change(spot, server) => changes.push(Change::Set(spot, server)),
        Op::RemoveEndpoint(..) | Op::Remove(_) => return false,
    }
    true
}

fn told(error: crate::Error) -> ApplyError {
    ApplyError {
        doing: "cannot prepare the namespace for ipvs mode".into(),
        words: error.to_string(),
    }
}

impl Target<Ipvs> for IpvsTarget {
    /// Not all or nothing: IPVS knows no transactions.
    fn apply(&mut self, ops: &Ops) -> Result<(), ApplyError> {
        let mut after = ops.servers.after.clone();
        match &ops.rewrite {
            None => self.carry_out(&ops.servers.before)?,
            Some(wanted) => {
                self.pave()?;
                let all = wanted
                    .iter()
                    .map(|(spot, server)| Op::Put(*spot, server.clone()));
                self.carry_out(&all.collect::<Vec<Op>>())?;
                after.extend(self.unwanted(wanted)?);
            }
        }
        self.nft.apply(&ops.rules)?;
        self.carry_out(&after)?;
        self.look_at_draining()
    }

    fn read(&mut self) -> Result<Option<State>, ApplyError> {
        self.pave()?;
        self.look_at_draining()?;
        let Some(rules) = self.nft.read()? else {
            return Ok(None);
        };
        let servers = self.servers()?;
        Ok(servers.map(|servers| State::adopted(rules, servers)))
    }
}
