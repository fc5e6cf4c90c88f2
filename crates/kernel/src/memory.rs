//! The memory of our own process.

#![allow(unsafe_code)]

/// Gives back to the kernel what the allocator keeps for later: worth it after something big, such as the first list
/// of all Services. It costs about a millisecond for each 10 MB. Does nothing with other C libraries than glibc.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// All threads share one heap, from now on; call it before there is a second thread. By default glibc gives each thread
/// one of its own, and what one thread allocates and another frees leaves holes in all of them. Does nothing with other
/// C libraries.
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes a number that malloc reads when a thread allocates for the first time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_freed_is_given_back() {
        let resident_pages = || -> usize {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            text.split(' ').nth(1).unwrap().parse().unwrap()
        };
        // Blocks small enough for the heap, and one after them that keeps the heap from shrinking by itself.
        let blocks: Vec<Vec<u8>> = (0..16_384).map(|_| vec![1; 4096]).collect();
        let last = vec![1_u8; 4096];
        drop(blocks);
        let before = resident_pages();
        trim();
        if cfg!(target_env = "gnu") {
            assert!(resident_pages() + 8_192 < before, "64 MB were free");
        }
        drop(last);
    }
}
