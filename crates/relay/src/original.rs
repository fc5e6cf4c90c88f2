//! Where a flow was going before the portal sent it to a door.

use std::io;
use std::net::SocketAddr;

use portolan_model::Protocol;
use socket2::SockRef;
use tokio::net::TcpStream;

/// Asks the kernel's conntrack about flows of UDP, whose sockets cannot say it.
pub trait FindOriginal: Send {
    /// The destination that `client` wrote to, for a flow that was sent to `door`; `None` if it was not sent there by
    /// the portal. The error is in words.
    fn find(
        &mut self,
        protocol: Protocol,
        client: SocketAddr,
        door: SocketAddr,
    ) -> Result<Option<SocketAddr>, String>;
}

impl<F> FindOriginal for F
where
    F: FnMut(Protocol, SocketAddr, SocketAddr) -> Result<Option<SocketAddr>, String> + Send,
{
    fn find(
        &mut self,
        protocol: Protocol,
        client: SocketAddr,
        door: SocketAddr,
    ) -> Result<Option<SocketAddr>, String> {
        self(protocol, client, door)
    }
}

/// For doors that lead to one frontend each: there is nothing to ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unknown;

impl FindOriginal for Unknown {
    fn find(
        &mut self,
        _: Protocol,
        _: SocketAddr,
        _: SocketAddr,
    ) -> Result<Option<SocketAddr>, String> {
        Ok(None)
    }
}

/// The destination of a TCP connection, as `SO_ORIGINAL_DST` tells it.
pub(crate) fn of_connection(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let address = match stream.local_addr()? {
        SocketAddr::V4(_) => socket.original_dst_v4()?,
        SocketAddr::V6(_) => socket.original_dst_v6()?,
    };
    let wrong = || io::Error::other("the original destination is no IP address");
    address.as_socket().ok_or_else(wrong)
}
