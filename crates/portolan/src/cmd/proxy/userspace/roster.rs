//! The relays of one network namespace: each has a socket in the state directory, at which it hears its agent.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::fdpass;
use portolan_relay::Door;
use portolan_relay::wire::{Ask, Hello, PROTOCOL, Tell};
use socket2::Socket;

use super::Relays;

/// A relay says something when it is asked before this time is over, or it counts as dead.
const PATIENCE: Duration = Duration::from_secs(10);
/// Relays that end with their last connection may be so many; of more, one is ended with its connections.
const DRAINING_MAX: usize = 8;

/// Where the sockets of relays are, and how those of our network namespace are called.
pub(super) struct Roster {
    dir: PathBuf,
    prefix: String,
    kind: Kind,
}

/// How flows come to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cmd::proxy) enum Kind {
    /// By rules of the kernel.
    Portal,
    /// Clients connect to its doors.
    Loopback,
}

impl Kind {
    pub(super) const ALL: [Kind; 2] = [Kind::Portal, Kind::Loopback];
}

/// What is said to and by one relay.
#[derive(Debug)]
pub(super) struct Talk {
    stream: UnixStream,
    pub(super) hello: Hello,
}

impl Talk {
    /// Begins to talk to whoever listens at `path`.
    fn begin(path: &Path) -> io::Result<Talk> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut talk = Talk {
            stream,
            hello: Hello {
                protocol: 0,
                program: String::new(),
                drains: true,
            },
        };
        match talk.hear()? {
            (Tell::Hello(hello), _) => talk.hello = hello,
            (other, _) => return Err(unexpected(&other)),
        }
        Ok(talk)
    }

    pub(super) fn try_clone(&self) -> io::Result<Talk> {
        Ok(Talk {
            stream: self.stream.try_clone()?,
            hello: self.hello.clone(),
        })
    }

    /// From now on what is waited for may take for ever.
    pub(super) fn wait_for_ever(&self) -> io::Result<()> {
        self.stream.set_read_timeout(None)
    }

    /// Ends the talk, for all handles of it.
    pub(super) fn end(&self) {
        // An error: the relay has gone already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    pub(super) fn say(&mut self, ask: &Ask, socket: Option<&Socket>) -> io::Result<()> {
        let bytes = serde_json::to_vec(ask).map_err(io::Error::other)?;
        let fds: Vec<_> = socket.iter().map(|socket| socket.as_raw_fd()).collect();
        fdpass::send(&mut self.stream, &bytes, &fds)
    }

    /// The next thing that it says.
    pub(super) fn hear(&mut self) -> io::Result<(Tell, Option<OwnedFd>)> {
        let (bytes, fds) = fdpass::receive(&mut self.stream)?
            .ok_or_else(|| io::Error::other("the relay has ended"))?;
        let tell = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
        Ok((tell, fds.into_iter().next()))
    }

    /// Asks for doors, to adopt the relay or to take its place.
    pub(super) fn doors(&mut self, ask: &Ask) -> io::Result<Vec<(Door, Socket)>> {
        self.say(ask, None)?;
        let mut doors = Vec::new();
        loop {
            match self.hear()? {
                (Tell::Door(door), Some(socket)) => doors.push((door, Socket::from(socket))),
                (Tell::Doors, _) => return Ok(doors),
                (Tell::Dials(_) | Tell::Counts(_) | Tell::Done(_) | Tell::Replaced, _) => {}
                (other, _) => return Err(unexpected(&other)),
            }
        }
    }

    /// Whether it is of our kind, so that it can go on with us.
    pub(super) fn is_ours(&self) -> bool {
        self.hello.protocol == PROTOCOL && self.hello.program == crate::cmd::relay::program()
    }
}

fn unexpected(tell: &Tell) -> io::Error {
    io::Error::other(format!("the relay says {tell:?}, which was not asked for"))
}

impl Roster {
    /// Of the calling thread's network namespace. The directory is made when it is needed.
    pub(super) fn here(dir: &Path, kind: Kind) -> io::Result<Roster> {
        let netns = std::fs::metadata("/proc/thread-self/ns/net")?.ino();
        let name = match kind {
            Kind::Portal => "relay",
            Kind::Loopback => "loopback",
        };
        Ok(Roster {
            dir: dir.into(),
            prefix: format!("{name}-{netns}-"),
            kind,
        })
    }

    /// All that answer.
    fn all(&self) -> io::Result<Vec<(PathBuf, Talk)>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| self.told("read", &error))?,
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        let name = |path: &Path| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
        };
        paths.retain(|path| name(path).is_some_and(|name| name.starts_with(&self.prefix)));
        paths.sort();
        let mut all = Vec::new();
        for path in paths {
            match Talk::begin(&path) {
                Ok(talk) => all.push((path, talk)),
                // Its process is gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let _ = std::fs::remove_file(&path);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a relay does not answer");
                }
            }
        }
        Ok(all)
    }

    /// The one that carries the flows of this network namespace. Others that do not end yet are told to.
    pub(super) fn find(&self) -> io::Result<Option<Talk>> {
        let (draining, mut serving): (Vec<_>, Vec<_>) = self
            .all()?
            .into_iter()
            .partition(|(_, talk)| talk.hello.drains);
        let too_many = (draining.len() + 1).saturating_sub(DRAINING_MAX);
        for (path, mut talk) in draining.into_iter().take(too_many) {
            tracing::warn!(path = %path.display(), "too many former relays: one ends with its connections");
            let _ = talk.say(&Ask::End, None);
        }
        serving.sort_by_key(|(_, talk)| !talk.is_ours());
        let mut serving = serving.into_iter().map(|(_, talk)| talk);
        let found = serving.next();
        serving.for_each(|mut other| drop(other.say(&Ask::Retire, None)));
        Ok(found)
    }

    /// A new relay without doors.
    pub(super) fn start(&self, how: &Relays) -> io::Result<Talk> {
        self.make_dir()?;
        let (path, listener) = self.listen()?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("portolan")
            .arg("relay")
            .args((self.kind == Kind::Portal).then_some("--portal"))
            .arg("--verbosity")
            .arg(how.verbosity.to_string())
            .args(["--logging-format", &how.logging_format])
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .current_dir("/")
            .own_session();
        let mut child = command.spawn()?;
        // What it says at its end is in the log; here is only who takes note of it.
        let wait = move || drop(child.wait());
        std::thread::Builder::new()
            .name("relay ends".into())
            .spawn(wait)?;
        let begun = Talk::begin(&path);
        if begun.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        begun
    }

    fn listen(&self) -> io::Result<(PathBuf, UnixListener)> {
        for number in 0..=DRAINING_MAX * 2 {
            let path = self.dir.join(format!("{}{number}.sock", self.prefix));
            match UnixListener::bind(&path) {
                Ok(listener) => return Ok((path, listener)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(self.told("make a socket in", &error)),
            }
        }
        Err(io::Error::other(format!(
            "too many relays have their sockets in {}",
            self.dir.display()
        )))
    }

    /// Only we may talk to relays: they carry everybody's flows.
    fn make_dir(&self) -> io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let made = builder.create(&self.dir);
        made.map_err(|error| self.told("make", &error))?;
        let mut permissions = std::fs::metadata(&self.dir)?.permissions();
        if permissions.mode() & 0o077 != 0 {
            permissions.set_mode(0o700);
            std::fs::set_permissions(&self.dir, permissions)
                .map_err(|error| self.told("close to others", &error))?;
        }
        Ok(())
    }

    fn told(&self, doing: &str, error: &io::Error) -> io::Error {
        let words = format!(
            "cannot {doing} {} (--state-dir names another directory): {error}",
            self.dir.display()
        );
        io::Error::new(error.kind(), words)
    }

    /// All of them close their doors in a moment, and end with their last connections.
    pub(super) fn retire(&self) {
        match self.find() {
            Ok(Some(mut talk)) => {
                if let Err(error) = talk.say(&Ask::Retire, None) {
                    tracing::warn!(%error, "a relay may go on");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a relay may go on"),
        }
    }

    /// All of them end now.
    pub(super) fn end(&self) -> io::Result<()> {
        for (_, mut talk) in self.all()? {
            talk.say(&Ask::End, None)?;
            // It has ended when nothing more comes from it.
            while talk.hear().is_ok() {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
