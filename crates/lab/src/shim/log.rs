//! A container's output as log lines in the CRI format, as the kubelet's runtimes write them:
//! `2026-11-21T10:00:00.000000001Z stdout F text`. `P` in place of `F` marks a part of a longer line.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

/// Longer lines are cut into parts of this many bytes.
const PART_MAX: u64 = 16 * 1024;
/// A log file that has grown to this is put aside as `.1` (the kubelet's containerLogMaxSize).
pub const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// The log of one run of a container.
pub struct Log {
    path: PathBuf,
    file: File,
    written: u64,
}

/// Where the log of a run is, below the pod's directory.
pub fn path(pod: &Path, container: &str, attempt: u32) -> PathBuf {
    pod.join("logs")
        .join(container)
        .join(format!("{attempt}.log"))
}

impl Log {
    /// Begins the log of a run and removes those of runs before the previous one.
    pub fn create(pod: &Path, container: &str, attempt: u32) -> io::Result<Log> {
        let path = path(pod, container, attempt);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        if let Some(old) = attempt.checked_sub(2) {
            let old = self::path(pod, container, old);
            // Most often there is nothing to remove.
            let _ = std::fs::remove_file(old.with_extension("log.1"));
            let _ = std::fs::remove_file(old);
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Log {
            path,
            file,
            written: 0,
        })
    }

    /// Writes one line, or a part of one.
    pub fn write(&mut self, now: Timestamp, stream: &str, text: &[u8]) -> io::Result<()> {
        let (text, mark) = match text.strip_suffix(b"\n") {
            Some(line) => (line, "F"),
            None => (text, "P"),
        };
        let mut line = format!("{now:.9} {stream} {mark} ").into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        if self.written + line.len() as u64 > FILE_BYTES_MAX {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path)?;
            self.written = 0;
        }
        self.written += line.len() as u64;
        self.file.write_all(&line)
    }
}

/// Copies a container's output to its log until the last writer has closed it.
pub fn pump(output: impl Read, stream: &'static str, log: &Arc<Mutex<Log>>) {
    let mut output = BufReader::with_capacity(PART_MAX as usize, output);
    let mut text = Vec::new();
    loop {
        text.clear();
        match output.by_ref().take(PART_MAX).read_until(b'\n', &mut text) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = log.write(Timestamp::now(), stream, &text) {
                    // The container must not stop because its log can't be written.
                    tracing::warn!(%error, "a log line is lost");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_time_stream_and_mark() {
        let pod = tempfile::tempdir().unwrap();
        let log = Arc::new(Mutex::new(Log::create(pod.path(), "c", 0).unwrap()));
        pump(&b"one\ntwo"[..], "stdout", &log);
        let text = std::fs::read_to_string(path(pod.path(), "c", 0)).unwrap();
        let rest: Vec<_> = text
            .lines()
            .map(|line| line.split_once("Z ").unwrap().1)
            .collect();
        assert_eq!(rest, ["stdout F one", "stdout P two"]);
        assert_eq!(text.find('Z'), Some("2026-11-21T10:00:00.000000001".len()));
    }

    #[test]
    fn a_full_file_is_put_aside() {
        let pod = tempfile::tempdir().unwrap();
        let mut log = Log::create(pod.path(), "c", 0).unwrap();
        log.written = FILE_BYTES_MAX;
        log.write(Timestamp::UNIX_EPOCH, "stderr", b"new\n")
            .unwrap();
        let path = path(pod.path(), "c", 0);
        assert!(path.with_extension("log.1").exists());
        assert!(
            std::fs::read_to_string(path)
                .unwrap()
                .ends_with("stderr F new\n")
        );
    }

    #[test]
    fn only_the_logs_of_the_last_two_runs_stay() {
        let pod = tempfile::tempdir().unwrap();
        for attempt in 0..3 {
            Log::create(pod.path(), "c", attempt).unwrap();
        }
        let exists: Vec<_> = (0..3)
            .map(|attempt| path(pod.path(), "c", attempt).exists())
            .collect();
        assert_eq!(exists, [false, true, true]);
    }
}
