//! A fake kernel of ipvs mode: the fake of nf_tables, and virtual servers beside it.
//!
//! It is stricter than the real target where that finds mistakes: it refuses what stands already and what is not there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use portolan_dataplane::ipvs::{Ipvs, Op, Ops, Server, State};
use portolan_dataplane::nftables::{Nftables, Spot};
use portolan_model::{ApplyError, Target};

use crate::fake_nft::FakeNft;

/// nf_tables and IPVS of one network namespace.
#[derive(Clone, Debug, Default)]
pub struct FakeIpvs {
    nft: FakeNft,
    servers: BTreeMap<Spot, Server>,
}

impl FakeIpvs {
    /// What somebody does who flushes all rules and all virtual servers of the machine.
    pub fn wipe(&mut self) {
        *self = FakeIpvs::default();
    }

    fn op(&mut self, op: &Op) -> Result<(), &'static str> {
        const MISSING: &str = "No such process";
        match op {
            Op::Put(spot, server) => {
                let old = self.servers.insert(*spot, Server::clone(server));
                old.map_or(Ok(()), |_| Err("File exists"))?;
            }
            Op::Remove(spot) => drop(self.servers.remove(spot).ok_or(MISSING)?),
            Op::Change(spot, server) => {
                let standing = self.servers.get_mut(spot).ok_or(MISSING)?;
                (standing.scheduler, standing.affinity_s) = (server.scheduler, server.affinity_s);
            }
            Op::Weigh(spot, to, weight) => {
                let standing = self.servers.get_mut(spot).ok_or(MISSING)?;
                let mut all = weights(standing);
                all.insert(*to, *weight);
                standing.endpoints = all.into_iter().collect();
            }
            Op::RemoveEndpoint(spot, to) => {
                let standing = self.servers.get_mut(spot).ok_or(MISSING)?;
                let mut all = weights(standing);
                all.remove(to).ok_or(MISSING)?;
                standing.endpoints = all.into_iter().collect();
            }
        }
        Ok(())
    }

    fn all(&mut self, ops: &[Op]) -> Result<(), ApplyError> {
        ops.iter().try_for_each(|op| {
            self.op(op).map_err(|words| ApplyError {
                doing: format!("IPVS refused {op:?}"),
                words: words.to_owned(),
            })
        })
    }
}

fn weights(server: &Server) -> BTreeMap<SocketAddr, u32> {
    server.endpoints.iter().copied().collect()
}

impl Target<Ipvs> for FakeIpvs {
    fn apply(&mut self, ops: &Ops) -> Result<(), ApplyError> {
        let mut next = self.clone();
        next.all(&ops.servers.before)?;
        if let Some(wanted) = &ops.rewrite {
            let all = wanted
                .iter()
                .map(|(spot, server)| (*spot, Server::clone(server)));
            next.servers = all.collect();
        }
        Target::<Nftables>::apply(&mut next.nft, &ops.rules)?;
        next.all(&ops.servers.after)?;
        *self = next;
        Ok(())
    }

    fn read(&mut self) -> Result<Option<State>, ApplyError> {
        let servers = self.servers.clone().into_iter().collect();
        let rules = Target::<Nftables>::read(&mut self.nft)?;
        Ok(rules.map(|rules| State::adopted(rules, servers)))
    }
}
