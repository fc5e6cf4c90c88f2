//! What the store promises: order, atomicity, durability, bounded memory.

use serde_json::json;
use tempfile::TempDir;

use super::log::LOG_MAX;
use super::{Gone, Key, Store};
use crate::kinds::kinds;
use crate::status;

fn open(directory: &TempDir) -> Store {
    Store::open(&directory.path().join("store"), kinds(), Vec::new()).unwrap()
}

async fn put(store: &Store, name: &str) {
    let key = Key::new(0, "default", name);
    store
        .write(false, move |txn| Ok(txn.put(key, json!({"metadata": {}}))))
        .await
        .unwrap();
}

#[tokio::test]
async fn log_forgets_its_oldest_changes() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    let start = store.snapshot().version;
    let writes = (0..=LOG_MAX).map(|number| {
        let store = store.clone();
        async move { put(&store, &format!("n{number}")).await }
    });
    futures::future::join_all(writes).await;
    assert_eq!(
        store.changes(0, start, 10).unwrap_err(),
        Gone { oldest: start + 1 }
    );
    let (changes, told) = store.changes(0, start + 1, 10).unwrap();
    assert_eq!((changes.len(), changes[9].version), (10, told));
    // Another kind's log has lost nothing, and knows the version of now.
    let (changes, told) = store.changes(1, start, 10).unwrap();
    assert_eq!((changes.len(), told), (0, store.snapshot().version));
}

#[tokio::test]
async fn failed_and_dry_writes_leave_nothing() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    let before = store.snapshot().version;
    let failed = store.write(false, |txn| {
        txn.put(Key::new(0, "default", "a"), json!({"metadata": {}}));
        Err::<(), _>(status::internal("no"))
    });
    assert!(failed.await.is_err());
    store
        .write(true, |txn| {
            Ok(txn.put(Key::new(0, "default", "a"), json!({"metadata": {}})))
        })
        .await
        .unwrap();
    assert_eq!(store.snapshot().version, before);
    assert!(store.snapshot().get(&Key::new(0, "default", "a")).is_none());
}

#[tokio::test]
async fn reopened_store_has_everything_and_counts_on() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    put(&store, "a").await;
    let version = store.snapshot().version;
    let mut closed = store.closed();
    drop(store);
    closed.wait_for(|closed| *closed).await.unwrap();
    let store = open(&directory);
    assert_eq!(store.snapshot().version, version);
    assert!(store.snapshot().get(&Key::new(0, "default", "a")).is_some());
    assert!(store.changes(0, version - 1, 1).is_err());
    put(&store, "b").await;
    assert_eq!(store.snapshot().version, version + 1);
}

/// A job that panics is one failed write, not the end of the store.
#[tokio::test]
async fn panic_in_a_job_is_contained() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    let failed = store.write(false, |txn| {
        txn.put(Key::new(0, "default", "a"), json!({"metadata": {}}));
        if txn.snapshot().version > 0 {
            panic!("on purpose");
        }
        Ok(())
    });
    assert!(failed.await.is_err());
    assert!(store.snapshot().get(&Key::new(0, "default", "a")).is_none());
    put(&store, "b").await;
}
