//! What /proc says of a process: memory and processor time.

use std::path::Path;
use std::time::Duration;

/// Ticks of the processor times in /proc in one second, on every Linux that people run (USER_HZ).
const TICKS_PER_SECOND: u64 = 100;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident memory (VmRSS).
    pub resident: u64,
    /// What of it is not the program's own file, which all processes share (RssAnon).
    pub anonymous: u64,
    /// The most that was ever resident (VmHWM).
    pub highest: u64,
}

/// The memory of a process; zeroes where /proc does not say.
pub fn memory(process: &str) -> Memory {
    let path = Path::new("/proc").join(process).join("status");
    let status = std::fs::read_to_string(path).unwrap_or_default();
    Memory {
        resident: kilobytes(&status, "VmRSS:") * 1024,
        anonymous: kilobytes(&status, "RssAnon:") * 1024,
        highest: kilobytes(&status, "VmHWM:") * 1024,
    }
}

/// Processor time of a process and of its children that have ended (kube-proxy runs `nft` and `iptables-restore`).
pub fn processor_time(process: &str) -> Duration {
    let path = Path::new("/proc").join(process).join("stat");
    ticks(&std::fs::read_to_string(path).unwrap_or_default())
}

/// A process, and all that it and its children have started and that still live.
pub fn family(process: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = numbers
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parent(&stat)?))
        })
        .collect();
    let mut family = vec![process];
    let mut next = 0;
    while let Some(&of) = family.get(next) {
        let children = parents
            .iter()
            .filter(|(pid, parent)| *parent == of && !family.contains(pid));
        let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
        family.extend(children);
        next += 1;
    }
    family
}

/// Processor time of a family.
pub fn family_time(process: u32) -> Duration {
    let all = family(process).into_iter();
    all.map(|pid| processor_time(&pid.to_string())).sum()
}

/// The fourth field of proc_pid_stat(5).
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Processor time that the whole machine has spent on anything since it started.
pub fn machine_time() -> Duration {
    busy(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// Of `cpu user nice system idle iowait irq softirq …` (proc_stat(5)), all but idle and iowait.
fn busy(stat: &str) -> Duration {
    let line = stat.lines().next().unwrap_or_default();
    let fields = line.split_whitespace().skip(1).take(7).enumerate();
    let busy = fields.filter(|(index, _)| !matches!(index, 3 | 4));
    let ticks: u64 = busy
        .filter_map(|(_, field)| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

fn kilobytes(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok());
    number.unwrap_or_default()
}

/// utime, stime, cutime and cstime, which are the fields 14 to 17 of proc_pid_stat(5).
fn ticks(stat: &str) -> Duration {
    // The name of the program is in parentheses and may hold anything; the third field comes after the last one.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = rest.split_whitespace().skip(14 - 3).take(4);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let own = memory("self");
        assert!(own.resident > 0 && own.highest >= own.resident);
        assert_eq!(
            kilobytes("VmPeak:\t 5 kB\nVmRSS:\t   12 kB\n", "VmRSS:"),
            12
        );
        assert_eq!(kilobytes("", "VmRSS:"), 0);
    }

    #[test]
    fn a_machine_that_waits_is_not_busy() {
        let stat = "cpu  100 10 200 90000 8000 5 15 3 0 0\ncpu0 1 1 1 1\n";
        assert_eq!(busy(stat), Duration::from_millis(3300));
        assert_eq!(busy(""), Duration::ZERO);
    }

    #[test]
    fn a_family_has_children() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(family(std::process::id()).contains(&child.id()));
        assert_eq!(family(child.id()), [child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(parent("7 (a) b) S 12 7 7"), Some(12));
    }

    #[test]
    fn processor_time_counts_children_too() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 200 0 0 150 50 20 30 20 0 9 0 12345";
        assert_eq!(ticks(stat), Duration::from_millis(2500));
        assert_eq!(ticks("nonsense"), Duration::ZERO);
    }
}
