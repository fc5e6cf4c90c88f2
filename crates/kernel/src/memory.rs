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

/// Takes the program's text out of this process's page tables. What still runs comes back from the page cache, in
/// microseconds; what only the start needed, about a fifth, does not. The kernel would do the same when it is short of
/// memory.
pub fn unmap_text() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in maps.lines().filter_map(text_of_file) {
        // SAFETY: a private mapping of a file that nobody may write to, and position independent code is never
        // relocated in place: what comes back from the file is what was there.
        unsafe {
            libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
        }
    }
}

/// Start and length, in bytes, of the mapping that a line of proc_pid_maps(5) describes, if it is text of a file.
fn text_of_file(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_text = words.next()? == "r-xp";
    let inode = words.nth(2)?;
    let number = |text: &str| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let length = end.checked_sub(start)?;
    (is_text && inode != "0").then_some((start, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_of_files_is_unmapped() {
        let line = |permissions: &str, inode: &str| {
            text_of_file(&format!(
                "1000-3000 {permissions} 00001000 fe:00 {inode} /a b"
            ))
        };
        assert_eq!(line("r-xp", "42"), Some((0x1000, 0x2000)));
        assert_eq!(line("r-xp", "0"), None, "the kernel's own");
        for other in ["r--p", "rw-p", "rwxp", "r-xs"] {
            assert_eq!(line(other, "42"), None, "{other}");
        }
        for broken in ["", "x", "1-2", "3000-1000 r-xp 0 0 1", "q-z r-xp 0 0 1"] {
            assert_eq!(text_of_file(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_program_goes_on_without_its_text_in_memory() {
        let resident = || -> u64 {
            let text = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("RssFile:"));
            line.unwrap()
                .trim()
                .trim_end_matches(" kB")
                .parse()
                .unwrap()
        };
        let before = resident();
        unmap_text();
        assert!(resident() < before);
    }

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
