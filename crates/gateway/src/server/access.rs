//! The access log: a line for each request, written by a thread of its own, so that no request waits for a disk.

mod format;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

pub use format::{Format, FormatError};
pub(super) use format::{Line, Outcome};

/// Lines that wait to be written. When the one who reads them stands still, further ones are lost, and counted: requests
/// matter more.
pub const LINES_MAX: usize = 8192;

/// Where lines go, and what they say; cheap to copy. The thread ends with the last copy.
#[derive(Clone, Debug)]
pub struct AccessLog {
    pub(super) format: Arc<Format>,
    lines: SyncSender<String>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the thread that writes.
    pub fn start(format: Format, writer: impl Write + Send + 'static) -> io::Result<AccessLog> {
        let (lines, waiting) = sync_channel(LINES_MAX);
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        thread.spawn(move || write(&waiting, writer))?;
        Ok(AccessLog {
            format: Arc::new(format),
            lines,
            lost: Arc::default(),
        })
    }

    /// How many lines were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn write(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(waiting: &Receiver<String>, writer: impl Write) {
    let mut writer = io::BufWriter::new(writer);
    while let Ok(line) = waiting.recv() {
        let mut next = Some(line);
        let mut result = Ok(());
        // What has come meanwhile is written at once.
        while let Some(line) = next {
            result = result.and_then(|()| writeln!(writer, "{line}"));
            next = waiting.try_recv().ok();
        }
        if let Err(error) = result.and_then(|()| writer.flush()) {
            tracing::warn!(%error, "the access log cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Writes nothing before it may.
    struct Slow(Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_nobody_takes_are_lost_and_counted() {
        let (go, gate) = channel();
        let log = AccessLog::start(Format::json(), Slow(gate)).unwrap();
        // A line that is longer than the writer's buffer is with it at once; beyond that one and those that wait, all
        // are lost.
        let long = "x".repeat(16 * 1024);
        for _ in 0..LINES_MAX + 2 {
            log.write(long.clone());
        }
        assert!((1..=2).contains(&log.lost()), "{}", log.lost());
        drop(go);
    }
}
