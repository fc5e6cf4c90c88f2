//! What conntrack tells of connections to endpoints, and how those that were not answered leave them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::sync::mpsc;
use std::time::Instant;

use portolan_kernel::conntrack::NewFlows;
use portolan_kernel::{Conntrack, isolated};
use portolan_model::health::{FlowKey, FlowState};
use portolan_model::{Endpoint, Family, Listener, PortKey, Protocol, ServicePort};

use crate::bed::{Bed, PATIENCE, at};

const VIPS: [&str; 2] = ["172.30.0.1:80", "[fd00:172:30::1]:80"];
/// Who accepts, who listens and never accepts, who does not listen, and who is behind a host that
/// forwards nothing. (Were it a neighbour that is not there, the clients of this node would send their SYN only once.)
const LIVES: [&str; 2] = ["10.1.1.2:8080", "[fd00:10:1:1::2]:8080"];
const HANGS: [&str; 2] = ["10.1.1.2:8081", "[fd00:10:1:1::2]:8081"];
const REFUSES: [&str; 2] = ["10.1.1.2:8082", "[fd00:10:1:1::2]:8082"];
const CUT_OFF: [&str; 2] = ["10.1.9.2:8080", "[fd00:10:1:9::2]:8080"];

/// Clients are the node's own.
struct World {
    bed: Bed,
    _hung: Vec<TcpListener>,
    conntrack: Conntrack,
    flows: NewFlows,
}

impl World {
    fn new() -> Self {
        let bed = Bed::new(&LIVES);
        let listen = |text: &str| {
            let open = || TcpListener::bind(at(text));
            bed.pods.run(open).unwrap().unwrap()
        };
        LIVES.iter().for_each(|text| serve(listen(text)));
        let hung = HANGS.map(listen).into();
        let flows = bed.node.run(NewFlows::open).unwrap().unwrap();
        flows.listen().unwrap();
        World {
            conntrack: bed.node.run(Conntrack::open).unwrap().unwrap(),
            bed,
            _hung: hung,
            flows,
        }
    }

    /// The Service leads to this endpoint.
    fn load(&mut self, endpoints: &[&str]) {
        let key = PortKey::new("shop", "web", "", Protocol::Tcp);
        self.bed.snapshot.set(ServicePort {
            cluster_ips: VIPS.map(|vip| at(vip).ip()).into(),
            families: Family::ALL.into(),
            endpoints: endpoints.iter().map(|e| Endpoint::ready(at(e))).collect(),
            ..ServicePort::new(key, NonZeroU16::new(80).unwrap())
        });
        self.bed.stand();
    }

    /// Connects on a thread of its own; whoever wants to know how it went listens.
    fn connect(&self, to: &str) -> mpsc::Receiver<std::io::Result<TcpStream>> {
        let (tell, told) = mpsc::channel();
        let to = at(to);
        let work = move || {
            std::thread::spawn(move || {
                let _ = tell.send(TcpStream::connect_timeout(&to, PATIENCE));
            });
        };
        self.bed.node.run(work).unwrap();
        told
    }

    /// The next new connection.
    fn heard(&mut self) -> (FlowKey, Listener) {
        let mut heard = Vec::new();
        until(|| {
            self.flows.take(1, |key, to| heard.push((key, to))).unwrap();
            !heard.is_empty()
        });
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }
}

/// Answers a byte with a byte, and closes.
fn serve(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 1]).is_ok_and(|length| length > 0) {
                let _ = stream.write_all(b"!");
            }
        }
    });
}

fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never");
        std::thread::yield_now();
    }
}

fn tcp(text: &str) -> Listener {
    Listener {
        protocol: Protocol::Tcp,
        address: at(text),
    }
}

#[test]
fn what_becomes_of_a_connection_can_be_seen() {
    isolated!(what_becomes_of_a_connection_can_be_seen, {
        let mut world = World::new();
        for (family, vip) in VIPS.iter().enumerate() {
            for (endpoint, states) in [
                (LIVES, [FlowState::Quiet, FlowState::Finished]),
                (HANGS, [FlowState::Quiet, FlowState::Quiet]),
                // conntrack forgets a connection that was refused at once.
                (REFUSES, [FlowState::Gone, FlowState::Gone]),
                (CUT_OFF, [FlowState::Unanswered, FlowState::Unanswered]),
            ] {
                let endpoint = endpoint[family];
                world.load(&[endpoint]);
                let connecting = world.connect(vip);
                let (key, to) = world.heard();
                assert_eq!((key.destination, to), (at(vip), tcp(endpoint)));
                let mut look = || world.conntrack.look(&key).unwrap();
                until(|| look() == states[0]);
                if states[0] == FlowState::Quiet {
                    let mut stream = connecting.recv().unwrap().unwrap();
                    assert_eq!(key.source, stream.local_addr().unwrap());
                    stream.write_all(b"?").unwrap();
                    if states[1] == FlowState::Finished {
                        assert_eq!(stream.read(&mut [0; 2]).unwrap(), 1);
                    }
                    // Its kernel says that it has got the end, its process does not.
                    drop(stream);
                }
                until(|| look() == states[1]);
            }
        }
    });
}

#[test]
fn what_was_not_translated_is_told_as_such() {
    isolated!(what_was_not_translated_is_told_as_such, {
        let mut world = World::new();
        world.load(&LIVES);
        assert!(world.connect(LIVES[0]).recv().unwrap().is_ok());
        let (key, to) = world.heard();
        assert_eq!((key.destination, to), (at(LIVES[0]), tcp(LIVES[0])));
        assert!(world.connect(VIPS[0]).recv().unwrap().is_ok());
        assert_eq!(world.heard().0.destination, at(VIPS[0]));
        // After a rest nothing is told of what came meanwhile.
        world.flows.rest().unwrap();
        assert!(world.connect(VIPS[0]).recv().unwrap().is_ok());
        assert_eq!(world.flows.take(10, |_, _| ()).unwrap(), 0);
        world.flows.listen().unwrap();
        assert!(world.connect(VIPS[1]).recv().unwrap().is_ok());
        assert_eq!(world.heard().0.destination, at(VIPS[1]));
    });
}

#[test]
fn a_connection_that_was_not_answered_goes_elsewhere() {
    isolated!(a_connection_that_was_not_answered_goes_elsewhere, {
        let mut world = World::new();
        world.load(&HANGS);
        let before = VIPS.map(|vip| world.connect(vip).recv().unwrap().unwrap());
        world.load(&CUT_OFF);
        let waiting = VIPS.map(|vip| world.connect(vip));
        let keys = [world.heard(), world.heard(), world.heard(), world.heard()];
        world.load(&LIVES);
        let all = |texts: [&str; 2]| texts.map(tcp).into_iter().collect::<BTreeSet<_>>();
        // Connections to others, and those that were answered, stay.
        assert_eq!(world.conntrack.leave(&all(LIVES)).unwrap(), 0);
        assert_eq!(world.conntrack.leave(&all(HANGS)).unwrap(), 0);
        assert_eq!(world.conntrack.leave(&all(CUT_OFF)).unwrap(), 2);
        for connecting in waiting {
            let mut stream = connecting.recv().unwrap().unwrap();
            stream.write_all(b"?").unwrap();
            assert_eq!(stream.read(&mut [0; 2]).unwrap(), 1);
        }
        let quiet = keys
            .iter()
            .filter(|(key, _)| world.conntrack.look(key).unwrap() == FlowState::Quiet);
        assert!(quiet.count() >= 2);
        drop(before);
    });
}
