//! The tables of slots: everybody has their share, and nobody moves without need.

use std::collections::BTreeMap;

use super::*;

fn addresses(count: usize) -> Vec<SocketAddr> {
    (0..count)
        .map(|n| SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 8080)))
        .collect()
}

fn choices(weights: &[u16]) -> Choices {
    Choices::of(addresses(weights.len()).into_iter().zip(weights.to_vec()))
}

/// How many slots each address has, whatever the client.
fn counts(choices: &Choices, balance: Balance) -> BTreeMap<SocketAddr, usize> {
    let mut all = BTreeMap::new();
    for index in choices.slots(balance).unwrap() {
        *all.entry(choices.addresses[usize::from(index)])
            .or_default() += 1;
    }
    all
}

/// What each slot leads to.
fn table(choices: &Choices) -> Vec<SocketAddr> {
    let slots = choices.slots(Balance::Maglev).unwrap();
    let address = |index: &u16| choices.addresses[usize::from(*index)];
    slots.iter().map(address).collect()
}

fn without(choices: &Choices, gone: SocketAddr) -> Choices {
    let weights = choices.weights.as_deref();
    let all = choices.addresses.iter().enumerate();
    let weighed = all.map(|(i, address)| (*address, weights.map_or(1, |w| w[i])));
    Choices::of(weighed.filter(|(address, _)| *address != gone))
}

#[test]
fn equal_weights_need_no_slots() {
    for weights in [&[1, 1, 1][..], &[7, 7], &[0, 0], &[100], &[0], &[3, 0, 3]] {
        let choices = choices(weights);
        assert_eq!(choices.weights, None, "{weights:?}");
        assert_eq!(choices.slots(Balance::Random), None);
        assert_eq!(choices.slots(Balance::RoundRobin), None);
    }
}

#[test]
fn weight_0_counts_only_among_itself() {
    assert_eq!(choices(&[0, 1, 0, 2]).addresses.len(), 2);
    assert_eq!(choices(&[0, 0, 0]).addresses.len(), 3);
    assert!(choices(&[]).is_empty());
}

#[test]
fn nobody_has_no_share() {
    for balance in Balance::ALL {
        let client = "203.0.113.2:40000".parse().unwrap();
        assert_eq!(choices(&[]).shares(balance, client), []);
    }
}

#[test]
fn turns_are_spread_evenly() {
    let slots = |weights: &[u16]| choices(weights).slots(Balance::RoundRobin).unwrap();
    assert_eq!(slots(&[3, 1]), [0, 0, 1, 0]);
    assert_eq!(slots(&[1, 2]), [1, 0, 1]);
    assert_eq!(slots(&[100, 50]), [0, 1, 0]);
    assert_eq!(slots(&[5, 3, 2]), [0, 1, 2, 0, 0, 1, 0, 2, 1, 0]);
}

#[test]
fn slots_have_a_limit() {
    // Forty endpoints are exact, whatever they weigh.
    let weights: Vec<u16> = (0..40).map(|i| WEIGHT_MAX - (i % 2)).collect();
    let exact = counts(&choices(&weights), Balance::Random);
    assert!(
        exact
            .values()
            .zip(&weights)
            .all(|(count, weight)| *count == usize::from(*weight))
    );
    // More are rounded, and everybody keeps a slot.
    let weights: Vec<u16> = (0..2000)
        .map(|i| if i == 0 { 1 } else { 99 + i % 2 })
        .collect();
    let rounded = counts(&choices(&weights), Balance::Random);
    assert_eq!(rounded.len(), 2000);
    assert!(rounded.values().sum::<usize>() <= SLOTS_MAX);
    // As many as there are slots are exact; one more, and the light one still has one.
    let of = |weights: &[u16]| -> Vec<usize> {
        let counted = counts(&choices(weights), Balance::Random);
        counted.into_values().collect()
    };
    let most = SLOTS_MAX as u16;
    assert_eq!(of(&[most - 1, 1]), [SLOTS_MAX - 1, 1]);
    assert_eq!(of(&[most, 1]), [SLOTS_MAX - 3, 1]);
    // More than there are slots weigh the same.
    let weights: Vec<u16> = (0..=SLOTS_MAX as u16).map(|i| 1 + i % 2).collect();
    assert_eq!(choices(&weights).slots(Balance::Random), None);
}

#[test]
fn every_order_reaches_every_slot() {
    for size in TABLE_SIZES {
        let divisor = (2..size)
            .take_while(|d| d * d <= size)
            .find(|d| size % d == 0);
        assert_eq!(divisor, None, "{size} is no prime");
    }
}

#[test]
fn tables_grow_with_the_endpoints() {
    let sizes = [1, 10, 11, 40, 41, 163, 164, 655, 656, ENDPOINTS_MAX].map(table_size);
    let [a, b, c, d, e] = TABLE_SIZES;
    assert_eq!(sizes, [a, a, b, b, c, c, d, d, e, e]);
    let many = choices(&[1; 11]);
    assert_eq!(many.slots(Balance::SourceHash).unwrap().len(), 1021);
    assert_eq!(choices(&[1]).slots(Balance::SourceHash), None);
}

/// Nodes of different versions must agree, so a table that is another one is a breach of what was promised.
#[cfg(target_endian = "little")]
#[test]
fn the_table_is_the_same_for_ever() {
    let digest = |weights: &[u16]| {
        let slots = choices(weights).slots(Balance::Maglev).unwrap();
        let bytes: Vec<u8> = slots.iter().flat_map(|slot| slot.to_le_bytes()).collect();
        jhash(&bytes, 0)
    };
    let all = [&[1, 1, 1][..], &[3, 2], &[1, 100, 7, 7]].map(digest);
    assert_eq!(all, [2_442_082_315, 3_916_334_107, 3_867_380_999]);
}

/// The limit is reached: more endpoints than the largest table has slots.
#[test]
fn the_largest_table_has_room_for_every_endpoint() {
    let all = (0..ENDPOINTS_MAX as u32 + 10)
        .map(|n| (SocketAddr::from((n.to_be_bytes(), 80)), WEIGHT_DEFAULT));
    let choices = Choices::of(all);
    let slots = choices.slots(Balance::Maglev).unwrap();
    assert_eq!(slots.len(), ENDPOINTS_MAX);
    let mut seen = slots.clone();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), ENDPOINTS_MAX);
}

#[test]
fn hashes_share_fairly() {
    for endpoints in [2, 3, 5, 10, 40] {
        let counts = counts(&choices(&vec![1; endpoints]), Balance::SourceHash);
        let (least, most) = (
            counts.values().min().unwrap(),
            counts.values().max().unwrap(),
        );
        assert!(most - least <= 1, "{counts:?}");
        assert_eq!(counts.len(), endpoints);
    }
}

#[test]
fn hashes_share_by_weight() {
    let counts = counts(&choices(&[30, 10, 1]), Balance::Maglev);
    let counts: Vec<usize> = counts.into_values().collect();
    // 251 slots by 41 parts: 183.7, 61.2, 6.1; the first round gives everybody one more.
    assert_eq!(counts, [183, 61, 7]);
    let extreme = choices(&[1000, 1000, 1]);
    assert_eq!(super::tests::counts(&extreme, Balance::Maglev).len(), 3);
}

/// Slots that change hands although their endpoint stays are the price of even shares: with these addresses at most
/// 6 % of the table, whichever endpoint goes.
#[test]
fn who_goes_moves_few_others() {
    for count in [3, 5, 10, 30] {
        let all = choices(&vec![1; count]);
        let before = table(&all);
        for gone in all.addresses.iter() {
            let left = without(&all, *gone);
            let after = table(&left);
            if after.len() != before.len() {
                continue;
            }
            let moved = before.iter().zip(&after);
            let moved = moved.filter(|(a, b)| a != b && **a != *gone).count();
            let percent = moved * 100 / before.len();
            assert!(percent <= 6, "{count} endpoints: {percent} % moved");
        }
    }
}

#[test]
fn the_same_client_finds_the_same_endpoint() {
    let all = choices(&[1, 1, 1, 1, 1]);
    let client = |last: u8, port: u16| SocketAddr::from(([203, 0, 113, last], port));
    let to = |balance, client| all.shares(balance, client)[0].0;
    let mut seen = BTreeMap::new();
    for last in 0..100 {
        let first = to(Balance::SourceHash, client(last, 1));
        assert_eq!(first, to(Balance::SourceHash, client(last, 50_000)));
        *seen.entry(first).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
    let flows = (1..100).map(|port| to(Balance::Maglev, client(1, port)));
    let flows: std::collections::BTreeSet<SocketAddr> = flows.collect();
    assert_eq!(flows.len(), 5);
}

#[test]
fn names_are_read_as_they_are_written() {
    for balance in Balance::ALL {
        assert_eq!(balance.to_string().parse(), Ok(balance));
    }
    assert_eq!("Random".parse::<Balance>(), Err(()));
}
