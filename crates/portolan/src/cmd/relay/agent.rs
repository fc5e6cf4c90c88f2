//! The relay's end of what it and its agent say to each other.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portolan_kernel::fdpass;
use portolan_model::PortKey;
use portolan_relay::wire::{Ask, Tell};
use portolan_relay::{Counted, Dial, Door};
use socket2::Socket;
use tokio::sync::mpsc;

use super::{Process, UnixStream};

/// After a word so much time passes before the next one: a wake-up costs more than what is told.
const TELL_EVERY: Duration = Duration::from_millis(20);
/// How often counts are told.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Who does not take what it is told for so long is no agent any more.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who is told of connections and counts.
#[derive(Default)]
pub(super) struct Agent(Mutex<Told>);

#[derive(Default)]
struct Told {
    stream: Option<Arc<Mutex<UnixStream>>>,
    /// What it knows of counts.
    counts: BTreeMap<PortKey, Counted>,
}

impl Agent {
    /// From now on this one is told.
    fn adopt(&self, stream: &Arc<Mutex<UnixStream>>) {
        let told = Told {
            stream: Some(Arc::clone(stream)),
            counts: BTreeMap::new(),
        };
        *lock(&self.0) = told;
    }

    /// Nobody is told any more, and whoever was sees that: it starts another relay.
    pub(super) fn leave(&self) {
        let told = std::mem::take(&mut *lock(&self.0));
        if let Some(stream) = told.stream {
            // An error: it has gone already.
            let _ = lock(&stream).shutdown(std::net::Shutdown::Both);
        }
    }

    /// The same, and whoever was told knows that another one sees to the relay.
    fn replace(&self) {
        if let Some(stream) = self.stream() {
            // An error: it has gone already.
            let _ = say(&mut lock(&stream), &Tell::Replaced, None);
        }
        self.leave();
    }

    fn stream(&self) -> Option<Arc<Mutex<UnixStream>>> {
        lock(&self.0).stream.clone()
    }

    /// What has changed since it was told last.
    fn news(&self, counts: &portolan_relay::CountsOf) -> Vec<(PortKey, Counted)> {
        let mut told = lock(&self.0);
        let mut news = Vec::new();
        let mut all = BTreeMap::new();
        counts.each(|key, counts| {
            let now = counts.read();
            if now == Counted::default() {
                return;
            }
            if told.counts.get(key) != Some(&now) {
                news.push((key.clone(), now));
            }
            all.insert(key.clone(), now);
        });
        told.counts = all;
        news
    }
}

impl Process {
    /// Tells the agent of connections and counts, for ever.
    pub(super) fn tell(&self, mut dials: mpsc::Receiver<Dial>) {
        let mut counted = Instant::now();
        loop {
            let mut heard = Vec::new();
            let one = async { tokio::time::timeout(COUNT_EVERY, dials.recv()).await };
            if let Ok(Some(dial)) = self.clock.block_on(one) {
                self.wait(TELL_EVERY);
                heard.push(dial);
                heard.extend(std::iter::from_fn(|| dials.try_recv().ok()));
            }
            let Some(stream) = self.agent.stream() else {
                continue;
            };
            let mut all = Vec::new();
            if !heard.is_empty() {
                all.push(Tell::Dials(heard));
            }
            if counted.elapsed() >= COUNT_EVERY {
                counted = Instant::now();
                let news = self.agent.news(&self.counts);
                let parts = news.chunks(COUNTS_PER_MESSAGE);
                all.extend(parts.map(|counts| Tell::Counts(counts.to_vec())));
            }
            let said = {
                let mut stream = lock(&stream);
                all.iter().try_for_each(|tell| say(&mut stream, tell, None))
            };
            if said.is_err() {
                self.agent.leave();
            }
        }
    }

    /// Hears one who has come, until it goes.
    pub(super) fn hear(self: &Arc<Self>, stream: UnixStream) {
        let talk = || -> io::Result<()> {
            stream.set_write_timeout(Some(PATIENCE))?;
            let mut hearing = stream.try_clone()?;
            let stream = Arc::new(Mutex::new(stream));
            say(&mut lock(&stream), &Tell::Hello(self.hello()), None)?;
            while let Some((bytes, fds)) = fdpass::receive(&mut hearing)? {
                let ask = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
                self.answer(ask, fds, &stream)?;
            }
            Ok(())
        };
        if let Err(error) = talk() {
            tracing::debug!(%error, "an agent has gone");
        }
    }

    fn answer(
        self: &Arc<Self>,
        ask: Ask,
        fds: Vec<OwnedFd>,
        stream: &Arc<Mutex<UnixStream>>,
    ) -> io::Result<()> {
        let mut state = self.lock();
        let Some(relay) = &mut state.relay else {
            drop(state);
            if ask == Ask::End {
                self.end();
            }
            return Err(io::Error::other("this relay ends with its last connection"));
        };
        match ask {
            Ask::Adopt => {
                let doors = relay.doors();
                state.retired += 1;
                drop(state);
                self.agent.replace();
                self.agent.adopt(stream);
                show(&mut lock(stream), doors)?;
            }
            Ask::HandOver => {
                let doors = relay.give();
                drop(state);
                self.agent.replace();
                show(&mut lock(stream), doors)?;
                let process = Arc::clone(self);
                super::thread("relay drains", move || process.drain())?;
            }
            Ask::Retire => {
                drop(state);
                self.retire();
            }
            Ask::End => self.end(),
            Ask::Open(door) => {
                let socket = fds.into_iter().next();
                let socket = socket.ok_or_else(|| io::Error::other("a door without a socket"))?;
                relay
                    .adopt(door, Socket::from(socket))
                    .map_err(io::Error::other)?;
            }
            Ask::Close(door) => relay.close(&door),
            part => {
                if let Some((snapshot, number)) = state.draft.take(part) {
                    if let Some(relay) = &state.relay {
                        relay.replace(snapshot);
                    }
                    drop(state);
                    say(&mut lock(stream), &Tell::Done(number), None)?;
                }
            }
        }
        Ok(())
    }
}

/// Counts of Service ports that travel in one message; each takes some 300 bytes.
const COUNTS_PER_MESSAGE: usize = 4096;

/// All doors with their sockets.
fn show(stream: &mut UnixStream, doors: Vec<(Door, Socket)>) -> io::Result<()> {
    for (door, socket) in doors {
        say(stream, &Tell::Door(door), Some(&socket))?;
    }
    say(stream, &Tell::Doors, None)
}

fn say(stream: &mut UnixStream, tell: &Tell, socket: Option<&Socket>) -> io::Result<()> {
    let bytes = serde_json::to_vec(tell).map_err(io::Error::other)?;
    let fds: Vec<_> = socket.iter().map(|socket| socket.as_raw_fd()).collect();
    fdpass::send(stream, &bytes, &fds)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
