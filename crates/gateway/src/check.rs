//! Health checks of the gateway's own: when an endpoint counts as sick, and as well again. Pure: who asks and what time it
//! is are others' business.

use std::time::Duration;

use http::HeaderValue;
use http::uri::PathAndQuery;

/// The shortest time between two checks of one endpoint: more would be load, and no news.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What is asked, how often, and how often an answer must come to change something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    /// Path and query of the request.
    pub path: String,
    /// Its `Host`; the endpoint's address if `None`.
    pub host: Option<String>,
    /// Time between two checks of an endpoint.
    pub interval: Duration,
    /// An answer must come in this time.
    pub timeout: Duration,
    /// So many failures in a row make an endpoint sick; at least 1.
    pub fall: u32,
    /// So many good answers in a row make it well again; at least 1.
    pub rise: u32,
}

impl Check {
    /// Of this path, with the usual numbers: those of haproxy (`fall 3`, `rise 2`), every 5 s.
    pub fn of(path: &str) -> Check {
        Check {
            path: path.to_owned(),
            host: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            fall: 3,
            rise: 2,
        }
    }

    /// Whether a text can be asked for.
    pub fn is_path(text: &str) -> bool {
        text.starts_with('/') && text.parse::<PathAndQuery>().is_ok()
    }

    /// Whether a text can stand in `Host`.
    pub fn is_host(text: &str) -> bool {
        !text.is_empty()
            && HeaderValue::from_str(text).is_ok()
            && text.parse::<http::uri::Authority>().is_ok()
    }
}

/// What checks have said of an endpoint so far. It begins well: Kubernetes says that it is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Answers in a row that speak against what it counts as.
    against: u32,
    pub(crate) is_sick: bool,
}

impl Health {
    /// Takes in an answer; whether that changes what the endpoint counts as.
    pub(crate) fn heard(&mut self, is_good: bool, check: &Check) -> bool {
        if is_good != self.is_sick {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = if is_good { check.rise } else { check.fall };
        let changes = self.against >= needed;
        if changes {
            self.against = 0;
            self.is_sick = !is_good;
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_answers_in_a_row_change_something() {
        let check = Check::of("/");
        let mut health = Health::default();
        let after = |health: &mut Health, answers: &[bool]| {
            for answer in answers {
                health.heard(*answer, &check);
            }
            health.is_sick
        };
        assert!(!after(&mut health, &[false, false, true, false, false]));
        assert!(after(&mut health, &[false]));
        assert!(after(&mut health, &[true, false, true]));
        assert!(!after(&mut health, &[true]));
        assert!(!after(&mut health, &[true, true, false, false]));
    }

    #[test]
    fn what_can_be_asked() {
        assert!(Check::is_path("/healthz?full=1"));
        assert!(!Check::is_path("healthz") && !Check::is_path("/a b"));
        assert!(Check::is_host("a.com:80") && !Check::is_host("") && !Check::is_host("a b"));
    }
}
