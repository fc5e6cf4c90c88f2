//! Clients that stay with their endpoint by a cookie, as ingress-nginx has it (`affinity: cookie`). Pure: random numbers
//! are arguments.
//!
//! ```text
//!   balanced:   cookie = any text ─hash─▶ endpoint       some clients move when endpoints come and go
//!   persistent: cookie = mark of an endpoint ─▶ it       clients move when their endpoint goes
//! ```
//!
//! Nothing is kept here: every thread and every gateway reads the same cookie in the same way.

use std::fmt::Write;
use std::net::SocketAddr;

use http::HeaderValue;
use sha2::{Digest, Sha256};

use crate::policy::Affinity;
use crate::roster::Roster;

/// Texts that are tried until one leads to the endpoint that has answered (balanced mode, change-on-failure): with up to
/// 200 endpoints one of so many does nearly surely. Otherwise the cookie stays as it is.
const TEXTS_MAX: usize = 1000;

/// Bytes of a cookie that are looked at; ours have 32.
const VALUE_BYTES_MAX: usize = 256;

/// The cookie of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Its name.
    pub name: String,
    /// What stands behind its value, but for `Secure`.
    attributes: String,
    /// Whether only TLS carries it; if `None`, when the request came by TLS.
    secure: Option<bool>,
    /// Whether a client whose endpoint does not answer stays with the one that does.
    changes_on_failure: bool,
    is_persistent: bool,
}

/// Where a request wants to go, and what its client has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The endpoint, if it is still there.
    pub(crate) endpoint: Option<SocketAddr>,
    /// A value that leads there and that the client does not have yet.
    new: Option<String>,
}

impl Sticky {
    /// As annotations say.
    pub fn of(affinity: &Affinity) -> Sticky {
        let path = affinity.path.as_deref().unwrap_or("/");
        let mut attributes = format!("; Path={path}");
        if let Some(domain) = &affinity.domain {
            let _ = write!(attributes, "; Domain={domain}");
        }
        if let Some(seconds) = affinity.max_age {
            let _ = write!(attributes, "; Max-Age={seconds}");
        }
        attributes.push_str("; HttpOnly");
        if let Some(same_site) = &affinity.same_site {
            let _ = write!(attributes, "; SameSite={same_site}");
        }
        if affinity.is_partitioned {
            attributes.push_str("; Partitioned");
        }
        Sticky {
            name: affinity.name.clone(),
            attributes,
            secure: affinity.secure,
            changes_on_failure: affinity.change_on_failure,
            is_persistent: affinity.is_persistent,
        }
    }

    /// Where a request with this cookie wants to go.
    pub(crate) fn wish(&self, roster: &Roster, given: Option<&str>, drawn: u128) -> Wish {
        let given = given.filter(|text| !text.is_empty() && text.len() <= VALUE_BYTES_MAX);
        if self.is_persistent {
            return Wish {
                endpoint: given.and_then(|text| roster.marked(text, mark)),
                new: None,
            };
        }
        let text = format!("{drawn:032x}");
        Wish {
            endpoint: by_text(roster, given.unwrap_or(&text)),
            new: given.is_none().then_some(text),
        }
    }

    /// `Set-Cookie` for the answer of this endpoint, if the client has to be told something.
    pub(crate) fn cookie(
        &self,
        roster: &Roster,
        wish: Wish,
        endpoint: SocketAddr,
        is_tls: bool,
        random: &mut impl FnMut() -> u128,
    ) -> Option<HeaderValue> {
        let is_there = wish.endpoint == Some(endpoint);
        let value = match (is_there, wish.new, wish.endpoint) {
            (true, None, _) => return None,
            (true, Some(text), _) => text,
            // It stays with the one that has failed, unless the operator says otherwise.
            (false, new, Some(_)) if !self.changes_on_failure => new?,
            _ if self.is_persistent => mark(endpoint),
            _ => leading_to(roster, endpoint, random)?,
        };
        let secure = match self.secure.unwrap_or(is_tls) {
            true => "; Secure",
            false => "",
        };
        let text = format!("{}={value}{}{secure}", self.name, self.attributes);
        HeaderValue::from_str(&text).ok()
    }
}

fn by_text(roster: &Roster, text: &str) -> Option<SocketAddr> {
    let index = roster.by_hash(Roster::hash(text.as_bytes()))?;
    roster.choices.addresses.get(index).copied()
}

fn leading_to(
    roster: &Roster,
    endpoint: SocketAddr,
    random: &mut impl FnMut() -> u128,
) -> Option<String> {
    let mut texts = (0..TEXTS_MAX).map(|_| format!("{:032x}", random()));
    texts.find(|text| by_text(roster, text) == Some(endpoint))
}

/// What stands for an endpoint in cookies: addresses of pods are nobody's business.
fn mark(endpoint: SocketAddr) -> String {
    let digest = Sha256::digest(format!("portolan {endpoint}").as_bytes());
    let mut text = String::with_capacity(32);
    for byte in &digest[..16] {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sticky(is_persistent: bool, change_on_failure: bool) -> Sticky {
        Sticky::of(&Affinity {
            name: "route".to_owned(),
            path: Some("/shop".to_owned()),
            domain: None,
            max_age: Some(3600),
            same_site: Some("Lax".to_owned()),
            secure: None,
            change_on_failure,
            is_persistent,
            is_partitioned: false,
        })
    }

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 1, 0, last], 80))
    }

    /// Numbers one after the other.
    fn count() -> impl FnMut() -> u128 {
        let mut number = 0;
        move || {
            number += 1;
            number
        }
    }

    fn value(cookie: &HeaderValue) -> String {
        let text = cookie.to_str().unwrap();
        text["route=".len()..].split(';').next().unwrap().to_owned()
    }

    #[test]
    fn balanced_clients_stay_while_nothing_changes() {
        let (sticky, five) = (sticky(false, false), Roster::of((1..=5).map(at)));
        let mut moved = 0;
        for drawn in 0..200 {
            let wish = sticky.wish(&five, None, drawn);
            let first = wish.endpoint.unwrap();
            let cookie = sticky
                .cookie(&five, wish, first, false, &mut count())
                .unwrap();
            let value = value(&cookie);
            assert_eq!(
                cookie.to_str().unwrap(),
                format!("route={value}; Path=/shop; Max-Age=3600; HttpOnly; SameSite=Lax")
            );
            let again = sticky.wish(&five, Some(&value), 7);
            assert_eq!(again.endpoint, Some(first));
            assert_eq!(sticky.cookie(&five, again, first, true, &mut count()), None);
            let six = Roster::of((1..=6).map(at));
            moved += usize::from(sticky.wish(&six, Some(&value), 7).endpoint != Some(first));
        }
        assert!((1..80).contains(&moved), "{moved} of 200 went to the sixth");
    }

    #[test]
    fn persistent_clients_stay_until_their_endpoint_goes() {
        let (sticky, two) = (sticky(true, false), Roster::of([at(1), at(2)]));
        let wish = sticky.wish(&two, None, 0);
        assert_eq!(wish.endpoint, None);
        let cookie = sticky
            .cookie(&two, wish, at(2), true, &mut count())
            .unwrap();
        assert!(cookie.to_str().unwrap().ends_with("; SameSite=Lax; Secure"));
        let value = value(&cookie);
        assert!(!value.contains("10.1"));
        let more = Roster::of((1..=9).map(at));
        assert_eq!(sticky.wish(&more, Some(&value), 0).endpoint, Some(at(2)));
        let gone = sticky.wish(&Roster::of([at(1)]), Some(&value), 0);
        assert_eq!(gone.endpoint, None);
        assert!(
            sticky
                .cookie(&more, gone, at(1), true, &mut count())
                .is_some()
        );
    }

    #[test]
    fn who_fails_is_left_for_good_only_when_that_is_wanted() {
        let five = Roster::of((1..=5).map(at));
        for is_persistent in [false, true] {
            let given = match is_persistent {
                false => "some text of nginx".to_owned(),
                true => mark(at(3)),
            };
            let (stays, goes) = (sticky(is_persistent, false), sticky(is_persistent, true));
            let wish = stays.wish(&five, Some(&given), 0);
            let own = wish.endpoint.unwrap();
            let other = if own == at(1) { at(2) } else { at(1) };
            let told = stays.cookie(&five, wish.clone(), other, false, &mut count());
            assert_eq!(told, None);
            let told = goes
                .cookie(&five, wish, other, false, &mut count())
                .unwrap();
            let next = goes.wish(&five, Some(&value(&told)), 0);
            assert_eq!(next.endpoint, Some(other));
        }
    }

    #[test]
    fn texts_are_tried_so_often_only() {
        let two = Roster::of([at(1), at(2)]);
        let mut tried = 0;
        let mut random = || {
            tried += 1;
            0
        };
        assert_eq!(leading_to(&two, at(9), &mut random), None);
        assert_eq!(tried, TEXTS_MAX);
        let sticky = sticky(false, false);
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        assert!(sticky.wish(&two, Some(&long), 5).new.is_some());
    }
}
