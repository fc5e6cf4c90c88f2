//! Daemons that are started again when they die, later each time.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portolan_kernel::command::CommandNamespaces;

use super::DaemonStatus;
use crate::error::{Error, Result};
use crate::reaper::Reaper;

/// The first restart waits this long; each further one twice as long as the one before.
const RESTART_MIN: Duration = Duration::from_millis(100);
/// No restart waits longer.
const RESTART_MAX: Duration = Duration::from_secs(5);
/// A daemon that has run this long has recovered: the next restart waits [`RESTART_MIN`] again.
const RECOVERED: Duration = Duration::from_secs(10);
/// A log file that is longer when its daemon starts is put aside first.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The daemons of the lab.
pub struct Keeper {
    logs: PathBuf,
    reaper: Arc<Reaper>,
    table: Arc<Mutex<BTreeMap<String, DaemonStatus>>>,
}

impl Keeper {
    /// No daemon yet; their output goes to files in `logs`.
    pub fn new(logs: PathBuf, reaper: Arc<Reaper>) -> Keeper {
        Keeper {
            logs,
            reaper,
            table: Arc::default(),
        }
    }

    /// Starts what `build` describes, and again whenever it ends, for ever.
    pub fn keep(
        &self,
        name: &str,
        build: impl Fn() -> Result<Command> + Send + 'static,
    ) -> Result<()> {
        let (name, reaper, table) = (name.to_string(), self.reaper.clone(), self.table.clone());
        let log = self.logs.join(format!("{name}.log"));
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let mut wait = RESTART_MIN;
                loop {
                    let began = Instant::now();
                    run_once(&name, &log, &build, &reaper, &table);
                    wait = next_wait(wait, began.elapsed());
                    std::thread::park_timeout(wait);
                }
            })
            .map(drop)
            .map_err(|e| Error::conversation("start a thread", e))
    }

    /// What the daemons do.
    pub fn status(&self) -> BTreeMap<String, DaemonStatus> {
        lock(&self.table).clone()
    }
}

/// How long to wait before the next start, after a run of length `ran`.
fn next_wait(last: Duration, ran: Duration) -> Duration {
    if ran >= RECOVERED {
        RESTART_MIN
    } else {
        (last * 2).min(RESTART_MAX)
    }
}

fn run_once(
    name: &str,
    log: &Path,
    build: &impl Fn() -> Result<Command>,
    reaper: &Reaper,
    table: &Mutex<BTreeMap<String, DaemonStatus>>,
) {
    let started = build().and_then(|mut command| {
        let output = open_log(log).map_err(|e| Error::file("open", log, e))?;
        let errors = output
            .try_clone()
            .map_err(|e| Error::file("open", log, e))?;
        command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .own_session();
        reaper
            .spawn(&mut command)
            .map_err(|e| Error::conversation(format!("start {name}"), e))
    });
    let pid = match started {
        Ok(pid) => pid,
        Err(error) => return tracing::error!(name, %error, "can't start"),
    };
    {
        let mut table = lock(table);
        let status = table.entry(name.to_string()).or_default();
        status.starts += 1;
        status.pid = Some(pid);
    }
    let end = reaper.wait(pid);
    lock(table).entry(name.to_string()).or_default().pid = None;
    tracing::warn!(name, ?end, "ended, starting it again");
}

fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    if std::fs::metadata(path).is_ok_and(|file| file.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_wait_longer_each_time_until_the_daemon_has_recovered() {
        let short = Duration::from_secs(1);
        let waits: Vec<_> =
            std::iter::successors(Some(RESTART_MIN), |wait| Some(next_wait(*wait, short)))
                .take(9)
                .collect();
        assert_eq!(waits[1], Duration::from_millis(200));
        assert_eq!(waits[8], RESTART_MAX);
        assert_eq!(next_wait(RESTART_MAX, RECOVERED), RESTART_MIN);
    }
}
