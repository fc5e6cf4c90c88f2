//! Questions to IPVS of one network namespace, and what it shall do.

use std::net::SocketAddr;

use portolan_dataplane::ipvs::Server;
use portolan_dataplane::nftables::Spot;
use portolan_model::{ApplyError, Family};

use super::wire::{self, Head, Real, Timeouts};
use crate::nfnetlink::socket::{Answer, Nfnetlink, Refusal};
use crate::nfnetlink::wire::{ACK, DUMP, Writer, read_u16};

/// Generic netlink's own family, which knows the numbers of the others.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// How often a dump is tried anew when something changes meanwhile.
const RETRIES_MAX: usize = 5;

/// A conversation with IPVS.
pub(super) struct IpvsSocket {
    socket: Nfnetlink,
    family: u16,
}

/// One change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    New(&'a Spot, &'a Server),
    Set(&'a Spot, &'a Server),
    Delete(&'a Spot),
    NewReal(&'a Spot, SocketAddr, u32),
    SetReal(&'a Spot, SocketAddr, u32),
    DeleteReal(&'a Spot, SocketAddr),
}

impl Change<'_> {
    fn write(&self, out: &mut Writer, family: u16) {
        let command = match self {
            Change::New(..) => wire::NEW_SERVICE,
            Change::Set(..) => wire::SET_SERVICE,
            Change::Delete(_) => wire::DEL_SERVICE,
            Change::NewReal(..) => wire::NEW_DEST,
            Change::SetReal(..) => wire::SET_DEST,
            Change::DeleteReal(..) => wire::DEL_DEST,
        };
        out.begin_generic(family, 0, command);
        match self {
            Change::New(spot, server) | Change::Set(spot, server) => {
                wire::write_head(out, spot, server);
            }
            Change::Delete(spot) => wire::write_spot(out, spot),
            Change::NewReal(spot, to, weight) | Change::SetReal(spot, to, weight) => {
                wire::write_spot(out, spot);
                wire::write_real(out, *to, *weight);
            }
            Change::DeleteReal(spot, to) => {
                wire::write_spot(out, spot);
                wire::write_address(out, *to);
            }
        }
        out.end();
    }

    fn words(&self) -> String {
        match self {
            Change::New(spot, server) => {
                format!("new virtual server {spot} ({})", server.scheduler)
            }
            Change::Set(spot, server) => format!("virtual server {spot} ({})", server.scheduler),
            Change::Delete(spot) => format!("delete virtual server {spot}"),
            Change::NewReal(spot, to, _) => format!("new real server {to} of {spot}"),
            Change::SetReal(spot, to, weight) => format!("weight {weight} of {to} of {spot}"),
            Change::DeleteReal(spot, to) => format!("delete real server {to} of {spot}"),
        }
    }
}

impl IpvsSocket {
    /// Finds IPVS in the network namespace of the calling thread. The kernel loads the module if it can.
    pub fn open() -> Result<Self, ApplyError> {
        let mut socket = Nfnetlink::open_generic()?;
        let mut family = None;
        let question = |out: &mut Writer| {
            out.begin_generic(CONTROL, 0, GET_FAMILY);
            out.text(FAMILY_NAME, wire::FAMILY);
        };
        socket.ask("cannot ask the kernel for IPVS", question, |answer| {
            family = answer.find(FAMILY_ID).and_then(|id| read_u16(id, 0));
        })?;
        match family {
            Some(family) => Ok(IpvsSocket { socket, family }),
            None => Err(ApplyError {
                doing:
                    "this kernel has no IPVS; load the module ip_vs, or choose another --proxy-mode"
                        .into(),
                words: "no such family of generic netlink".into(),
            }),
        }
    }

    /// Carries out changes in order, each for itself. Says which were refused.
    pub fn change(&mut self, changes: &[Change<'_>]) -> Result<Vec<(usize, i32)>, ApplyError> {
        let Some(last) = changes.len().checked_sub(1) else {
            return Ok(Vec::new());
        };
        let first = self.socket.next_sequence();
        let mut out = Writer::new(first);
        changes
            .iter()
            .for_each(|change| change.write(&mut out, self.family));
        out.acknowledge();
        self.socket.room(out.bytes.len())?;
        let Err(refusals) = self.socket.transact(&out.bytes, out.sequence) else {
            return Ok(Vec::new());
        };
        let place = |refusal: &Refusal| {
            let index = refusal.sequence.checked_sub(first)? as usize;
            (index <= last).then_some((index, refusal.errno))
        };
        let all: Vec<(usize, i32)> = refusals.iter().filter_map(place).collect();
        match refusals.iter().find(|refusal| place(refusal).is_none()) {
            None => Ok(all),
            Some(lost) => Err(ApplyError {
                doing: "cannot change IPVS".into(),
                words: lost.words.clone(),
            }),
        }
    }

    /// Carries out one change; `passing` are error numbers that say that there is nothing to do. Says whether it was done.
    pub fn one(&mut self, change: Change<'_>, passing: &[i32]) -> Result<bool, ApplyError> {
        match self.change(&[change])?.first() {
            None => Ok(true),
            Some((_, errno)) if passing.contains(errno) => Ok(false),
            Some((_, errno)) => Err(refused(&change, *errno)),
        }
    }

    /// Sets the timeouts of the namespace.
    pub fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), ApplyError> {
        let family = self.family;
        let question = |out: &mut Writer| {
            out.begin_generic(family, ACK, wire::SET_CONFIG);
            wire::write_timeouts(out, timeouts);
        };
        let answer = self
            .socket
            .ask("cannot set the timeouts of IPVS", question, |_| {});
        answer.map(drop)
    }

    /// Every virtual server that stands for an address.
    pub fn heads(&mut self) -> Result<Vec<Head>, ApplyError> {
        let family = self.family;
        for _ in 0..RETRIES_MAX {
            let mut all = Vec::new();
            let question = |out: &mut Writer| out.begin_generic(family, DUMP, wire::GET_SERVICE);
            let answer = self
                .socket
                .ask("cannot list virtual servers", question, |message| {
                    all.extend(wire::read_head(message));
                })?;
            if answer != Answer::Interrupted {
                return Ok(all);
            }
        }
        Err(restless())
    }

    /// The real servers of one.
    pub fn reals(&mut self, spot: &Spot) -> Result<Vec<Real>, ApplyError> {
        let family = self.family;
        for _ in 0..RETRIES_MAX {
            let mut all = Vec::new();
            let question = |out: &mut Writer| {
                out.begin_generic(family, DUMP, wire::GET_DEST);
                wire::write_spot(out, spot);
            };
            let answer = self
                .socket
                .ask("cannot list real servers", question, |message| {
                    all.extend(wire::read_real(Family::of(spot.address), message));
                })?;
            if answer != Answer::Interrupted {
                return Ok(all);
            }
        }
        Err(restless())
    }
}

/// A refusal in words.
pub(super) fn refused(change: &Change<'_>, errno: i32) -> ApplyError {
    ApplyError {
        doing: format!("IPVS refused: {}", change.words()),
        words: crate::nfnetlink::socket::words_of(errno),
    }
}

fn restless() -> ApplyError {
    ApplyError {
        doing: "cannot read IPVS".into(),
        words: "somebody changes it all the time".into(),
    }
}
