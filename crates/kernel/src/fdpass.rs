//! Passing open files over a unix socket, in front of one length-prefixed message.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// The longest message, in bytes.
pub const MESSAGE_MAX: usize = 4 * 1024 * 1024;
/// The most descriptors that travel with one message.
pub const FDS_MAX: usize = 4;

/// Sends `message` together with open files.
pub fn send(stream: &mut UnixStream, message: &[u8], fds: &[RawFd]) -> io::Result<()> {
    let length = u32::try_from(message.len())
        .map_err(io::Error::other)?
        .to_be_bytes();
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage] = if fds.is_empty() { &[] } else { &rights };
    let sent = sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(&length)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    if sent != length.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    stream.write_all(message)
}

/// Receives one message and the open files that came with it; `None` when the other side has closed.
pub fn receive(stream: &mut UnixStream) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let (read, fds) = receive_head(stream, &mut length)?;
    if read == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[read..])?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_MAX {
        return Err(io::Error::other(format!(
            "a message of {length} bytes is longer than {MESSAGE_MAX}"
        )));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    Ok(Some((message, fds)))
}

fn receive_head(stream: &UnixStream, length: &mut [u8; 4]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; FDS_MAX]);
    let mut parts = [IoSliceMut::new(length)];
    let received = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            // SAFETY: the kernel has just installed these descriptors for us and nobody else knows them.
            fds.extend(
                numbers
                    .into_iter()
                    .map(|number| unsafe { OwnedFd::from_raw_fd(number) }),
            );
        }
    }
    Ok((received.bytes, fds))
}
