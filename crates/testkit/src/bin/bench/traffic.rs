//! What each mode does to traffic: connections as in `packets`, what they cost the whole machine, bytes over one stream
//! and over many, and datagrams; around all Services and through one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portolan_kernel::topology::Host;
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::objects::{self, ENDPOINT_PORT, SERVICE_PORT};
use crate::packets::{self, COUNTS, Felt};

/// Services of the shape that traffic goes through, evenly among the others by name and by address: who looks for a
/// Service in a list finds one after few steps and another one after many. Each count takes another one.
const SERVICES: u32 = 15;
/// What stands beside them.
pub const SHAPE: objects::Shape = objects::Shape {
    services: 1_000,
    endpoints: 2,
};
/// Addresses of endpoints that are no others'.
const ENDPOINTS: u32 = 900_000;
/// Ports of the Service and of its endpoints that take streams.
const STREAMS: (u16, u16) = (81, 8081);
/// Ports that take datagrams.
const DATAGRAMS: (u16, u16) = (82, 8082);
/// How long bytes and datagrams are counted, each way, each time.
const COUNTED: Duration = Duration::from_millis(500);
/// Streams at the same time.
const MANY: usize = 16;
/// Bytes of one write, and of one datagram.
const BLOCK: usize = 128 * 1024;
const DATAGRAM: usize = 64;
/// Only a failure waits for so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// One way through the node, or around all Services: an address of each Service, or of its endpoint.
#[derive(Clone, Debug)]
pub struct Way {
    addresses: Vec<Ipv4Addr>,
    /// Where connections are opened.
    connections: u16,
    streams: u16,
    /// `None` for who forwards none.
    datagrams: Option<u16>,
}

impl Way {
    /// The address and this port that the `round`th count takes.
    fn at(&self, round: usize, port: u16) -> SocketAddr {
        (self.addresses[round % self.addresses.len()], port).into()
    }
}

/// What one way is worth.
#[derive(Clone, Debug, Default)]
pub struct Worth {
    /// Connections.
    pub felt: Felt,
    /// Megabits a second over one stream, and over many together, turn by turn.
    pub megabits: [Vec<f64>; 2],
    /// Datagrams that arrive in a second, turn by turn; none from who forwards none.
    pub datagrams: Vec<f64>,
}

/// The Service's TCP ports, with those of its endpoints.
pub const TCP: [(u16, u16); 2] = [(SERVICE_PORT, ENDPOINT_PORT), STREAMS];

/// The Services that traffic goes through.
pub fn services() -> impl Iterator<Item = u32> {
    (0..SERVICES).map(|n| (2 * n + 1) * SHAPE.services / (2 * SERVICES))
}

/// The endpoint of one of them.
pub fn endpoint(service: u32) -> Ipv4Addr {
    objects::replacement(ENDPOINTS + service)
}

/// Around all Services, and through those of [`services`], without datagrams for who forwards none.
pub fn ways(datagrams: bool) -> [Way; 2] {
    [
        Way {
            addresses: services().map(endpoint).collect(),
            connections: ENDPOINT_PORT,
            streams: STREAMS.1,
            datagrams: datagrams.then_some(DATAGRAMS.1),
        },
        Way {
            addresses: services().map(objects::cluster_ip).collect(),
            connections: SERVICE_PORT,
            streams: STREAMS.0,
            datagrams: datagrams.then_some(DATAGRAMS.0),
        },
    ]
}

/// What takes the place of one of the Services and of its EndpointSlice.
pub fn objects(number: u32) -> [Value; 2] {
    let mut service = objects::service(number);
    let ports = [
        ("http", "TCP", SERVICE_PORT, ENDPOINT_PORT),
        ("streams", "TCP", STREAMS.0, STREAMS.1),
        ("datagrams", "UDP", DATAGRAMS.0, DATAGRAMS.1),
    ];
    service["spec"]["ports"] = ports
        .iter()
        .map(|(name, protocol, port, target)| {
            json!({"name": name, "protocol": protocol, "port": port, "targetPort": target})
        })
        .collect();
    let shape = objects::Shape {
        services: 1,
        endpoints: 1,
    };
    let mut slice = shape.slice(number, Some(endpoint(number)));
    slice["ports"] = ports
        .iter()
        .map(|(name, protocol, _, port)| json!({"name": name, "protocol": protocol, "port": port}))
        .collect();
    [service, slice]
}

/// Servers of streams and datagrams under every address of a host, until the process ends.
pub struct Sinks {
    datagrams: Arc<AtomicU64>,
}

impl Sinks {
    /// Starts them.
    pub fn start(host: &Host) -> Result<Sinks, String> {
        let open = || -> std::io::Result<(TcpListener, UdpSocket)> {
            let any = std::net::Ipv4Addr::UNSPECIFIED;
            Ok((
                TcpListener::bind((any, STREAMS.1))?,
                UdpSocket::bind((any, DATAGRAMS.1))?,
            ))
        };
        let opened = host.run(open).map_err(|e| e.to_string())?;
        let (listener, socket) = opened.map_err(|e| format!("cannot serve traffic: {e}"))?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || swallow(stream));
            }
        });
        let datagrams = Arc::<AtomicU64>::default();
        let count = Arc::clone(&datagrams);
        std::thread::spawn(move || {
            let mut buffer = [0; DATAGRAM];
            while socket.recv(&mut buffer).is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Sinks { datagrams })
    }
}

/// Reads all that comes, and says how many bytes that were.
fn swallow(mut stream: TcpStream) {
    let mut buffer = vec![0; BLOCK];
    let mut bytes = 0u64;
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        bytes += length as u64;
    }
    // A client that is gone already is no news.
    let _ = stream.write_all(&bytes.to_be_bytes());
}

/// Measures all ways of all beds, taking turns.
pub fn measure(ways: &[(&Bed, &Sinks, Way)]) -> Result<Vec<Worth>, String> {
    let connections = |way: &Way| -> Vec<SocketAddr> {
        let all = 0..way.addresses.len();
        all.map(|round| way.at(round, way.connections)).collect()
    };
    let connections: Vec<packets::Way<'_>> = ways
        .iter()
        .map(|(bed, _, way)| (*bed, connections(way)))
        .collect();
    let felt = packets::measure(&connections)?;
    let mut counts = vec![[const { Vec::new() }; 3]; ways.len()];
    for round in 0..COUNTS {
        for index in packets::order(round, ways.len()) {
            let (bed, sinks, way) = &ways[index];
            let measured = bed.client.run(|| pass(way, round, sinks));
            let measured = measured.map_err(|e| e.to_string())??;
            let counts = counts[index].iter_mut();
            counts.zip(measured).for_each(|(c, m)| c.extend(m));
        }
    }
    let worth = felt.into_iter().zip(counts).map(|(felt, counts)| {
        let [one, many, datagrams] = counts;
        Worth {
            felt,
            megabits: [one, many],
            datagrams,
        }
    });
    Ok(worth.collect())
}

/// What passes one way in a second: one stream, many, and datagrams.
fn pass(way: &Way, round: usize, sinks: &Sinks) -> Result<[Option<f64>; 3], String> {
    let [one, many] = [1, MANY].map(|streams| pour(way.at(round, way.streams), streams));
    let datagrams = way.datagrams.map(|port| way.at(round, port));
    let datagrams = datagrams.map(|to| shower(to, sinks)).transpose()?;
    Ok([Some(one?), Some(many?), datagrams])
}

/// Megabits that arrive in a second over so many streams. The threads are in the namespace of the calling one.
fn pour(to: SocketAddr, streams: usize) -> Result<f64, String> {
    let block = vec![0; BLOCK];
    let one = || -> std::io::Result<(u64, Duration)> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let begun = Instant::now();
        while begun.elapsed() < COUNTED {
            stream.write_all(&block)?;
        }
        stream.shutdown(Shutdown::Write)?;
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes)?;
        Ok((u64::from_be_bytes(bytes), begun.elapsed()))
    };
    let rates = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..streams).map(|_| scope.spawn(one)).collect();
        threads
            .into_iter()
            .map(|thread| {
                let (bytes, took) = thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                Ok(bytes as f64 * 8.0 / 1e6 / took.as_secs_f64())
            })
            .sum::<std::io::Result<f64>>()
    });
    rates.map_err(|e| format!("no stream to {to}: {e}"))
}

/// Datagrams that arrive in a second while one client sends as fast as it can.
fn shower(to: SocketAddr, sinks: &Sinks) -> Result<f64, String> {
    let send = || -> std::io::Result<f64> {
        let socket = UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(to)?;
        let before = sinks.datagrams.load(Ordering::Relaxed);
        let begun = Instant::now();
        while begun.elapsed() < COUNTED {
            socket.send(&[0; DATAGRAM])?;
        }
        let arrived = sinks.datagrams.load(Ordering::Relaxed) - before;
        Ok(arrived as f64 / begun.elapsed().as_secs_f64())
    };
    match send().map_err(|e| format!("no datagram to {to}: {e}"))? {
        0.0 => Err(format!("no datagram to {to} arrives")),
        rate => Ok(rate),
    }
}
