//! Moves bytes from one socket to another: small ones by a copy, many through a pipe without looking at them (splice(2)).
//!
//! A request and its answer fit into one read and one write, and a read that does not fill its room says that no more is
//! there; a pipe would take five calls for the same. Where a read fills its room, pipes take over until little comes.
//! A pipe is needed for as long as bytes are in it only. Every thread keeps a few, so a connection that waits costs
//! no more than its two sockets. When the system has no pipe to give, bytes are copied.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;

use crate::limits::{COPY_BYTES, PIPE_BYTES, PIPES_KEPT_MAX, TURNS_MAX};
use crate::tally::Count;

/// A pipe; it is empty whenever it is kept.
struct Pipe {
    exit: OwnedFd,
    entrance: OwnedFd,
}

thread_local! {
    static KEPT: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; COPY_BYTES]);
}

impl Pipe {
    /// One that is kept, or a new one.
    fn take() -> nix::Result<Pipe> {
        if let Some(pipe) = KEPT.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (exit, entrance) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        // A smaller one only takes more turns.
        let _ = fcntl(&entrance, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES as i32));
        Ok(Pipe { exit, entrance })
    }

    /// Keeps it for the next turn. Only an empty one may be given.
    fn give(self) {
        KEPT.with_borrow_mut(|kept| {
            if kept.len() < PIPES_KEPT_MAX {
                kept.push(self);
            }
        });
    }
}

/// Moves everything that `from` sends to `to`, and then tells `to` that no more comes, unless it is `last`: then nothing
/// comes from `to` either, and both are closed at once. Counts it in `moved`.
/// An error of either side is one of the connection: then both must be reset.
pub(crate) async fn pump(
    mut from: ReadHalf<'_>,
    to: &TcpStream,
    last: &AtomicBool,
    moved: &Count,
) -> io::Result<()> {
    let mut turns = 0;
    let mut many = false;
    loop {
        let turn = match many {
            true => by_pipe(from.as_ref(), to).await,
            false => by_copy(&mut from, to).await,
        };
        match turn {
            Ok(0) => return finish(to, last),
            Ok(bytes) => {
                moved.add(bytes as u64);
                many = bytes >= COPY_BYTES;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                turns = 0;
                unbroken(to, from.as_ref().readable()).await?;
                continue;
            }
            Err(error) => return Err(error),
        }
        turns += 1;
        if turns >= TURNS_MAX {
            turns = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Waits for `work`. When `to` breaks meanwhile there is nobody to give its result to.
async fn unbroken<T>(to: &TcpStream, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        broken = to.ready(Interest::ERROR) => {
            broken?;
            Err(to.take_error()?.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()))
        }
    }
}

/// No more comes from the other side: TCP's half-close.
fn finish(to: &TcpStream, last: &AtomicBool) -> io::Result<()> {
    if last.swap(true, Relaxed) {
        return Ok(());
    }
    match socket2::SockRef::from(to).shutdown(std::net::Shutdown::Write) {
        // It has gone away already, and everything was given to it.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        done => done,
    }
}

/// Bytes through a pipe, or a copy when there is none to be had.
async fn by_pipe(from: &TcpStream, to: &TcpStream) -> io::Result<usize> {
    match Pipe::take() {
        Ok(pipe) => spliced(pipe, from, to).await,
        Err(_) => copied(from, to).await,
    }
}

/// One pipe full of bytes, or as many as there are: 0 at the end.
async fn spliced(pipe: Pipe, from: &TcpStream, to: &TcpStream) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    let taken = from.try_io(Interest::READABLE, || {
        splice(from, None, &pipe.entrance, None, PIPE_BYTES, flags).map_err(io::Error::from)
    });
    let taken = match taken {
        Ok(taken) => taken,
        Err(error) => {
            pipe.give();
            return Err(error);
        }
    };
    let mut left = taken;
    while left > 0 {
        let given = to.try_io(Interest::WRITABLE, || {
            splice(&pipe.exit, None, to, None, left, flags).map_err(io::Error::from)
        });
        match given {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(given) => left -= given,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    pipe.give();
    Ok(taken)
}

/// The same without a pipe.
async fn copied(from: &TcpStream, to: &TcpStream) -> io::Result<usize> {
    let mut room = vec![0; COPY_BYTES];
    let taken = from.try_read(&mut room)?;
    write(to, &room[..taken]).await?;
    Ok(taken)
}

/// Waits for bytes, and moves those that this thread's room holds.
async fn by_copy(from: &mut ReadHalf<'_>, to: &TcpStream) -> io::Result<usize> {
    let (taken, rest) = unbroken(to, poll_fn(|context| poll_copy(context, from, to))).await?;
    write(to, &rest).await?;
    Ok(taken)
}

/// What was taken, and the rest of it that `to` has no room for yet. Nobody else uses the thread's room meanwhile.
fn poll_copy(
    context: &mut Context<'_>,
    from: &mut ReadHalf<'_>,
    to: &TcpStream,
) -> Poll<io::Result<(usize, Vec<u8>)>> {
    ROOM.with_borrow_mut(|room| {
        let mut room = ReadBuf::new(room);
        ready!(Pin::new(from).poll_read(context, &mut room))?;
        let taken = room.filled();
        if taken.is_empty() {
            return Poll::Ready(Ok((0, Vec::new())));
        }
        let given = match to.try_write(taken) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            given => given?,
        };
        Poll::Ready(Ok((taken.len(), taken[given..].to_vec())))
    })
}

async fn write(to: &TcpStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match to.try_write(rest) {
            Ok(given) => rest = &rest[given..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap());
        let (here, there) = tokio::join!(listener.accept(), there);
        (here.unwrap().0, there.unwrap())
    }

    /// Without a pipe the same bytes come, and the end of them too.
    #[tokio::test]
    async fn bytes_are_copied_when_there_is_no_pipe() {
        let ((mut writer, from), (to, mut reader)) = tokio::join!(pair(), pair());
        let sent: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
        let copy = async {
            loop {
                match copied(&from, &to).await {
                    Ok(0) => break finish(&to, &AtomicBool::new(false)).unwrap(),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        from.readable().await.unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let write = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (_, _, read) = tokio::join!(copy, write, reader.read_to_end(&mut got));
        read.unwrap();
        assert_eq!(got, sent);
    }
}
