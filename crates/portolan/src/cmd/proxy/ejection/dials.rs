//! Hears of the connections that the relay of userspace mode makes: conntrack would only tell of those to the relay.

use std::time::Duration;

use portolan_relay::Dial;
use tokio::sync::mpsc;

/// Connections that may wait to be heard of; more are not heard of, and one of many is enough.
pub(in super::super) const DIALS_WAITING_MAX: usize = 512;
/// After a word so much time passes before the next ones are heard, together: a wake-up costs more than a word.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Dials {
    told: mpsc::Receiver<Dial>,
    heard: Vec<Dial>,
    /// Not before this.
    next: Duration,
}

impl Dials {
    pub(super) fn new(told: mpsc::Receiver<Dial>) -> Self {
        Dials {
            told,
            heard: Vec::with_capacity(DIALS_WAITING_MAX),
            next: Duration::ZERO,
        }
    }

    /// When [`Dials::ready`] is worth another try, if not now.
    pub(super) fn due(&self, now: Duration) -> Option<Duration> {
        (self.next > now && !self.told.is_empty()).then_some(self.next)
    }

    /// Waits until there is something to take; for ever during a pause.
    pub(super) async fn ready(&mut self, now: Duration) {
        let room = DIALS_WAITING_MAX - self.heard.len();
        if now < self.next || self.told.recv_many(&mut self.heard, room).await == 0 {
            std::future::pending().await
        }
    }

    /// What there is.
    pub(super) fn take(&mut self, now: Duration) -> Vec<Dial> {
        self.next = now + PAUSE;
        std::mem::take(&mut self.heard)
    }
}
