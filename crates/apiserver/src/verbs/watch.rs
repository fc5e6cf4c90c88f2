//! GET with `watch=true`: the changes of a collection as a stream of JSON lines.
//!
//! The client pulls: nothing is queued for it. A client that falls behind the event log hears 410 and lists anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use crate::api::Api;
use crate::http::query::Query;
use crate::http::show::Show;
use crate::kind::Kind;
use crate::object;
use crate::selector::Selector;
use crate::status::{self, Failure, bad_request};
use crate::store::{Change, Key, Snapshot};
use crate::verbs::create::group_version;
use crate::verbs::list::parse_version;

/// Events written in one go.
const CHUNK_MAX: usize = 256;

/// How often a quiet watch tells the version that it has reached, when the client wants that. A client that comes back
/// must not be further behind than the event log, so this is short.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(15);

/// A watch without `timeoutSeconds` ends after this many seconds, and up to as many more.
const TIMEOUT_SECONDS: u64 = 1800;

/// What is watched.
pub struct Scope {
    /// Place of the kind in the table.
    pub index: usize,
    /// `None` for all namespaces.
    pub namespace: Option<String>,
    /// One object only.
    pub name: Option<String>,
    /// What matches.
    pub selector: Selector,
    /// How events show their objects.
    pub show: Show,
}

struct Watch {
    api: Arc<Api>,
    kind: &'static Kind,
    scope: Scope,
    /// Everything up to this version was told.
    version: u64,
    /// The state to be told first, and the last key of it that was told.
    initial: Option<(Snapshot, Option<Key>)>,
    /// A bookmark must mark the end of the initial events.
    mark_initial: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    wake: Receiver<u64>,
    columns_sent: bool,
    ended: bool,
}

/// Starts a watch; the stream ends at the timeout, at shutdown, or with an ERROR event.
pub fn watch(
    api: &Arc<Api>,
    scope: Scope,
    query: &Query,
) -> Result<impl Stream<Item = Bytes> + Send + use<>, Failure> {
    let kind = api.kinds[scope.index];
    // Subscribed before the state is read, so that no change falls between.
    let wake = api.store.wake(scope.index);
    let snapshot = api.store.snapshot();
    let asked = match query.text("resourceVersion") {
        "" => 0,
        text => parse_version(text)?,
    };
    if asked > snapshot.version {
        return Err(status::too_large_version(asked, snapshot.version));
    }
    let send_initial = query.optional_flag("sendInitialEvents");
    check_initial(send_initial, query)?;
    let initial = send_initial.unwrap_or(asked == 0);
    let version = match (initial, asked) {
        (true, _) | (false, 0) => snapshot.version,
        (false, asked) => asked,
    };
    let seconds = query
        .number::<u64>("timeoutSeconds")?
        .filter(|seconds| *seconds > 0);
    let seconds = seconds.unwrap_or_else(|| TIMEOUT_SECONDS + fastrand::u64(..TIMEOUT_SECONDS));
    let now = Instant::now();
    let watch = Watch {
        api: Arc::clone(api),
        kind,
        version,
        initial: initial.then_some((snapshot, None)),
        mark_initial: send_initial == Some(true),
        bookmarks: query.flag("allowWatchBookmarks"),
        next_bookmark: now + BOOKMARK_INTERVAL,
        deadline: now + Duration::from_secs(seconds.min(24 * 3600)),
        wake,
        columns_sent: false,
        ended: false,
        scope,
    };
    Ok(futures::stream::unfold(watch, |mut watch| async move {
        watch.next().await.map(|chunk| (chunk, watch))
    }))
}

fn check_initial(send_initial: Option<bool>, query: &Query) -> Result<(), Failure> {
    let rule = query.text("resourceVersionMatch");
    let wrong = |why: &str| {
        Err(Failure::new(
            422,
            "Invalid",
            format!("ListOptions.meta.k8s.io \"\" is invalid: {why}"),
        ))
    };
    match (send_initial, rule) {
        (None, "") | (Some(_), "NotOlderThan") => Ok(()),
        (None, _) => wrong(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (Some(_), _) => Err(bad_request(
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )),
    }
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(chunk) = self.initial_chunk() {
                return Some(chunk);
            }
            // What comes while the log is read must wake the next wait.
            self.wake.mark_unchanged();
            let (changes, told) =
                match self
                    .api
                    .store
                    .changes(self.scope.index, self.version, CHUNK_MAX)
                {
                    Ok(found) => found,
                    Err(gone) => return Some(self.too_old(gone.oldest)),
                };
            self.version = told;
            let mut chunk = Vec::new();
            for change in &changes {
                self.tell(change, &mut chunk);
            }
            let now = Instant::now();
            if self.bookmarks && now >= self.next_bookmark {
                self.bookmark(false, &mut chunk);
            }
            if !chunk.is_empty() {
                return Some(chunk.into());
            }
            if now >= self.deadline {
                return None;
            }
            if changes.is_empty() && !self.wait().await {
                return None;
            }
        }
    }

    /// Waits for a change, a bookmark's time or the end; false when the server stops.
    async fn wait(&mut self) -> bool {
        let until = if self.bookmarks {
            self.deadline.min(self.next_bookmark)
        } else {
            self.deadline
        };
        tokio::select! {
            changed = self.wake.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(until) => true,
            () = self.api.stopping.cancelled() => false,
        }
    }

    /// The next part of the state that comes first.
    fn initial_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = Vec::new();
        while chunk.is_empty() {
            let (snapshot, after) = self.initial.take()?;
            let namespace = self.scope.namespace.clone();
            let mut last = None;
            let part = snapshot.list(self.scope.index, namespace.as_deref(), after.as_ref());
            for (key, object) in part.take(CHUNK_MAX) {
                if self.wants(key, object) {
                    self.event("ADDED", object, &mut chunk);
                }
                last = Some(key.clone());
            }
            match last {
                Some(last) => self.initial = Some((snapshot, Some(last))),
                None if self.mark_initial => self.bookmark(true, &mut chunk),
                None => {}
            }
        }
        Some(chunk.into())
    }

    fn wants(&self, key: &Key, object: &Value) -> bool {
        self.scope
            .namespace
            .as_deref()
            .is_none_or(|namespace| *key.namespace == *namespace)
            && self
                .scope
                .name
                .as_deref()
                .is_none_or(|name| *key.name == *name)
            && self.scope.selector.matches(object)
    }

    /// A change as this watch sees it: an object that starts to match is added, one that stops is deleted.
    fn tell(&mut self, change: &Change, chunk: &mut Vec<u8>) {
        let before = change
            .old
            .as_ref()
            .filter(|object| self.wants(&change.key, object));
        let after = change
            .new
            .as_ref()
            .filter(|object| self.wants(&change.key, object));
        match (before, after) {
            (None, None) => {}
            (None, Some(new)) => self.event("ADDED", new, chunk),
            (Some(_), Some(new)) => self.event("MODIFIED", new, chunk),
            (Some(old), None) => {
                let mut last = Value::clone(old);
                object::set_meta(
                    &mut last,
                    "resourceVersion",
                    json!(change.version.to_string()),
                );
                self.event("DELETED", &last, chunk);
            }
        }
    }

    fn event(&mut self, kind: &str, object: &Value, chunk: &mut Vec<u8>) {
        let shown = self.scope.show.one(self.kind, object, !self.columns_sent);
        self.columns_sent = true;
        write(kind, &shown, chunk);
    }

    fn bookmark(&mut self, initial_end: bool, chunk: &mut Vec<u8>) {
        self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
        let mut object = json!({
            "kind": self.kind.kind,
            "apiVersion": group_version(self.kind),
            "metadata": {"resourceVersion": self.version.to_string(), "creationTimestamp": null},
        });
        if initial_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        self.event("BOOKMARK", &object, chunk);
    }

    fn too_old(&mut self, oldest: u64) -> Bytes {
        self.ended = true;
        let message = format!("too old resource version: {} ({oldest})", self.version);
        let mut chunk = Vec::new();
        write("ERROR", &status::expired(message).body(), &mut chunk);
        chunk.into()
    }
}

fn write(kind: &str, object: &Value, chunk: &mut Vec<u8>) {
    chunk.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
    chunk.extend_from_slice(object.to_string().as_bytes());
    chunk.extend_from_slice(b"}\n");
}
