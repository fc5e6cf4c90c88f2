//! The servers of a scenario: one socket for each endpoint, all served by one thread.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use portolan_model::Protocol;
use socket2::{SockAddr, Socket};

use super::ask::{PACKET_MAX, open, write_answer};
use super::network::Network;
use super::sctp;

/// Connections that wait in one listener; a client makes one at a time.
const BACKLOG: i32 = 16;

/// The servers; they end when this is dropped.
pub struct Servers {
    /// Closing it ends the thread.
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

struct Server {
    who: SocketAddr,
    protocol: Protocol,
    socket: Socket,
}

impl Servers {
    /// Opens a socket for each listener where its address lives, and serves them all.
    pub fn start<'a>(
        network: &Network,
        listeners: impl IntoIterator<Item = &'a (SocketAddr, Protocol)>,
    ) -> Result<Self, String> {
        let mut servers = Vec::new();
        for &(who, protocol) in listeners {
            let socket = network.at(who.ip(), || listen(who, protocol))?;
            let socket = socket.map_err(|e| format!("listen on {who}/{protocol}: {e}"))?;
            servers.push(Server {
                who,
                protocol,
                socket,
            });
        }
        let (stopped, stop) = io::pipe().map_err(|e| e.to_string())?;
        let thread = std::thread::Builder::new()
            .name("servers".into())
            .spawn(move || serve(&servers, &stopped))
            .map_err(|e| e.to_string())?;
        Ok(Servers {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed, and the clients have noticed.
            let _ = thread.join();
        }
    }
}

fn listen(who: SocketAddr, protocol: Protocol) -> io::Result<Socket> {
    let socket = open(protocol, who)?;
    socket.set_nonblocking(true)?;
    let port = match protocol {
        Protocol::Sctp => 0,
        _ => who.port(),
    };
    socket.bind(&SockAddr::from(SocketAddr::new(who.ip(), port)))?;
    if protocol == Protocol::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// Answers until `stopped` is closed.
fn serve(servers: &[Server], stopped: &io::PipeReader) {
    loop {
        let mut waiting: Vec<PollFd> = servers
            .iter()
            .map(|server| PollFd::new(server.socket.as_fd(), PollFlags::POLLIN))
            .collect();
        waiting.push(PollFd::new(stopped.as_fd(), PollFlags::POLLIN));
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => panic!("poll: {e}"),
        }
        let ready: Vec<bool> = waiting
            .iter()
            .map(|one| one.any().unwrap_or(false))
            .collect();
        if ready.last() == Some(&true) {
            return;
        }
        servers
            .iter()
            .zip(ready)
            .filter(|(_, ready)| *ready)
            .for_each(|(server, _)| {
                // A client that has gone away is no matter of the server.
                let _ = server.answer();
            });
    }
}

impl Server {
    fn answer(&self) -> io::Result<()> {
        if self.protocol == Protocol::Sctp {
            return self.associate();
        }
        if self.protocol == Protocol::Udp {
            let mut question = [MaybeUninit::uninit(); 8];
            let (_, from) = self.socket.recv_from(&mut question)?;
            self.socket.send_to(self.line(&from).as_bytes(), &from)?;
            return Ok(());
        }
        let (mut client, from) = self.socket.accept()?;
        client.set_nonblocking(false)?;
        client.write_all(self.line(&from).as_bytes())
    }

    /// Answers an INIT to this port; a raw socket sees those to other ports too.
    fn associate(&self) -> io::Result<()> {
        let mut bytes = [0; PACKET_MAX];
        // The standard library reads from any socket of datagrams, whatever their protocol.
        let socket = UdpSocket::from(self.socket.try_clone()?);
        let (length, from) = socket.recv_from(&mut bytes)?;
        let (from, bytes) = (SockAddr::from(from), &bytes[..length]);
        let asked = sctp::read(self.who, bytes);
        if let Some(packet) = asked.filter(|p| p.to == self.who.port() && p.cookie.is_none()) {
            let line = self.line(&from);
            let answer = sctp::init_ack(packet.to, packet.from, line.as_bytes());
            self.socket.send_to(&answer, &from)?;
        }
        Ok(())
    }

    fn line(&self, from: &SockAddr) -> String {
        let saw = from
            .as_socket()
            .map_or(IpAddr::from([0, 0, 0, 0]), |from| from.ip());
        write_answer(self.who, saw)
    }
}
