//! A relay in a process of its own, as its agent sees it.
//!
//! The agent keeps a second handle of every door's socket: when the relay dies, clients wait in the doors until the next
//! one takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portolan_model::{ApplyError, Snapshot};
use portolan_relay::wire::{Ask, Tell, changes};
use portolan_relay::{Carrier, Door, listen};
use socket2::Socket;

use super::Relays;
use super::roster::{Roster, Talk};
use crate::cmd::proxy::relayed::Relayed;

/// A relay goes by what it was told before this time is over, or it is told anew: 100,000 Services take seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// A relay that ends before it is so old is followed by another one only after this time.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// A relay in another process. When this is dropped, it goes on.
pub(in crate::cmd::proxy) struct Remote(Arc<Shared>);

struct Shared {
    roster: Roster,
    how: Relays,
    relayed: Relayed,
    state: Mutex<State>,
    /// Something was said to be done.
    done: Condvar,
}

struct State {
    /// `None` while another one is started, and at the end.
    link: Option<Link>,
    /// One of another program, which serves until the new one knows all Services.
    former: Option<Talk>,
    doors: BTreeMap<Door, Socket>,
    snapshot: Option<Snapshot>,
    number: u64,
    ended: bool,
}

/// The relay that is talked to.
struct Link {
    talk: Talk,
    /// What it goes by.
    told: Option<Snapshot>,
    done: u64,
}

impl Remote {
    /// Adopts the relay of this network namespace, or starts one.
    pub(super) fn open(
        roster: Roster,
        how: &Relays,
        relayed: Relayed,
    ) -> Result<Remote, ApplyError> {
        let Found {
            talk,
            former,
            doors,
        } = find(&roster, how).map_err(super::told("start the relay"))?;
        let link = Link {
            talk,
            told: None,
            done: 0,
        };
        let shared = Arc::new(Shared {
            roster,
            how: how.clone(),
            relayed,
            state: Mutex::new(State {
                link: Some(link),
                former,
                doors: doors.into_iter().collect(),
                snapshot: None,
                number: 0,
                ended: false,
            }),
            done: Condvar::new(),
        });
        let following = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("relay follow".into())
            .spawn(move || following.follow())
            .map_err(super::told("start a thread for the relay"))?;
        Ok(Remote(shared))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        self.0.done.notify_all();
        if let Some(link) = &state.link {
            link.talk.end();
        }
    }
}

impl Carrier for Remote {
    fn replace(&mut self, snapshot: &Snapshot) -> Result<(), ApplyError> {
        let mut state = self.0.lock();
        state.snapshot = Some(snapshot.clone());
        self.0.relayed.keep(snapshot);
        let number = state
            .tell()
            .map_err(super::told("tell the relay of Services"))?;
        let begun = Instant::now();
        while let Some(left) = PATIENCE.checked_sub(begun.elapsed()) {
            match &state.link {
                Some(link) if link.done >= number => return Ok(()),
                Some(_) => {}
                None => break,
            }
            let waited = self.0.done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Err(super::told("tell the relay of Services")(io::Error::other(
            "it does not say that it has understood",
        )))
    }

    fn open_doors(&mut self, wanted: Vec<Door>) -> Result<(), ApplyError> {
        let mut state = self.0.lock();
        state.take_over()?;
        wanted.iter().try_for_each(|door| state.open_anew(door))?;
        state.close_but(&wanted.into_iter().collect())
    }

    fn open_each(&mut self, wanted: &BTreeSet<Door>) -> Vec<ApplyError> {
        let mut state = self.0.lock();
        let mut failed = Vec::new();
        failed.extend(state.take_over().err());
        failed.extend(state.close_but(wanted).err());
        failed.extend(wanted.iter().filter_map(|door| state.open_anew(door).err()));
        failed
    }

    fn standing(&self) -> BTreeSet<Door> {
        self.0.lock().doors.keys().copied().collect()
    }

    /// What the relay went by before it was ours nobody knows.
    fn snapshot(&self) -> Snapshot {
        let state = self.0.lock();
        let told = state.link.as_ref().and_then(|link| link.told.clone());
        told.unwrap_or_default()
    }
}

impl State {
    fn say(&mut self, ask: &Ask, socket: Option<&Socket>) -> io::Result<()> {
        let none = || io::Error::other("the relay has ended, or another agent has taken it over");
        let link = self.link.as_mut().ok_or_else(none)?;
        let said = link.talk.say(ask, socket);
        if said.is_err() {
            // Half a message may have gone out: whoever follows the relay begins anew.
            link.talk.end();
        }
        said
    }

    /// Tells the relay what it does not know yet; returns the number of that.
    fn tell(&mut self) -> io::Result<u64> {
        let Some(snapshot) = self.snapshot.clone() else {
            return Ok(0);
        };
        self.number += 1;
        let number = self.number;
        let told = self.link.as_mut().and_then(|link| link.told.take());
        for ask in changes(told.as_ref(), &snapshot, number) {
            self.say(&ask, None)?;
        }
        if let Some(link) = &mut self.link {
            link.told = Some(snapshot);
        }
        Ok(number)
    }

    /// The doors of a relay of another program are ours from now on.
    fn take_over(&mut self) -> Result<(), ApplyError> {
        let Some(mut former) = self.former.take() else {
            return Ok(());
        };
        tracing::info!("a relay of another program gives its doors away");
        match former.doors(&Ask::HandOver) {
            Ok(doors) => doors
                .into_iter()
                .try_for_each(|(door, socket)| self.open(door, socket)),
            Err(error) => {
                tracing::warn!(%error, "its doors are opened anew");
                Ok(())
            }
        }
    }

    fn close_but(&mut self, wanted: &BTreeSet<Door>) -> Result<(), ApplyError> {
        let all: Vec<Door> = self.doors.keys().copied().collect();
        for door in all.into_iter().filter(|door| !wanted.contains(door)) {
            self.doors.remove(&door);
            self.say(&Ask::Close(door), None)
                .map_err(super::told("close a door of the relay"))?;
        }
        Ok(())
    }

    fn open_anew(&mut self, door: &Door) -> Result<(), ApplyError> {
        match self.doors.contains_key(door) {
            true => Ok(()),
            false => self.open(*door, listen(door)?),
        }
    }

    fn open(&mut self, door: Door, socket: Socket) -> Result<(), ApplyError> {
        self.say(&Ask::Open(door), Some(&socket))
            .map_err(super::told("open a door of the relay"))?;
        self.doors.insert(door, socket);
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears what the relay says, and starts another one when it has ended, until this is dropped.
    fn follow(&self) {
        loop {
            let begun = Instant::now();
            let talk = self.lock().link.as_ref().map(|link| link.talk.try_clone());
            let ended = match talk {
                Some(Ok(talk)) => self.hear(talk),
                Some(Err(error)) => error,
                None => io::Error::other("there is none"),
            };
            let mut state = self.lock();
            state.link = None;
            self.done.notify_all();
            if state.ended {
                return;
            }
            tracing::warn!(error = %ended, "the relay has gone: starting another one");
            if let Some(pause) = RESTART_PAUSE.checked_sub(begun.elapsed()) {
                let is_on = |state: &mut State| !state.ended;
                let waited = self.done.wait_timeout_while(state, pause, is_on);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            drop(state);
            if let Err(error) = self.bring_up() {
                tracing::error!(%error, "there is no relay");
            }
        }
    }

    /// Hears what it says until it ends.
    fn hear(&self, mut talk: Talk) -> io::Error {
        if let Err(error) = talk.wait_for_ever() {
            return error;
        }
        loop {
            match talk.hear() {
                Ok((Tell::Done(number), _)) => {
                    if let Some(link) = &mut self.lock().link {
                        link.done = number;
                    }
                    self.done.notify_all();
                }
                Ok((Tell::Dials(dials), _)) => {
                    // What finds no room is not heard of: one of many is enough.
                    let heard = |dial| self.how.dials.try_send(dial).is_ok();
                    let _ = dials.into_iter().all(heard);
                }
                Ok((Tell::Counts(counts), _)) => self.relayed.tell(counts),
                Ok((Tell::Replaced, _)) => {
                    tracing::warn!("another agent has taken the relay over");
                    self.lock().ended = true;
                }
                Ok((Tell::Hello(_) | Tell::Door(_) | Tell::Doors, _)) => {}
                Err(error) => return error,
            }
        }
    }

    /// A new relay that knows what the former one knew, with its doors. Nobody else talks to it meanwhile.
    fn bring_up(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.ended {
            return Ok(());
        }
        state.link = Some(Link {
            talk: adopted(self.roster.start(&self.how)?)?,
            told: None,
            done: 0,
        });
        let number = state.tell()?;
        while let Some(link) = state.link.as_mut().filter(|link| link.done < number) {
            if let (Tell::Done(done), _) = link.talk.hear()? {
                link.done = done;
            }
        }
        let State { doors, link, .. } = &mut *state;
        for (door, socket) in doors {
            if let Some(link) = link {
                link.talk.say(&Ask::Open(*door), Some(socket))?;
            }
        }
        self.done.notify_all();
        Ok(())
    }
}

/// What there is in our network namespace.
struct Found {
    /// The relay to talk to.
    talk: Talk,
    /// One of another program, which serves until the other one does.
    former: Option<Talk>,
    /// The doors that stand.
    doors: Vec<(Door, Socket)>,
}

fn find(roster: &Roster, how: &Relays) -> io::Result<Found> {
    match roster.find()? {
        Some(mut talk) if talk.is_ours() => {
            let doors = talk.doors(&Ask::Adopt)?;
            tracing::info!(doors = doors.len(), "the relay is there already");
            Ok(Found {
                talk,
                former: None,
                doors,
            })
        }
        former => {
            let talk = adopted(roster.start(how)?)?;
            tracing::info!("the relay has been started");
            Ok(Found {
                talk,
                former,
                doors: Vec::new(),
            })
        }
    }
}

/// One that has just been started is ours.
fn adopted(mut talk: Talk) -> io::Result<Talk> {
    talk.doors(&Ask::Adopt)?;
    Ok(talk)
}
