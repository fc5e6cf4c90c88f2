//! Hears of new connections from conntrack, never at the cost of much.
//!
//! When more connections begin than are worth hearing of, the kernel is told to be quiet for a while: what is seen then
//! is a sample, and an endpoint that does not answer is in it soon.

use std::time::Duration;

use portolan_kernel::conntrack::NewFlows;
use portolan_model::health::FlowKey;
use portolan_model::{ApplyError, Listener};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// In each span of this length …
const SPAN: Duration = Duration::from_millis(100);
/// … so many new flows are heard of at most: 5 000 in a second, a few hundredths of a core.
const HEARD_MAX: usize = 500;
/// After a word so much time passes before the next ones are heard, together: a wake-up costs more than a word.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Ear {
    flows: AsyncFd<NewFlows>,
    span: Span,
    /// Not before this.
    next: Duration,
}

/// How much of a span is left.
#[derive(Debug)]
struct Span {
    began: Duration,
    left: usize,
}

impl Span {
    /// How many may be heard at `now`; none when the span is used up.
    fn room(&mut self, now: Duration) -> usize {
        if now >= self.began + SPAN {
            self.began = now;
            self.left = HEARD_MAX;
        }
        self.left
    }

    /// When there is room again, if there is none.
    fn rests_until(&self) -> Option<Duration> {
        (self.left == 0).then(|| self.began + SPAN)
    }
}

impl Ear {
    /// Hears of these, which are listened to, within the runtime that the calling thread is in.
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe; NewFlows never exchanges its descriptor, which is all that is asked for"
    )]
    pub(super) fn of(flows: NewFlows) -> anyhow::Result<Self> {
        Ok(Ear {
            flows: AsyncFd::with_interest(flows, Interest::READABLE)?,
            span: Span {
                began: Duration::ZERO,
                left: HEARD_MAX,
            },
            next: Duration::ZERO,
        })
    }

    /// When [`Ear::ready`] is worth another try.
    pub(super) fn due(&self, now: Duration) -> Option<Duration> {
        let next = self.span.rests_until().unwrap_or(self.next);
        (next > now || self.span.left == 0).then_some(next)
    }

    /// Listens again after a rest.
    pub(super) fn wake(&mut self, now: Duration) {
        if self.span.left == 0
            && self.span.room(now) > 0
            && let Err(error) = self.flows.get_ref().listen()
        {
            tracing::warn!(%error, "endpoints that do not answer are not noticed for a while");
        }
    }

    /// Waits until something can be heard; for ever during a pause.
    pub(super) async fn ready(&self, now: Duration) {
        if self.span.left == 0 || now < self.next {
            return std::future::pending().await;
        }
        match self.flows.readable().await {
            // Everything that waits is taken, or thrown away.
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Tells the new connections that wait.
    pub(super) fn hear(
        &mut self,
        now: Duration,
        tell: impl FnMut(FlowKey, Listener),
    ) -> Result<(), ApplyError> {
        let room = self.span.room(now);
        let taken = self.flows.get_mut().take(room, tell);
        let heard = *taken.as_ref().unwrap_or(&room);
        self.span.left = room.saturating_sub(heard);
        self.next = now + PAUSE;
        if self.span.left == 0 {
            self.flows.get_mut().rest()?;
        }
        taken.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_that_is_used_up_rests_until_its_end() {
        let at = Duration::from_millis;
        let mut span = Span {
            began: at(0),
            left: HEARD_MAX,
        };
        assert_eq!((span.room(at(30)), span.rests_until()), (HEARD_MAX, None));
        span.left = 0;
        assert_eq!((span.room(at(99)), span.rests_until()), (0, Some(SPAN)));
        assert_eq!(span.room(at(100)), HEARD_MAX);
    }
}
