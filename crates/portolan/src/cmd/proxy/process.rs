//! `process_*`: what the kernel counts about this process, under the names that every Prometheus client uses.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Ticks of a second in /proc, on every machine that Linux calls 64 bit (USER_HZ).
const TICKS: f64 = 100.0;

type Number = Gauge<f64, AtomicU64>;

/// The measures, read anew whenever somebody asks.
#[derive(Debug, Default)]
pub(in crate::cmd) struct Process {
    seconds: Counter<f64, AtomicU64>,
    started: Number,
    resident: Number,
    virtual_: Number,
    open: Number,
    open_max: Number,
}

/// What is read, in seconds since the epoch, seconds, bytes and counts.
#[derive(Debug, Default, PartialEq)]
struct Read {
    seconds: f64,
    started: f64,
    resident: f64,
    virtual_: f64,
    open: f64,
    open_max: f64,
}

impl Process {
    /// Of this process.
    pub(in crate::cmd) fn register(registry: &mut Registry) -> Self {
        let process = Process::default();
        let seconds = process.seconds.clone();
        let help = "User and system time of this process, in seconds";
        registry.register("process_cpu_seconds", help, seconds);
        for (name, help, gauge) in [
            (
                "process_start_time_seconds",
                "When this process was started, in seconds since the epoch",
                &process.started,
            ),
            (
                "process_resident_memory_bytes",
                "Memory of this process, in bytes",
                &process.resident,
            ),
            (
                "process_virtual_memory_bytes",
                "Address space of this process, in bytes",
                &process.virtual_,
            ),
            (
                "process_open_fds",
                "Open files of this process",
                &process.open,
            ),
            (
                "process_max_fds",
                "Files that this process may open",
                &process.open_max,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        process
    }

    /// Brings the measures up to date; what cannot be read stays as it was.
    pub(in crate::cmd) fn tell(&self) {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let (stat, status) = (text("/proc/self/stat"), text("/proc/self/status"));
        let limits = text("/proc/self/limits");
        let Some(read) = read(&stat, &status, &limits, &text("/proc/stat"), open) else {
            return;
        };
        let more = read.seconds - self.seconds.get();
        self.seconds.inc_by(more.max(0.0));
        self.started.set(read.started);
        self.resident.set(read.resident);
        self.virtual_.set(read.virtual_);
        self.open.set(read.open);
        self.open_max.set(read.open_max);
    }
}

/// proc_pid_stat(5), proc_pid_status(5), proc_pid_limits(5), proc_stat(5).
fn read(stat: &str, status: &str, limits: &str, machine: &str, open: usize) -> Option<Read> {
    // The name of the program, in brackets, may hold anything.
    let (_, after) = stat.rsplit_once(')')?;
    // The first of them is field 3.
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let number: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(number * 1024.0)
    };
    let boot = machine
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let boot: f64 = boot.trim().parse().ok()?;
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    Some(Read {
        seconds: (ticks(14)? + ticks(15)?) / TICKS,
        started: boot + ticks(22)? / TICKS,
        resident: kilobytes("VmRSS:")?,
        virtual_: kilobytes("VmSize:")?,
        open: open as f64,
        open_max: files.split_whitespace().next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 6000 1 2 3";
        let status = "Name:\ta\nVmSize:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024   4096   files\n";
        let wanted = Read {
            seconds: 2.0,
            started: 1060.0,
            resident: 1_048_576.0,
            virtual_: 2_097_152.0,
            open: 5.0,
            open_max: 1024.0,
        };
        assert_eq!(
            read(stat, status, limits, "cpu 1\nbtime 1000\n", 5),
            Some(wanted)
        );
        assert_eq!(read("", "", "", "", 0), None);
    }

    #[test]
    fn this_process_is_measured() {
        let mut registry = Registry::default();
        let process = Process::register(&mut registry);
        process.tell();
        let values = [
            &process.started,
            &process.resident,
            &process.virtual_,
            &process.open,
            &process.open_max,
        ];
        assert!(values.iter().all(|value| value.get() > 0.0), "{process:?}");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
    }
}
