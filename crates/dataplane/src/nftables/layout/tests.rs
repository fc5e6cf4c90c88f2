//! What the kernel is told of tables, beside its own words.

use super::*;

/// An address, a protocol, a port as they stand in headers (RFC 791, 8200, 9293), and a word of the machine.
#[test]
fn parts_are_as_long_as_in_headers() {
    let parts = [Part::Address, Part::Protocol, Part::Port, Part::Number];
    assert_eq!(parts.map(|part| part.len(Family::V4)), [4, 1, 2, 4]);
    assert_eq!(parts.map(|part| part.len(Family::V6)), [16, 1, 2, 4]);
    assert_eq!(parts.map(|part| part.registers(Family::V4)), [1, 1, 1, 1]);
    assert_eq!(parts.map(|part| part.registers(Family::V6)), [4, 1, 1, 1]);
}

/// A key and data have sixteen registers of four bytes, in which they must find room together.
#[test]
fn keys_and_data_fit_into_registers() {
    let registers = |parts: &[Part]| -> u32 {
        let each = parts.iter().map(|part| part.registers(Family::V6));
        each.map(u32::from).sum()
    };
    for set in SetName::ALL {
        let (key, data) = (registers(set.key()), registers(set.data()));
        assert!(key > 0 && key <= 16 && data <= 16, "{set:?}");
        assert!(!set.has_verdicts() || data == 0, "{set:?}");
    }
}

#[test]
fn every_set_is_found_by_its_name() {
    for set in SetName::ALL {
        assert_eq!(SetName::named(set.name()), Some(set));
    }
    assert_eq!(SetName::named("flows"), None);
}

/// Only ranges are asked of the kernel where there are ranges, only clients are forgotten.
#[test]
fn sets_are_kept_as_they_are_used() {
    for set in SetName::ALL {
        let kind = match set {
            SetName::Allowed => Kind::ConcatRanges,
            SetName::PodCidrs | SetName::ServiceCidrs => Kind::Ranges,
            SetName::Affinity => Kind::Memory,
            _ => Kind::Hash,
        };
        assert_eq!(set.kind(), kind, "{set:?}");
    }
}

/// `enum nf_inet_hooks` in include/uapi/linux/netfilter.h, and the priorities of destination and source NAT
/// (`NF_IP_PRI_NAT_DST`, `NF_IP_PRI_NAT_SRC`) in include/uapi/linux/netfilter_ipv4.h.
#[test]
fn chains_hang_where_nat_is_done() {
    let hooks = BaseChain::ALL.map(BaseChain::hook);
    let [services, prerouting, output, postrouting] = hooks;
    assert_eq!(services, None);
    assert_eq!(prerouting, Some((0, -100)));
    assert_eq!(output, Some((3, -100)));
    assert_eq!(postrouting, Some((4, 100)));
}
