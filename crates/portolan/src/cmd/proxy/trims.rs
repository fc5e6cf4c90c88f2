//! When the memory is given back that big steps, such as the first one, have left behind: as soon as it is calm.

use std::time::Duration;

/// A step that compiles so many ports or routes leaves megabytes behind that are not needed again soon.
const PORTS_MIN: usize = 1_000;

/// So long after such a step, the connections to the API have put away what they read as well.
const CALM: Duration = Duration::from_secs(1);

/// Waits for the right moment.
#[derive(Debug, Default)]
pub(in crate::cmd) struct Trims {
    due: Option<Duration>,
}

impl Trims {
    /// When to look again, if there is something to be given back.
    pub(in crate::cmd) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// A step has compiled so many ports or routes.
    pub(in crate::cmd) fn on_step(&mut self, now: Duration, compiled: usize) {
        if compiled >= PORTS_MIN {
            self.due = Some(now + CALM);
        }
    }

    /// Whether now is the moment; true once.
    pub(in crate::cmd) fn step(&mut self, now: Duration) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_when_it_is_calm() {
        let mut trims = Trims::default();
        trims.on_step(Duration::ZERO, PORTS_MIN - 1);
        assert_eq!(trims.due(), None);
        trims.on_step(Duration::ZERO, PORTS_MIN);
        trims.on_step(CALM / 2, PORTS_MIN);
        trims.on_step(CALM, 1);
        assert!(!trims.step(CALM));
        assert_eq!(trims.due(), Some(CALM * 3 / 2));
        assert!(trims.step(CALM * 3 / 2));
        assert!(!trims.step(CALM * 2));
    }
}
