//! The order in which many sorted things are put into a persistent map, so that it takes the least memory.
//!
//! A map's leaf that is full is split into halves. When keys come in their order, the left half never gets another one:
//! every leaf stays half empty. When every other key comes first, the rest fills those halves.

/// The same things: first those at even places, then those at odd places.
pub fn packed<T>(sorted: Vec<T>) -> impl Iterator<Item = T> {
    let mut odd = Vec::with_capacity(sorted.len() / 2);
    let mut even = Vec::with_capacity(sorted.len().div_ceil(2));
    for (place, thing) in sorted.into_iter().enumerate() {
        match place % 2 {
            0 => even.push(thing),
            _ => odd.push(thing),
        }
    }
    even.into_iter().chain(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_thing_comes_first_and_none_is_lost() {
        assert_eq!(
            packed(vec![1, 2, 3, 4, 5]).collect::<Vec<_>>(),
            [1, 3, 5, 2, 4]
        );
        assert_eq!(packed(vec![1, 2]).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(packed(Vec::<u8>::new()).count(), 0);
    }
}
