//! A clock for what is begun often and hardly ever too late. It goes off once in a while to look whether it was set anew
//! meanwhile, so that setting it costs nothing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A clock that may be set to another time at every look.
#[derive(Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready when it is so late; until then the task is woken up in time.
    pub(super) fn poll_until(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= until {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_can_be_set_to_later_and_to_sooner() {
        let (mut alarm, begun) = (Alarm::default(), Instant::now());
        let after = |ms| begun + Duration::from_millis(ms);
        let hour = after(3_600_000);
        let is_late = poll_fn(|cx| Poll::Ready(alarm.poll_until(cx, hour).is_ready())).await;
        assert!(!is_late);
        poll_fn(|cx| alarm.poll_until(cx, after(5))).await;
        assert!(
            begun.elapsed() >= Duration::from_millis(5),
            "it was set to sooner"
        );
        poll_fn(|cx| alarm.poll_until(cx, after(20))).await;
        assert!(
            begun.elapsed() >= Duration::from_millis(20),
            "it was set to later"
        );
        let is_late = poll_fn(|cx| Poll::Ready(alarm.poll_until(cx, hour).is_ready())).await;
        assert!(!is_late);
    }
}
