//! Many addresses and ports of one family, sorted, in as little memory as they need.
//!
//! A `SocketAddr` has room for IPv6 and takes 32 bytes; an IPv4 address with its port takes 6 bytes here. A State holds
//! one for each endpoint.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses of one family, sorted, each once. They cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    V4(Box<[([u8; 4], [u8; 2])]>),
    V6(Box<[([u8; 16], [u8; 2])]>),
}

impl Default for Addresses {
    fn default() -> Self {
        Addresses::V4(Box::default())
    }
}

impl Addresses {
    /// These ones, which are sorted, all of the family of the first.
    pub fn of(sorted: &[SocketAddr]) -> Self {
        debug_assert!(sorted.is_sorted(), "lists of the model are sorted");
        let port = |to: &SocketAddr| to.port().to_be_bytes();
        match sorted.first() {
            None | Some(SocketAddr::V4(_)) => {
                let v4 = |to: &SocketAddr| match to {
                    SocketAddr::V4(v4) => Some((v4.ip().octets(), port(to))),
                    SocketAddr::V6(_) => None,
                };
                Addresses::V4(sorted.iter().filter_map(v4).collect())
            }
            Some(SocketAddr::V6(_)) => {
                let v6 = |to: &SocketAddr| match to {
                    SocketAddr::V4(_) => None,
                    SocketAddr::V6(v6) => Some((v6.ip().octets(), port(to))),
                };
                Addresses::V6(sorted.iter().filter_map(v6).collect())
            }
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Addresses::V4(all) => all.len(),
            Addresses::V6(all) => all.len(),
        }
    }

    pub fn get(&self, index: usize) -> Option<SocketAddr> {
        match self {
            Addresses::V4(all) => all
                .get(index)
                .map(|(ip, port)| (Ipv4Addr::from(*ip), u16::from_be_bytes(*port)).into()),
            Addresses::V6(all) => all
                .get(index)
                .map(|(ip, port)| (Ipv6Addr::from(*ip), u16::from_be_bytes(*port)).into()),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Costs O(log n).
    pub fn contains(&self, to: SocketAddr) -> bool {
        let port = to.port().to_be_bytes();
        match (self, to) {
            (Addresses::V4(all), SocketAddr::V4(v4)) => {
                all.binary_search(&(v4.ip().octets(), port)).is_ok()
            }
            (Addresses::V6(all), SocketAddr::V6(v6)) => {
                all.binary_search(&(v6.ip().octets(), port)).is_ok()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        for texts in [
            &["10.1.0.10:53", "10.1.0.10:8080", "10.2.0.1:80"][..],
            &["[fd00:10::1]:80", "[fd00:10::2]:443"],
            &[],
        ] {
            let sorted = given(texts);
            let kept = Addresses::of(&sorted);
            assert_eq!(kept.iter().collect::<Vec<_>>(), sorted);
            assert_eq!(kept.len(), sorted.len());
            assert!(sorted.iter().all(|to| kept.contains(*to)));
            assert_eq!(kept.get(sorted.len()), None);
        }
    }

    #[test]
    fn nobody_is_nobody() {
        assert_eq!(Addresses::default(), Addresses::of(&[]));
    }

    #[test]
    fn others_are_not_in_it() {
        let kept = Addresses::of(&given(&["10.1.0.10:53", "10.2.0.1:80"]));
        for other in given(&["10.1.0.10:54", "10.1.0.11:53", "[fd00::1]:53"]) {
            assert!(!kept.contains(other), "{other}");
        }
    }

    #[test]
    fn an_ipv4_address_takes_six_bytes() {
        assert_eq!(size_of::<([u8; 4], [u8; 2])>(), 6);
    }
}
