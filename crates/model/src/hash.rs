//! The hash that chooses slots: Bob Jenkins' lookup3 as Linux has it, because a kernel has to compute it for every flow.

/// `jhash()` of linux/jhash.h. Like the kernel, it reads whole words in the machine's order.
pub fn jhash(key: &[u8], seed: u32) -> u32 {
    let start = 0xdead_beef_u32
        .wrapping_add(key.len() as u32)
        .wrapping_add(seed);
    let [mut a, mut b, mut c] = [start; 3];
    let mut rest = key;
    // The last twelve bytes, or fewer, are left for the end.
    while rest.len() > 12 {
        let word = |index: usize| {
            let bytes = rest[4 * index..].first_chunk::<4>();
            bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
        };
        a = a.wrapping_add(word(0));
        b = b.wrapping_add(word(1));
        c = c.wrapping_add(word(2));
        [a, b, c] = mix(a, b, c);
        rest = &rest[12..];
    }
    if rest.is_empty() {
        return c;
    }
    let mut tail = [0; 12];
    tail[..rest.len()].copy_from_slice(rest);
    let [x, y, z] = [0, 4, 8].map(|at| {
        let bytes = tail[at..].first_chunk::<4>();
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    });
    last(a.wrapping_add(x), b.wrapping_add(y), c.wrapping_add(z))
}

/// `reciprocal_scale()` of Linux: a number below `count`, each as likely as another.
pub fn scale(hash: u32, count: u32) -> u32 {
    ((u64::from(hash) * u64::from(count)) >> 32) as u32
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> [u32; 3] {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    [a, b, c]
}

fn last(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of lookup3's `hashlittle`, which is the same function on a little-endian machine
    /// (its own self-test prints the first three).
    #[cfg(target_endian = "little")]
    #[test]
    fn it_is_lookup3() {
        assert_eq!(jhash(b"", 0), 0xdead_beef);
        assert_eq!(jhash(b"", 0xdead_beef), 0xbd5b_7dde);
        assert_eq!(jhash(b"Four score and seven years ago", 0), 0x1777_0551);
        assert_eq!(jhash(b"Four score and seven years ago", 1), 0xcd62_8161);
        // Around the length of a block.
        assert_eq!(jhash(b"Four score a", 0), 0xccda_323b);
        assert_eq!(jhash(b"Four score an", 0), 0x1143_45a2);
        assert_eq!(jhash(b"Four score and seven yea", 0), 0x4eaa_9b13);
    }

    #[test]
    fn scaling_stays_below() {
        assert_eq!(scale(0, 251), 0);
        assert_eq!(scale(u32::MAX, 251), 250);
        assert_eq!(scale(1 << 31, 2), 1);
    }
}
