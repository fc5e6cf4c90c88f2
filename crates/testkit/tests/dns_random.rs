//! Random clusters and questions: the zone against the reference. `cargo run --bin names` does this for as long as one
//! likes.

use portolan_testkit::dns::random::check;

/// Clusters of one run of the tests; each is asked some hundreds of questions.
const CLUSTERS: u64 = 400;

#[test]
fn the_zone_answers_as_the_reference() {
    let failed: Vec<String> = (0..CLUSTERS).filter_map(|seed| check(seed).err()).collect();
    let heads: Vec<&str> = failed.iter().filter_map(|how| how.lines().next()).collect();
    assert!(failed.is_empty(), "{heads:#?}; the first: {}", failed[0]);
}
