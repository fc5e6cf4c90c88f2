//! Hashes for maps whose keys no client chooses: they come out of objects of the API, or are places in memory.

use std::hash::Hasher;

/// Fibonacci hashing: what comes is multiplied by the golden ratio of 64 bits, and the high bits are mixed into the low
/// ones, which maps look at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quick(u64);

impl Quick {
    fn mix(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        // The length tells `a` from `a` with a byte of zeros behind it.
        self.mix(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, byte: u8) {
        self.mix(byte.into());
    }

    fn write_u16(&mut self, word: u16) {
        self.mix(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, BuildHasherDefault};

    use portolan_model::{PortKey, Protocol};

    use super::*;

    #[test]
    fn names_that_are_alike_are_spread() {
        let build = BuildHasherDefault::<Quick>::default();
        let of = |number: u32| {
            build.hash_one(PortKey::new(
                "shop",
                &format!("s{number:06}"),
                "http",
                Protocol::Tcp,
            ))
        };
        let all: BTreeSet<u64> = (0..10_000).map(of).collect();
        assert_eq!(all.len(), 10_000);
        // Thrown at random into 16 384 places, 10 000 would fill about 7 480.
        let places: BTreeSet<u64> = all.iter().map(|hash| hash % 16_384).collect();
        assert!(places.len() > 7_000, "{}", places.len());
        assert_ne!(build.hash_one("a"), build.hash_one("a\0"));
    }
}
