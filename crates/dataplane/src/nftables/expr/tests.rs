//! How much is loaded, and how rules are recognised.

use super::*;

#[test]
fn fields_are_as_long_as_in_the_kernel() {
    let short = [Field::Source, Field::Destination];
    assert_eq!(short.map(|field| field.len(Family::V4)), [4, 4]);
    assert_eq!(short.map(|field| field.len(Family::V6)), [16, 16]);
    for family in Family::ALL {
        let len = |field: Field| field.len(family);
        assert_eq!(len(Field::Protocol), 1);
        assert_eq!([Field::Port, Field::SourcePort].map(len), [2, 2]);
        let words = [Field::Interface, Field::Mark, Field::Status];
        assert_eq!(words.map(len), [4, 4, 4]);
        // IFNAMSIZ of include/uapi/linux/if.h.
        assert_eq!(len(Field::InterfaceName), 16);
    }
}

/// Vectors of draft-eastlake-fnv.
#[test]
fn the_hash_is_fnv_1a() {
    assert_eq!(fnv(FORMAT, b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv(FORMAT, b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fnv(FORMAT, b"foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn other_rules_and_another_order_have_other_digests() {
    let rules = [
        Rule(vec![Expr::Drop]),
        Rule(vec![Expr::Masquerade]),
        Rule(vec![Expr::Masquerade, Expr::Drop]),
        Rule(vec![Expr::Drop, Expr::Masquerade]),
    ];
    for family in Family::ALL {
        let mut digests: Vec<u64> = rules.iter().map(|rule| rule.digest(family)).collect();
        let forth = digest_of(digests.iter().copied());
        assert_ne!(forth, digest_of(digests.iter().rev().copied()));
        assert_ne!(forth, digest_of(digests[..3].iter().copied()));
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), rules.len());
        assert!(
            !digests.contains(&0),
            "0 stands for a rule without a digest"
        );
    }
}
