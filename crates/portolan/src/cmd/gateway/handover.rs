//! A gateway takes over the sockets of the one that runs, and that one leaves: no connection is refused or lost, whatever
//! waits to be taken.
//!
//! ```text
//!   new: connects to the socket of --handover-socket ─▶ old: sends its listening sockets (SCM_RIGHTS)
//!   new: lists everything, serves at these sockets, says "ready" ─▶ old: takes no more, lets clients go, ends
//! ```
//!
//! When the new one ends before it is ready, the old one goes on as if nothing had been.

use std::fs::Permissions;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use portolan_kernel::fdpass::{self, FDS_MAX};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Whoever takes sockets lists everything and is ready in this time, or gets none: longer than any API takes for a list.
const READY_TIMEOUT: Duration = Duration::from_secs(600);

/// The other side sends or takes some bytes in this time.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Sockets that are taken at most: as many as 64 threads have at 16 addresses.
const SOCKETS_MAX: usize = 1024;

/// What the new one says when it serves.
const READY: &[u8] = b"ready";

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Http,
    Https,
    Pages,
}

/// Sockets that somebody else has had, and the way to tell it that they are served.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) sockets: Vec<(Role, TcpListener)>,
    stream: UnixStream,
}

impl Taken {
    /// Those for one thing.
    pub(super) fn take(&mut self, role: Role) -> Vec<TcpListener> {
        let all = std::mem::take(&mut self.sockets);
        let (these, others) = all.into_iter().partition(|(of, _)| *of == role);
        self.sockets = others;
        let these: Vec<(Role, TcpListener)> = these;
        these.into_iter().map(|(_, socket)| socket).collect()
    }

    /// Tells the other one that it may go.
    pub(super) fn ready(mut self) -> io::Result<()> {
        fdpass::send(&mut self.stream, READY, &[])
    }
}

/// Takes the sockets of whoever listens at `path`; `None` when nobody does.
pub(super) fn take(path: &Path) -> anyhow::Result<Option<Taken>> {
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            let words = format!("cannot ask at {} (--handover-socket)", path.display());
            return Err(anyhow::Error::new(error).context(words));
        }
    };
    stream.set_read_timeout(Some(MESSAGE_TIMEOUT))?;
    stream.set_write_timeout(Some(MESSAGE_TIMEOUT))?;
    let mut sockets = Vec::new();
    loop {
        let received =
            fdpass::receive(&mut stream).context("the other gateway sends no sockets")?;
        let (message, fds) =
            received.context("the other gateway has ended while it sent sockets")?;
        let roles: Vec<Role> = serde_json::from_slice(&message)
            .context("the other gateway says something that is not understood")?;
        anyhow::ensure!(
            roles.len() == fds.len(),
            "the other gateway sends too few sockets"
        );
        if roles.is_empty() {
            return Ok(Some(Taken { sockets, stream }));
        }
        let named = roles
            .into_iter()
            .zip(fds.into_iter().map(TcpListener::from));
        sockets.extend(named);
        anyhow::ensure!(
            sockets.len() <= SOCKETS_MAX,
            "the other gateway sends too many sockets"
        );
    }
}

/// Gives these sockets to whoever asks at `path`, from now on instead of anybody who did before; the receiver hears when
/// somebody else serves.
pub(super) fn give(
    path: PathBuf,
    sockets: Vec<(Role, TcpListener)>,
) -> anyhow::Result<oneshot::Receiver<()>> {
    let listener = listen(&path)
        .with_context(|| format!("cannot listen at {} (--handover-socket)", path.display()))?;
    let (done, ready) = oneshot::channel();
    let thread = std::thread::Builder::new().name("handover".to_owned());
    thread.spawn(move || {
        while !done.is_closed() {
            let handed = listener
                .accept()
                .and_then(|(stream, _)| hand(stream, &sockets));
            match handed {
                Ok(()) => break,
                Err(error) => tracing::warn!(%error, "nobody has taken the sockets over"),
            }
        }
        // Whoever asks from now on asks somebody else.
        drop(listener);
        let _ = done.send(());
    })?;
    Ok(ready)
}

/// The file takes the place of the one before as a whole, so that there is always somebody to ask.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(new);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

/// Sends the sockets, and waits until they are served.
fn hand(mut stream: UnixStream, sockets: &[(Role, TcpListener)]) -> io::Result<()> {
    stream.set_write_timeout(Some(MESSAGE_TIMEOUT))?;
    stream.set_read_timeout(Some(READY_TIMEOUT))?;
    for some in sockets.chunks(FDS_MAX) {
        let roles: Vec<Role> = some.iter().map(|(role, _)| *role).collect();
        let fds: Vec<RawFd> = some.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
        fdpass::send(&mut stream, &serde_json::to_vec(&roles)?, &fds)?;
    }
    fdpass::send(&mut stream, b"[]", &[])?;
    match fdpass::receive(&mut stream)? {
        Some((message, _)) if message == READY => Ok(()),
        _ => Err(io::Error::other(
            "the gateway that has asked for them has ended",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_change_hands_once_somebody_serves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(take(&path).unwrap().is_none());
        let listeners: Vec<TcpListener> = (0..FDS_MAX + 2)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
        let roles = [Role::Http, Role::Https, Role::Pages];
        let sockets = roles.into_iter().cycle().zip(listeners).collect();
        let mut ready = give(path.clone(), sockets).unwrap();
        // One that ends before it is ready changes nothing.
        drop(take(&path).unwrap().unwrap());
        let mut taken = take(&path).unwrap().unwrap();
        assert!(ready.try_recv().is_err());
        let of = |sockets: Vec<TcpListener>| -> Vec<_> {
            sockets.iter().map(|s| s.local_addr().unwrap()).collect()
        };
        assert_eq!(of(taken.take(Role::Http)), [addresses[0], addresses[3]]);
        assert_eq!(of(taken.take(Role::Pages)), [addresses[2], addresses[5]]);
        taken.ready().unwrap();
        assert!(ready.blocking_recv().is_ok());
        assert!(take(&path).unwrap().is_none(), "the old one has gone");
    }
}
