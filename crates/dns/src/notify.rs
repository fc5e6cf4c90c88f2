//! NOTIFY (RFC 1996): who holds a copy of a zone is told when the zone has changed, and asks for what is new.
//!
//! Notices say that there is something, and not what. Changes that come fast are told together.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::corefile::Zone as ZoneName;
use crate::corefile::plugin::kubernetes::Transfer;
use crate::upstream::{local_address, random};
use crate::wire::{HEADER_BYTES, Name, class, opcode, rtype};

/// Between two notices: a copy of a large zone takes longer to transfer than a change to happen.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Copies that are told, each zone of each receiver counted: every notice is a socket for a moment.
pub const COPIES_MAX: usize = 256;
/// How often a notice is sent until it is answered (RFC 1996, section 3.6: five times).
const TRIES_MAX: u32 = 5;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Those who are told of the zones of one server block.
pub struct Notifier {
    copies: Vec<(Name, SocketAddr)>,
    told: Mutex<Told>,
}

/// What has been told.
#[derive(Default)]
struct Told {
    serial: Option<u32>,
    next: Option<Instant>,
    telling: JoinSet<()>,
}

impl Notifier {
    /// The receivers of these zones; of several rules the one with the longest zone counts, as for transfers. `None` when
    /// the file names nobody.
    pub fn new(transfer: &Transfer, zones: &[ZoneName]) -> Option<Notifier> {
        let mut copies = Vec::new();
        for zone in zones {
            let length = |rule: &[ZoneName]| {
                let holding = rule.iter().filter(|of| of.holds(zone.as_str()));
                holding.map(|of| of.as_str().len()).max()
            };
            let rules = transfer.rules.iter();
            let rules = rules.filter_map(|(zones, to)| Some((length(zones)?, to)));
            let longest = rules.max_by_key(|(length, _)| *length);
            let (Some((_, to)), Ok(name)) = (longest, Name::parse(zone.as_str())) else {
                continue;
            };
            copies.extend(to.addresses.iter().map(|address| (name.clone(), *address)));
        }
        if copies.len() > COPIES_MAX {
            let left = copies.len() - COPIES_MAX;
            tracing::warn!(
                "transfer: {left} of {} copies are not told of changes; {COPIES_MAX} are the most",
                copies.len()
            );
            copies.truncate(COPIES_MAX);
        }
        (!copies.is_empty()).then(|| Notifier {
            copies,
            told: Mutex::default(),
        })
    }

    /// Tells of a serial that has not been told, at most once in [`INTERVAL`]; inside tokio's runtime.
    pub fn tick(&self, serial: Option<u32>, now: Instant) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_early = told.next.is_some_and(|next| now < next);
        if serial.is_none() || serial == told.serial || is_early {
            return;
        }
        told.serial = serial;
        told.next = Some(now + INTERVAL);
        // Who has not answered the last notice gets a new one.
        told.telling = JoinSet::new();
        for (zone, to) in self.copies.clone() {
            told.telling.spawn(tell(zone, to));
        }
    }
}

async fn tell(zone: Name, to: SocketAddr) {
    for _ in 0..TRIES_MAX {
        match tokio::time::timeout(PATIENCE, try_to_tell(&zone, to)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                tracing::debug!(%to, %zone, "a notice could not be sent: {error}");
                tokio::time::sleep(PATIENCE).await;
            }
            Err(_) => {}
        }
    }
    tracing::warn!("{to} does not answer that {zone} has changed; it will see that by itself");
}

/// Sends once, and waits for the answer.
async fn try_to_tell(zone: &Name, to: SocketAddr) -> std::io::Result<()> {
    let id: [u8; 2] = random::bytes()?;
    let socket = UdpSocket::bind(local_address(to, None)).await?;
    socket.connect(to).await?;
    socket.send(&notice(id, zone)).await?;
    let mut answer = [0; 512];
    loop {
        let length = socket.recv(&mut answer).await?;
        let answer = &answer[..length];
        let is_answer = length >= HEADER_BYTES && answer[2] >> 3 == 0x10 | opcode::NOTIFY;
        if is_answer && answer[..2] == id {
            return Ok(());
        }
    }
}

/// The whole message: a question for SOA, authoritative (RFC 1996, section 3.7).
fn notice(id: [u8; 2], zone: &Name) -> Vec<u8> {
    const AUTHORITATIVE: u8 = 4;
    let flags = [opcode::NOTIFY << 3 | AUTHORITATIVE, 0];
    let counts = [0, 1, 0, 0, 0, 0, 0, 0];
    let question = [rtype::SOA, class::IN].map(u16::to_be_bytes).concat();
    [&id[..], &flags, &counts, zone.as_wire(), &question].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::plugin::kubernetes::Receivers;
    use crate::wire::Query;

    fn zone(text: &str) -> ZoneName {
        ZoneName::parse(text).unwrap()
    }

    fn to(addresses: Vec<SocketAddr>) -> Receivers {
        Receivers {
            anyone: true,
            addresses,
        }
    }

    #[tokio::test]
    async fn changes_are_told_together_and_again_until_there_is_an_answer() {
        let copy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let here = copy.local_addr().unwrap();
        let rules = vec![(vec![zone("cluster.local")], to(vec![here]))];
        let zones = [zone("cluster.local"), zone("10.in-addr.arpa")];
        let notifier = Notifier::new(&Transfer { rules }, &zones).unwrap();
        assert_eq!(notifier.copies.len(), 1, "the other zone has no copies");

        let began = Instant::now();
        notifier.tick(None, began);
        assert!(notifier.told.lock().unwrap().telling.is_empty());
        notifier.tick(Some(7), began);
        let mut buffer = [0; 512];
        let (length, from) = copy.recv_from(&mut buffer).await.unwrap();
        assert_eq!(buffer[2] >> 3, opcode::NOTIFY);
        let query = Query::read(&buffer[..length]).unwrap();
        assert_eq!((query.rtype, query.class), (rtype::SOA, class::IN));
        assert_eq!(query.name, b"\x07cluster\x05local\0");
        // Somebody else's answer is none.
        copy.send_to(&[0; 12], from).await.unwrap();
        // No answer: the same notice once more.
        let (length, from) = copy.recv_from(&mut buffer).await.unwrap();
        buffer[2] |= 0x80;
        copy.send_to(&buffer[..length], from).await.unwrap();
        let mut telling = std::mem::take(&mut notifier.told.lock().unwrap().telling);
        while telling.join_next().await.is_some() {}

        // Two changes within the interval are one notice at its end.
        for (serial, after) in [(8, 1), (9, 2), (9, 4)] {
            notifier.tick(Some(serial), began + Duration::from_secs(after));
            assert!(notifier.told.lock().unwrap().telling.is_empty());
        }
        notifier.tick(Some(9), began + INTERVAL);
        copy.recv_from(&mut buffer).await.unwrap();
        notifier.tick(Some(9), began + 3 * INTERVAL);
        assert_eq!(notifier.told.lock().unwrap().telling.len(), 1, "told once");
    }

    #[test]
    fn no_more_copies_are_told_than_there_is_room_for() {
        let many = (0..COPIES_MAX as u16 + 10).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let rules = vec![(vec![ZoneName::root()], to(many.collect()))];
        let notifier = Notifier::new(&Transfer { rules }, &[zone("cluster.local")]).unwrap();
        assert_eq!(notifier.copies.len(), COPIES_MAX);
        let anyone = vec![(vec![ZoneName::root()], to(Vec::new()))];
        assert!(Notifier::new(&Transfer { rules: anyone }, &[zone("cluster.local")]).is_none());
    }
}
