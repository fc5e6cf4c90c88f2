//! One answer as it is kept.

use std::time::{Duration, Instant};

use super::seconds;
use crate::message::{Message, encoded_for};
use crate::wire::{HEADER_BYTES, Query, skip_name};

/// Largest message that is kept: what is larger is asked for rarely, and would push out hundreds of others.
pub const ENTRY_BYTES_MAX: usize = 8192;
/// OPT without options.
const OPT_BYTES: usize = 11;

/// A message on the wire, without OPT, and what is known of it.
pub(super) struct Entry {
    message: Box<[u8]>,
    /// Where times to live stand in it.
    ttls: Box<[u16]>,
    stored: Instant,
    ttl: u32,
    /// Queries since there was a gap, and the last one.
    asked: u32,
    last: Instant,
}

impl Entry {
    /// `None` when it is too large.
    pub(super) fn new(message: &Message, ttl: u32, now: Instant) -> Option<Entry> {
        let bytes = message.encoded(None, ENTRY_BYTES_MAX);
        // What did not fit has set TC, or taken away additional records, which nobody misses.
        if bytes[2] & 2 != 0 {
            return None;
        }
        Some(Entry {
            ttls: places(&bytes)?,
            message: bytes.into(),
            stored: now,
            ttl,
            asked: 0,
            last: now,
        })
    }

    /// Seconds that are left; `None` when it has ended.
    pub(super) fn left(&self, now: Instant) -> Option<u32> {
        self.ttl
            .checked_sub(seconds(self.stored, now))
            .filter(|left| *left > 0)
    }

    /// How long ago it has ended.
    pub(super) fn ended_before(&self, now: Instant) -> Duration {
        let end = self.stored + Duration::from_secs(u64::from(self.ttl));
        now.saturating_duration_since(end)
    }

    /// How long it was to be kept.
    pub(super) fn ttl(&self) -> u32 {
        self.ttl
    }

    /// Counts one more query, and says how many there were with no gap.
    pub(super) fn ask(&mut self, now: Instant, gap: Duration) -> u32 {
        if now.saturating_duration_since(self.last) > gap {
            self.asked = 0;
        }
        self.last = now;
        self.asked = self.asked.saturating_add(1);
        self.asked
    }

    pub(super) fn forget_asked(&mut self) {
        self.asked = 0;
    }

    pub(super) fn bytes(&self) -> usize {
        self.message.len() + 2 * self.ttls.len()
    }

    /// Writes the answer for a client; `ttl` is what it sees, if not what came.
    pub(super) fn write(
        &self,
        query: &Query<'_>,
        bytes_max: usize,
        ttl: Option<u32>,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        out.extend_from_slice(&self.message);
        for place in self.ttls.iter().map(|place| usize::from(*place)) {
            if let Some(ttl) = ttl {
                out[place..place + 4].copy_from_slice(&ttl.to_be_bytes());
            }
        }
        let opt = query.edns.map_or(0, |_| OPT_BYTES);
        if out.len() + opt > bytes_max {
            // Too large for this client: rare enough to be done the long way.
            if let Ok(message) = Message::read(out) {
                *out = encoded_for(query, &message, bytes_max);
            }
            return;
        }
        out[..2].copy_from_slice(&query.id.to_be_bytes());
        out[2] = out[2] & !1 | u8::from(query.recursion_desired);
        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        if !query.authentic_data && !dnssec_ok {
            out[3] &= !0x20;
        }
        out[3] = out[3] & !0x10 | u8::from(query.checking_disabled) << 4;
        out[HEADER_BYTES..HEADER_BYTES + query.name.len()].copy_from_slice(query.name);
        if let Some(edns) = query.edns {
            out.extend_from_slice(&[0, 0, 41]);
            out.extend_from_slice(&edns.payload.to_be_bytes());
            out.extend_from_slice(&[0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
            out[11] += 1;
        }
    }
}

/// Where the times to live of all records stand.
fn places(message: &[u8]) -> Option<Box<[u16]>> {
    let count = |at: usize| usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    let records = count(6) + count(8) + count(10);
    let mut at = skip_name(message, HEADER_BYTES)? + 4;
    let mut places = Vec::with_capacity(records);
    for _ in 0..records {
        at = behind_name(message, at)?;
        places.push(u16::try_from(at + 4).ok()?);
        let length = message.get(at + 8..)?.first_chunk::<2>()?;
        at += 10 + usize::from(u16::from_be_bytes(*length));
    }
    Some(places.into())
}

/// Behind a name that may end with a pointer; the message is one of ours.
fn behind_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return Some(at + 2),
        }
    }
}
