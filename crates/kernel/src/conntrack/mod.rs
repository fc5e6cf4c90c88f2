//! The kernel's conntrack table of one network namespace: a walk over its flows that forgets the stale ones.
//!
//! ```text
//!   dump of one family and protocol ──▶ entry by entry: stale? ──▶ delete exactly this one (tuple, zone, id)
//! ```
//!
//! Memory does not grow with the table: the kernel hands out one datagram of entries at a time, and what is stale is
//! deleted before the next one is asked for. What is stale, the caller says.

mod connections;
mod entry;
mod signs;

use std::net::SocketAddr;

use portolan_model::{ApplyError, Family, Flow, Protocol};

use crate::nfnetlink::socket::{Answer, Nfnetlink};
use crate::nfnetlink::wire::{ACK, DUMP, Writer, nfproto};
pub use connections::Doomed;
use entry::*;
pub use signs::NewFlows;

/// How often a walk is begun anew when the table moved under it.
const RETRIES_MAX: usize = 5;

/// conntrack of one network namespace.
pub struct Conntrack {
    /// The walk; it goes on while `changes` deletes.
    walk: Nfnetlink,
    changes: Nfnetlink,
}

impl Conntrack {
    /// Opens conntrack of the network namespace that the calling thread is in. It stays with that namespace.
    pub fn open() -> Result<Self, ApplyError> {
        Ok(Conntrack {
            walk: Nfnetlink::open()?,
            changes: Nfnetlink::open()?,
        })
    }

    /// Where a flow was going that `client` began and whose packets were sent to `replier` instead; `None` if there is
    /// no such flow, or if it was going there by itself.
    pub fn original(
        &mut self,
        protocol: Protocol,
        client: SocketAddr,
        replier: SocketAddr,
    ) -> Result<Option<SocketAddr>, ApplyError> {
        let question = |out: &mut Writer| {
            out.begin_conntrack(MSG_GET, 0, nfproto(Family::of(client.ip())));
            write_tuple(out, TUPLE_REPLY, protocol, replier, client);
        };
        let mut found = None;
        self.changes
            .ask("cannot ask conntrack for a flow", question, |attributes| {
                found = Entry::read(attributes, protocol).map(|entry| entry.flow);
            })?;
        let translated = found.filter(Flow::is_translated);
        Ok(translated.map(|flow| flow.destination))
    }

    /// Asks about every flow of `protocol` and `family`, and deletes those of which `is_stale` says so; counts them in
    /// `deleted`, also when it fails in the middle. Costs one step for each such flow.
    pub fn sweep(
        &mut self,
        family: Family,
        protocol: Protocol,
        is_stale: impl Fn(&Flow) -> bool,
        deleted: &mut u64,
    ) -> Result<(), ApplyError> {
        let doing = format!("cannot list the {protocol} flows of conntrack");
        for _ in 0..RETRIES_MAX {
            let mut failed = None;
            let question = |out: &mut Writer| list(out, family, protocol);
            let changes = &mut self.changes;
            let answer = self.walk.ask(&doing, question, |attributes| {
                let Some(entry) = Entry::read(attributes, protocol) else {
                    return;
                };
                if failed.is_some() || !entry.is_of_interest() || !is_stale(&entry.flow) {
                    return;
                }
                match delete(changes, family, &entry) {
                    Ok(existed) => *deleted += u64::from(existed),
                    Err(error) => failed = Some(error),
                }
            })?;
            match (failed, answer) {
                (Some(error), _) => return Err(error),
                (None, Answer::Interrupted) => {}
                (None, Answer::Whole | Answer::Nothing) => return Ok(()),
            }
        }
        Err(ApplyError {
            doing,
            words: "the table is resized all the time".into(),
        })
    }
}

/// A dump that the kernel narrows to a family and a protocol (Linux 5.8; an older one tells everything).
fn list(out: &mut Writer, family: Family, protocol: Protocol) {
    out.begin_conntrack(MSG_GET, DUMP, nfproto(family));
    out.nest(TUPLE_ORIG, |out| {
        out.nest(TUPLE_PROTO, |out| {
            out.raw(PROTO_NUM, &[protocol.number()]);
        });
    });
    // These two are in the byte order of the machine.
    out.nest(FILTER, |out| {
        out.raw(FILTER_ORIG_FLAGS, &FILTER_PROTO_NUM.to_ne_bytes());
    });
}

/// Deletes this very entry; false if it is gone already.
fn delete(changes: &mut Nfnetlink, family: Family, entry: &Entry<'_>) -> Result<bool, ApplyError> {
    let question = |out: &mut Writer| {
        out.begin_conntrack(MSG_DELETE, ACK, nfproto(family));
        out.nest(TUPLE_ORIG, |out| out.copy(entry.tuple));
        for (kind, value) in [(ZONE, entry.zone), (ID, entry.id)] {
            if let Some(value) = value {
                out.raw(kind, value);
            }
        }
    };
    let answer = changes.ask("cannot delete a flow from conntrack", question, |_| {})?;
    Ok(answer != Answer::Nothing)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use portolan_dataplane::nftables::Nftables;
    use portolan_model::{Backend, NodeFacts, Snapshot, Target};

    use super::*;
    use crate::nft::NftTarget;
    use crate::topology::Host;

    /// The kernel takes a filter that it does not know without a word.
    #[test]
    fn the_kernel_narrows_the_dump_to_the_protocol() {
        crate::isolated!(the_kernel_narrows_the_dump_to_the_protocol, {
            let host = Host::new().unwrap();
            let told = |protocol| {
                let mut walk = Nfnetlink::open().unwrap();
                let mut told = 0;
                let question = |out: &mut Writer| list(out, Family::V4, protocol);
                walk.ask("list", question, |_| told += 1).unwrap();
                told
            };
            let work = || {
                let (state, _) = Nftables.compile(&Snapshot::new(NodeFacts::default()));
                let mut target = NftTarget::open().unwrap();
                target.apply(&Nftables.diff(None, &state)).unwrap();
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let here = socket.local_addr().unwrap();
                socket.send_to(b"?", here).unwrap();
                (
                    told(Protocol::Udp),
                    told(Protocol::Sctp),
                    told(Protocol::Tcp),
                )
            };
            assert_eq!(host.run(work).unwrap(), (1, 0, 0));
        });
    }
}
