//! The TCP connections in conntrack: a walk that forgets some at once and hands out those that are to be reset.

use portolan_model::reset::{Connection, Fate};
use portolan_model::{ApplyError, Family, Protocol};

use super::{Conntrack, Entry, RETRIES_MAX, delete, list};
use crate::nfnetlink::socket::Answer;
use crate::nfnetlink::wire::{Attributes, Writer};

/// A connection that is to be reset, with the bytes that name its entry.
#[derive(Clone, Debug)]
pub struct Doomed {
    /// The connection.
    pub connection: Connection,
    tuple: Vec<u8>,
    zone: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
}

impl Conntrack {
    /// Asks for the fate of every TCP connection: forgets at once what is to be forgotten, and collects at most `room`
    /// of those that are to be reset. Says whether everything was looked at.
    pub fn connections(
        &mut self,
        fate: impl Fn(&Connection) -> Fate,
        room: usize,
        doomed: &mut Vec<Doomed>,
    ) -> Result<bool, ApplyError> {
        let mut whole = true;
        for family in Family::ALL {
            whole &= self.connections_of(family, &fate, room, doomed)?;
        }
        Ok(whole)
    }

    fn connections_of(
        &mut self,
        family: Family,
        fate: &impl Fn(&Connection) -> Fate,
        room: usize,
        doomed: &mut Vec<Doomed>,
    ) -> Result<bool, ApplyError> {
        let known = doomed.len();
        for _ in 0..RETRIES_MAX {
            let mut failed = None;
            let mut whole = true;
            doomed.truncate(known);
            let question = |out: &mut Writer| list(out, family, Protocol::Tcp);
            let changes = &mut self.changes;
            let tell = |attributes: Attributes<'_>| {
                let entry = Entry::read(attributes, Protocol::Tcp);
                let Some(entry) = entry.filter(Entry::is_of_interest) else {
                    return;
                };
                let Some(connection) = entry.connection() else {
                    return;
                };
                match fate(&connection) {
                    Fate::Stays => {}
                    Fate::IsForgotten => {
                        let done = delete(changes, family, &entry);
                        failed = failed.take().or(done.err());
                    }
                    Fate::IsReset if doomed.len() < room => doomed.push(Doomed {
                        connection,
                        tuple: entry.tuple.to_vec(),
                        zone: entry.zone.map(<[u8]>::to_vec),
                        id: entry.id.map(<[u8]>::to_vec),
                    }),
                    Fate::IsReset => whole = false,
                }
            };
            let doing = "cannot list the TCP connections of conntrack";
            let answer = self.walk.ask(doing, question, tell)?;
            match (failed, answer) {
                (Some(error), _) => return Err(error),
                (None, Answer::Interrupted) => {}
                (None, Answer::Whole | Answer::Nothing) => return Ok(whole),
            }
        }
        // The table is resized all the time: what was found may be done, the rest later.
        Ok(false)
    }

    /// Forgets this very connection; false if it is gone already.
    pub fn forget(&mut self, doomed: &Doomed) -> Result<bool, ApplyError> {
        let family = Family::of(doomed.connection.client.ip());
        let entry = Entry {
            flow: doomed.connection.flow,
            status: 0,
            tuple: &doomed.tuple,
            zone: doomed.zone.as_deref(),
            id: doomed.id.as_deref(),
            info: None,
        };
        delete(&mut self.changes, family, &entry)
    }
}
