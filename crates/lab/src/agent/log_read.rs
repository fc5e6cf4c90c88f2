//! Reading a container's log back: the kubelet's options applied to lines in the CRI format.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::shim::log;

/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(100);
/// Chunks for the reader have about this size.
const CHUNK: usize = 32 * 1024;

/// What is to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Go on with what comes until the container's end.
    pub follow: bool,
    /// The run before the newest.
    pub previous: bool,
    /// Put its time before each line.
    pub timestamps: bool,
    /// Only so many lines at the end.
    pub tail: Option<usize>,
    /// Only lines from then on.
    pub since: Option<Timestamp>,
    /// No more bytes than these.
    pub limit: Option<u64>,
}

impl Query {
    /// Reads a query string.
    pub fn parse(text: &str) -> Result<Query, String> {
        let mut query = Query::default();
        for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            let wrong = || format!("{name}: {value:?} is not valid");
            let flag = || matches!(value, "true" | "1");
            match name {
                "follow" => query.follow = flag(),
                "previous" => query.previous = flag(),
                "timestamps" => query.timestamps = flag(),
                "tailLines" if !value.is_empty() => {
                    query.tail = Some(value.parse().map_err(|_| wrong())?)
                }
                "limitBytes" if !value.is_empty() => {
                    query.limit = Some(value.parse().map_err(|_| wrong())?)
                }
                "sinceSeconds" if !value.is_empty() => {
                    let seconds: i64 = value.parse().map_err(|_| wrong())?;
                    let since = Timestamp::now().checked_sub(SignedDuration::from_secs(seconds));
                    query.since = Some(since.map_err(|_| wrong())?);
                }
                "sinceTime" if !value.is_empty() => {
                    let text = value
                        .replace("%3A", ":")
                        .replace("%3a", ":")
                        .replace("%2B", "+");
                    query.since = Some(text.parse().map_err(|_| wrong())?);
                }
                _ => {}
            }
        }
        Ok(query)
    }
}

/// The number of the newest run that has a log.
pub fn newest_attempt(pod: &Path, container: &str) -> Option<u32> {
    let entries = std::fs::read_dir(log::path(pod, container, 0).parent()?)
        .ok()?
        .flatten();
    let numbers = entries.filter_map(|entry| {
        entry
            .file_name()
            .to_str()?
            .strip_suffix(".log")?
            .parse()
            .ok()
    });
    numbers.max()
}

/// Whether a run has a log.
pub fn exists(pod: &Path, container: &str, attempt: u32) -> bool {
    log::path(pod, container, attempt).exists()
}

/// Reads the log and sends it in chunks. With `follow`, until `over`, or until nobody listens.
pub async fn read(
    pod: &Path,
    container: &str,
    attempt: u32,
    query: &Query,
    over: CancellationToken,
    send: mpsc::Sender<Bytes>,
) {
    let mut printer = Printer {
        timestamps: query.timestamps,
        since: query.since,
        left: query.limit,
        midline: false,
    };
    let path = log::path(pod, container, attempt);
    let Ok((mut lines, mut file)) = last_lines(&path, query) else {
        return;
    };
    let mut chunk = Vec::new();
    while let Some(line) = lines.pop_front() {
        printer.print(&line, &mut chunk);
        if chunk.len() >= CHUNK && send.send(std::mem::take(&mut chunk).into()).await.is_err() {
            return;
        }
    }
    loop {
        if !chunk.is_empty() && send.send(std::mem::take(&mut chunk).into()).await.is_err() {
            return;
        }
        if !query.follow || printer.left == Some(0) {
            return;
        }
        // Asked before reading: what was written before the end is read after it.
        let last = over.is_cancelled();
        file.read_on(&path, |line| printer.print(line, &mut chunk));
        if last && chunk.is_empty() {
            return;
        }
        if !last {
            let _ = tokio::time::timeout(POLL, over.cancelled()).await;
        }
    }
}

/// A log file that is being followed; a half-written line waits for its end.
struct Followed {
    file: BufReader<std::fs::File>,
    rest: Vec<u8>,
}

impl Followed {
    fn read_on(&mut self, path: &Path, mut each: impl FnMut(&[u8])) {
        self.read_lines(&mut each);
        // The file was put aside because it was full: its end has just been read, the next one begins.
        if std::fs::metadata(path).is_ok_and(|now| !same_file(&now, self.file.get_ref()))
            && let Ok(next) = std::fs::File::open(path)
        {
            self.read_lines(&mut each);
            self.file = BufReader::new(next);
            self.read_lines(&mut each);
        }
    }

    fn read_lines(&mut self, each: &mut impl FnMut(&[u8])) {
        while matches!(self.file.read_until(b'\n', &mut self.rest), Ok(1..)) {
            if self.rest.ends_with(b"\n") {
                each(&self.rest);
                self.rest.clear();
            }
        }
    }
}

fn same_file(now: &std::fs::Metadata, open: &std::fs::File) -> bool {
    use std::os::unix::fs::MetadataExt;
    open.metadata()
        .is_ok_and(|open| open.ino() == now.ino() && open.dev() == now.dev())
}

/// The lines that are asked for, of the file and the one that was put aside before it, and the file to go on with.
fn last_lines(path: &Path, query: &Query) -> io::Result<(VecDeque<Vec<u8>>, Followed)> {
    let mut lines = VecDeque::new();
    let mut keep = |line: &[u8]| {
        lines.push_back(line.to_vec());
        if query.tail.is_some_and(|tail| lines.len() > tail) {
            lines.pop_front();
        }
    };
    let aside: PathBuf = path.with_extension("log.1");
    if let Ok(file) = std::fs::File::open(aside) {
        Followed {
            file: BufReader::new(file),
            rest: Vec::new(),
        }
        .read_lines(&mut keep);
    }
    let file = std::fs::File::open(path)?;
    // What is written while we read belongs to what is followed.
    let length = file.metadata()?.len();
    let mut text = Vec::new();
    (&file).take(length).read_to_end(&mut text)?;
    let whole = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    text[..whole]
        .split_inclusive(|byte| *byte == b'\n')
        .for_each(&mut keep);
    let mut file = BufReader::new(file);
    file.seek(SeekFrom::Start(whole as u64))?;
    Ok((
        lines,
        Followed {
            file,
            rest: Vec::new(),
        },
    ))
}

/// Turns CRI lines into what people see.
struct Printer {
    timestamps: bool,
    since: Option<Timestamp>,
    left: Option<u64>,
    /// The last part had no end of line.
    midline: bool,
}

impl Printer {
    fn print(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(_stream), Some(mark), Some(text)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return;
        };
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let at = std::str::from_utf8(time)
            .ok()
            .and_then(|time| time.parse::<Timestamp>().ok());
        if self
            .since
            .is_some_and(|since| at.is_some_and(|at| at < since))
        {
            return;
        }
        if self.timestamps && !self.midline {
            self.put(time, out);
            self.put(b" ", out);
        }
        self.put(text, out);
        self.midline = mark == b"P";
        if !self.midline {
            self.put(b"\n", out);
        }
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let length = self
            .left
            .map_or(bytes.len(), |left| bytes.len().min(left as usize));
        out.extend_from_slice(&bytes[..length]);
        if let Some(left) = &mut self.left {
            *left -= length as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-21T10:00:00.000000000Z stdout F one\n\
        2026-11-21T10:00:01.000000000Z stderr P tw\n\
        2026-11-21T10:00:02.000000000Z stderr F o\n\
        2026-11-21T10:00:03.000000000Z stdout F three\n";

    fn read_all(query: &str, aside: Option<&str>) -> String {
        let pod = tempfile::tempdir().unwrap();
        let path = log::path(pod.path(), "c", 0);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, LOG).unwrap();
        if let Some(text) = aside {
            std::fs::write(path.with_extension("log.1"), text).unwrap();
        }
        let query = Query::parse(query).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (send, mut chunks) = mpsc::channel(16);
            let over = CancellationToken::new();
            over.cancel();
            read(pod.path(), "c", 0, &query, over, send).await;
            let mut text = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                text.extend_from_slice(&chunk);
            }
            String::from_utf8(text).unwrap()
        })
    }

    #[test]
    fn parts_are_joined_and_options_applied() {
        assert_eq!(read_all("", None), "one\ntwo\nthree\n");
        assert_eq!(read_all("tailLines=1", None), "three\n");
        assert_eq!(read_all("limitBytes=5", None), "one\nt");
        assert_eq!(
            read_all("sinceTime=2026-11-21T10%3A00%3A03Z&timestamps=true", None),
            "2026-11-21T10:00:03.000000000Z three\n"
        );
        assert_eq!(read_all("follow=true", None), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_file_that_was_put_aside_is_read_first() {
        let aside = "2026-11-21T09:00:00.000000000Z stdout F zero\n";
        assert!(read_all("", Some(aside)).starts_with("zero\none\n"));
        assert_eq!(read_all("tailLines=1", Some(aside)), "three\n");
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Query::parse("tailLines=x").is_err());
    }
}
