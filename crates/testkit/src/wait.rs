//! Waiting until something holds, with a deadline: the one place of the tests that polls.

use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// Returns true as soon as `holds` does, false when it still does not after `patience`.
#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two looks; no test depends on its length"
)]
pub fn until(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    true
}
