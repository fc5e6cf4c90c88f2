//! A work queue: each key at most once, failures again after a growing while.
//!
//! It is the usual one of controllers: a key that comes while it is worked on comes again afterwards, so that nothing
//! that has changed meanwhile is missed, and one key is never worked on twice at a time.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portolan_k8s::backoff::Backoff;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cache::Key;

/// First wait after a failure.
const RETRY_MIN: Duration = Duration::from_millis(20);
/// No retry waits longer.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What is to become of a key that has been worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is as it should be.
    Done,
    /// Look again after this while, though nothing may have happened.
    After(Duration),
}

/// Keys that wait for work.
#[derive(Debug, Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    ready: VecDeque<Key>,
    waiting: HashSet<Key>,
    working: HashSet<Key>,
    again: HashSet<Key>,
    delayed: BTreeSet<(Instant, Key)>,
    failures: HashMap<Key, Backoff>,
}

impl Queue {
    /// Adds a key, now.
    pub fn push(&self, key: Key) {
        self.lock().push(key);
        self.news.notify_one();
    }

    /// Works for ever, one key after the other. A failure is logged, and the key comes again later.
    pub async fn work<E, F>(&self, what: &'static str, act: impl Fn(Key) -> F)
    where
        E: std::fmt::Display,
        F: Future<Output = Result<Next, E>>,
    {
        loop {
            let key = self.next().await;
            match act(key.clone()).await {
                Ok(next) => self.done(key, next),
                Err(error) => {
                    tracing::debug!(what, %key, %error, "will be tried again");
                    self.failed(key);
                }
            }
        }
    }

    async fn next(&self) -> Key {
        loop {
            let due = {
                let mut inner = self.lock();
                inner.ripen(Instant::now());
                if let Some(key) = inner.ready.pop_front() {
                    inner.waiting.remove(&key);
                    inner.working.insert(key.clone());
                    return key;
                }
                inner.delayed.first().map(|(due, _)| *due)
            };
            match due {
                None => self.news.notified().await,
                Some(due) => tokio::select! {
                    () = self.news.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }

    fn done(&self, key: Key, next: Next) {
        let mut inner = self.lock();
        inner.failures.remove(&key);
        inner.release(&key);
        if let Next::After(wait) = next {
            inner.delayed.insert((Instant::now() + wait, key));
        }
    }

    fn failed(&self, key: Key) {
        let mut inner = self.lock();
        inner.release(&key);
        let backoff = inner
            .failures
            .entry(key.clone())
            .or_insert_with(|| Backoff::new(RETRY_MIN, RETRY_MAX));
        let wait = backoff.delay();
        inner.delayed.insert((Instant::now() + wait, key));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn push(&mut self, key: Key) {
        if self.working.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn release(&mut self, key: &Key) {
        self.working.remove(key);
        if self.again.remove(key) {
            self.push(key.clone());
        }
    }

    fn ripen(&mut self, now: Instant) {
        while let Some((due, _)) = self.delayed.first()
            && *due <= now
            && let Some((_, key)) = self.delayed.pop_first()
        {
            self.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_key_is_worked_on_once_and_again_after_failures() {
        let queue = Queue::default();
        let (a, b) = (Key::new("", "a"), Key::new("", "b"));
        for _ in 0..5 {
            queue.push(a.clone());
        }
        queue.push(b.clone());
        let (seen_a, seen_b, finished) = (AtomicUsize::new(0), AtomicUsize::new(0), Notify::new());
        let act = |key: Key| {
            let seen = if key == a { &seen_a } else { &seen_b };
            let times = seen.fetch_add(1, Ordering::SeqCst) + 1;
            if key == a && times == 1 {
                // Comes while it is worked on: once more afterwards.
                queue.push(a.clone());
                queue.push(a.clone());
            }
            if key == b && times == 4 {
                finished.notify_one();
            }
            async move {
                if key.name == "b" && times < 4 {
                    Err("not yet")
                } else {
                    Ok(Next::Done)
                }
            }
        };
        let race = async {
            tokio::select! {
                () = queue.work("test", act) => {}
                () = finished.notified() => {}
            }
        };
        tokio::time::timeout(Duration::from_secs(60), race)
            .await
            .unwrap();
        assert_eq!((seen_a.into_inner(), seen_b.into_inner()), (2, 4));
    }
}
