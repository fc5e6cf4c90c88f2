//! One other server: how it is asked, and how it has been lately.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::sync::Notify;

use super::datagram::{self, Came};
use super::https::Https;
use super::stream::Streams;
use super::tls::{self, TlsError};
use super::{Ask, Failure, TRY_TIMEOUT};
use crate::corefile::plugin::forward::{Forward as Options, To};
use crate::message::Message;

/// Upper bounds of the buckets of the time that answers take, in microseconds; CoreDNS' numbers.
pub const BUCKETS_US: [u64; 16] = [
    250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000,
    1_024_000, 2_048_000, 4_096_000, 8_192_000,
];

/// What is counted about one server.
#[derive(Debug, Default)]
pub struct Counts {
    /// Answers by their time; the last is for all that took longer.
    pub times: [AtomicU64; BUCKETS_US.len() + 1],
    /// Microseconds of all answers together.
    pub time_us: AtomicU64,
    /// Checks that have failed.
    pub checks_failed: AtomicU64,
    /// Queries on a connection that was there.
    pub reused: AtomicU64,
    /// Queries on a new one.
    pub opened: AtomicU64,
}

enum Way {
    Plain { to: SocketAddr, streams: Streams },
    Tls(Streams),
    Https(Https),
}

/// One other server.
pub struct Server {
    /// As people write it.
    pub label: String,
    way: Way,
    source: Option<IpAddr>,
    force_tcp: bool,
    /// Whether it keeps the case of letters, as far as we know.
    keeps_case: AtomicBool,
    /// Checks that have failed in a row.
    pub(super) fails: AtomicU32,
    /// Wakes the task that checks.
    pub(super) failed: Notify,
    /// Our own query came back to us.
    pub(super) looping: AtomicBool,
    /// The name by which we would know such a query.
    pub(super) token: String,
    /// What is counted.
    pub counts: Counts,
}

impl Server {
    /// Sets up one of the servers of a `forward`; a [`To::File`] is none.
    pub(super) fn new(to: &To, options: &Options) -> Result<Server, TlsError> {
        let streams = |address, tls| Streams::new(address, options.source, options.expire, tls);
        let (label, way) = match to {
            To::Dns(to) => (
                to.to_string(),
                Way::Plain {
                    to: *to,
                    streams: streams(*to, None),
                },
            ),
            To::Tls(to, name) => {
                let wanted = name.as_ref().or(options.tls.name.as_ref());
                let name = server_name(wanted.unwrap_or(&to.ip().to_string()))?;
                let config = tls::config(&options.tls, &[b"dot"])?;
                (
                    format!("tls://{to}"),
                    Way::Tls(streams(*to, Some((config, name)))),
                )
            }
            To::Https(text) => (text.clone(), Way::Https(https(text, options)?)),
            To::File(path) => return Err(TlsError::Name(path.display().to_string())),
        };
        let [a, b] = super::random::bytes::<16>()
            .map(|bytes| [&bytes[..8], &bytes[8..]].map(hex))
            .unwrap_or_default();
        Ok(Server {
            label,
            way,
            source: options.source,
            force_tcp: options.force_tcp && !options.prefer_udp,
            keeps_case: AtomicBool::new(true),
            fails: AtomicU32::new(0),
            failed: Notify::new(),
            looping: AtomicBool::new(false),
            token: format!("{a}.{b}."),
            counts: Counts::default(),
        })
    }

    /// Whether `fails_max` checks in a row have failed; 0: never.
    pub fn is_down(&self, fails_max: u32) -> bool {
        self.is_looping() || fails_max > 0 && self.fails.load(Ordering::Relaxed) >= fails_max
    }

    /// The name by which we know a query that we have sent to it.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether it was seen to ask us in turn.
    pub fn is_looping(&self) -> bool {
        self.looping.load(Ordering::Relaxed)
    }

    /// Asks it once. What fails wakes the task that looks after it.
    pub async fn ask(&self, ask: &Ask) -> Result<Message, Failure> {
        if self.is_looping() {
            return Err(Failure::Loop);
        }
        let began = Instant::now();
        let result = self.ask_within(ask, TRY_TIMEOUT).await;
        match &result {
            Ok(_) => self.counts.answered(began.elapsed()),
            Err(_) => self.failed.notify_one(),
        }
        result
    }

    pub(super) async fn ask_within(&self, ask: &Ask, time: Duration) -> Result<Message, Failure> {
        let asked = tokio::time::timeout(time, self.ask_way(ask)).await;
        asked.unwrap_or(Err(Failure::Timeout(time)))
    }

    async fn ask_way(&self, ask: &Ask) -> Result<Message, Failure> {
        let (message, reused) = match &self.way {
            Way::Plain { to, streams } if !self.force_tcp => {
                match self.ask_datagram(ask, *to).await? {
                    Some(message) => return Ok(message),
                    None => streams.ask(ask).await?,
                }
            }
            Way::Plain { streams, .. } | Way::Tls(streams) => streams.ask(ask).await?,
            Way::Https(https) => https.ask(ask).await?,
        };
        let count = if reused {
            &self.counts.reused
        } else {
            &self.counts.opened
        };
        count.fetch_add(1, Ordering::Relaxed);
        // A stream cannot be forged: now it is known whether the server keeps case.
        Ok(message)
    }

    /// `None`: the answer has to be fetched over TCP.
    async fn ask_datagram(&self, ask: &Ask, to: SocketAddr) -> Result<Option<Message>, Failure> {
        let mixed = self.keeps_case.load(Ordering::Relaxed);
        match datagram::ask(ask, to, self.source, mixed).await {
            Ok(Came::Answer(message)) if !message.truncated => Ok(Some(message)),
            Ok(Came::Answer(_)) | Err(Failure::Mismatch) => Ok(None),
            Ok(Came::OtherCase) => {
                self.keeps_case.store(false, Ordering::Relaxed);
                let server = &self.label;
                tracing::warn!(
                    server,
                    "it does not keep the case of letters, one guard less against forged answers"
                );
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }
}

impl Counts {
    fn answered(&self, time: Duration) {
        let time_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < time_us);
        self.times[bucket].fetch_add(1, Ordering::Relaxed);
        self.time_us.fetch_add(time_us, Ordering::Relaxed);
    }
}

fn https(text: &str, options: &Options) -> Result<Https, TlsError> {
    let wrong = || TlsError::Name(text.to_string());
    let url = url::Url::parse(text).map_err(|_| wrong())?;
    let host = url
        .host_str()
        .ok_or_else(wrong)?
        .trim_matches(['[', ']'])
        .to_string();
    let name = server_name(options.tls.name.as_ref().unwrap_or(&host))?;
    Ok(Https::new(url, tls::config(&options.tls, &[b"h2"])?, name))
}

fn server_name(text: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(text.to_string()).map_err(|_| TlsError::Name(text.to_string()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
