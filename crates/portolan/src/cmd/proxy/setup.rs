//! What is told to the kernel once, at the start, as kube-proxy does: limits and timeouts of conntrack, and how much this
//! process is worth when memory is short. `--init-only` does this and nothing else.
//!
//! Each setting is read first, and written only when it differs: a process without the privilege to write can be started
//! after one that has it.

use std::path::Path;

use anyhow::Context;

use super::config::Conntrack;

/// The kernel never tracks more because of us: 1 048 576 entries take about 320 MB (kube-proxy since 1.36).
const TRACKED_MAX: u64 = 1_048_576;

/// Where the settings of the calling thread's network namespace stand.
const SETTINGS: &str = "/proc/sys/net/netfilter";
/// The size of the hash table, which all namespaces share; a fourth of the limit keeps its chains short.
const HASHSIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";
/// Every setting of the network.
pub(super) const NETWORK: &str = "/proc/sys/net";
/// What is written here, where it differs.
pub(super) const WRITTEN: [&str; 2] = [NETWORK, HASHSIZE];
const PROCESSORS: &str = "/sys/devices/system/cpu/online";
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// Brings conntrack to what is wanted; what could not be done is in the list.
pub(super) fn conntrack(wanted: &Conntrack) -> Vec<anyhow::Error> {
    let online = std::fs::read_to_string(PROCESSORS).unwrap_or_default();
    let mut failed = Vec::new();
    for (name, value) in settings(wanted, processors(&online)) {
        let path = Path::new(SETTINGS).join(name);
        let needed = |now: i64| now != value;
        let mut done = write(&path, value, needed);
        if name == MAX && done.is_ok() {
            let too_small = |now: i64| now < value / 4;
            done = write(Path::new(HASHSIZE), value / 4, too_small);
        }
        failed.extend(done.err());
    }
    failed
}

/// Tells the kernel how little it should like to end this process.
pub(super) fn oom_score(score: i32) -> anyhow::Result<()> {
    let score = i64::from(score);
    write(Path::new(OOM_SCORE), score, |now| now != score)
}

const MAX: &str = "nf_conntrack_max";

/// Names below [`SETTINGS`], and their values.
fn settings(wanted: &Conntrack, processors: u64) -> Vec<(&'static str, i64)> {
    let scaled = u64::from(wanted.max_per_core) * processors;
    let max = scaled.min(TRACKED_MAX).max(u64::from(wanted.min));
    let max = (wanted.max_per_core > 0).then_some(max);
    let seconds = |timeout: std::time::Duration| (!timeout.is_zero()).then_some(timeout.as_secs());
    let all = [
        (MAX, max),
        (
            "nf_conntrack_tcp_timeout_established",
            seconds(wanted.tcp_established_timeout),
        ),
        (
            "nf_conntrack_tcp_timeout_close_wait",
            seconds(wanted.tcp_close_wait_timeout),
        ),
        (
            "nf_conntrack_tcp_be_liberal",
            wanted.tcp_be_liberal.then_some(1),
        ),
        ("nf_conntrack_udp_timeout", seconds(wanted.udp_timeout)),
        (
            "nf_conntrack_udp_timeout_stream",
            seconds(wanted.udp_stream_timeout),
        ),
    ];
    let given = all
        .into_iter()
        .filter_map(|(name, value)| Some((name, i64::try_from(value?).ok()?)));
    given.collect()
}

/// How many processors a list such as `0-3,8` has; at least one.
fn processors(list: &str) -> u64 {
    let count = |range: &str| -> Option<u64> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    let ranges = list.trim().split(',').filter_map(count);
    ranges.fold(0, u64::saturating_add).max(1)
}

/// Writes a number, if `needed` says so of the one that stands there.
fn write(path: &Path, value: i64, needed: impl Fn(i64) -> bool) -> anyhow::Result<()> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let now: i64 = text
        .trim()
        .parse()
        .with_context(|| format!("{name} has no number"))?;
    if !needed(now) {
        return Ok(());
    }
    std::fs::write(path, value.to_string())
        .with_context(|| format!("cannot write {value} in the place of {now} into {name}"))?;
    tracing::info!("{name} is {value} now, and was {now}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portolan_kernel::isolated;

    use super::*;

    fn of(name: &str) -> i64 {
        let text = std::fs::read_to_string(Path::new(SETTINGS).join(name)).unwrap();
        text.trim().parse().unwrap()
    }

    #[test]
    fn settings_are_those_of_kube_proxy() {
        let standard = Conntrack::default();
        let max = |processors: u64, wanted: &Conntrack| {
            let all = settings(wanted, processors);
            all.into_iter()
                .find(|(name, _)| *name == MAX)
                .map(|(_, value)| value)
        };
        assert_eq!(max(2, &standard), Some(131_072), "min");
        assert_eq!(max(8, &standard), Some(262_144), "for each processor");
        assert_eq!(max(64, &standard), Some(1_048_576), "TRACKED_MAX");
        let more = Conntrack {
            min: 2_000_000,
            ..standard.clone()
        };
        assert_eq!(max(64, &more), Some(2_000_000), "who asks for more gets it");
        let as_is = Conntrack {
            max_per_core: 0,
            ..standard.clone()
        };
        assert_eq!(max(64, &as_is), None);
        let names: Vec<_> = settings(&standard, 1).into_iter().skip(1).collect();
        let wanted = [
            ("nf_conntrack_tcp_timeout_established", 86_400),
            ("nf_conntrack_tcp_timeout_close_wait", 3_600),
        ];
        assert_eq!(names, wanted, "what is 0 stays");
    }

    #[test]
    fn processors_are_counted() {
        for (list, count) in [("0\n", 1), ("0-3,8\n", 5), ("", 1), ("0-", 1), ("5-1", 1)] {
            assert_eq!(processors(list), count, "{list}");
        }
    }

    #[test]
    fn what_differs_is_written_and_nothing_else() {
        isolated!(what_differs_is_written_and_nothing_else, {
            let wanted = Conntrack {
                max_per_core: 0,
                min: 0,
                tcp_be_liberal: true,
                tcp_close_wait_timeout: Duration::from_secs(77),
                tcp_established_timeout: Duration::ZERO,
                udp_stream_timeout: Duration::from_secs(88),
                udp_timeout: Duration::from_secs(of("nf_conntrack_udp_timeout") as u64),
            };
            let before = of("nf_conntrack_tcp_timeout_established");
            let failed = conntrack(&wanted);
            assert!(failed.is_empty(), "{failed:?}");
            assert_eq!(of("nf_conntrack_tcp_timeout_close_wait"), 77);
            assert_eq!(of("nf_conntrack_udp_timeout_stream"), 88);
            assert_eq!(of("nf_conntrack_tcp_be_liberal"), 1);
            assert_eq!(of("nf_conntrack_tcp_timeout_established"), before);
            // The limit belongs to the machine: in a namespace it can be read, not written.
            let limit = Conntrack {
                min: of(MAX) as u32 + 1,
                max_per_core: 1,
                ..wanted
            };
            let failed = conntrack(&limit);
            let words = format!("{:#}", failed.first().unwrap());
            assert!(
                words.contains("cannot write") && words.contains(MAX),
                "{words}"
            );
        });
    }

    #[test]
    fn a_setting_that_is_right_needs_no_privilege() {
        let score = std::fs::read_to_string(OOM_SCORE).unwrap();
        oom_score(score.trim().parse().unwrap()).unwrap();
        let error = write(Path::new("/proc/self/nothing"), 1, |_| true).unwrap_err();
        assert!(error.to_string().contains("cannot read"), "{error}");
    }
}
