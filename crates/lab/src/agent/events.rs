//! Events about pods, written by one task; repeated ones are counted.
//! An event that can't be written is dropped: nothing waits for events.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use super::status::time;

/// Events that wait to be written; more are dropped.
const QUEUE_MAX: usize = 256;
/// Events that are remembered in order to count repetitions; beyond it the memory starts anew.
const REMEMBERED_MAX: usize = 512;
/// A request to the API may take this long.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How often a write is tried.
const TRIES: u32 = 5;

/// Where events are handed in.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Record>,
}

/// Whether something is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// It is.
    Normal,
    /// It is not.
    Warning,
}

#[derive(Debug)]
struct Record {
    about: ObjectReference,
    level: Level,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// A recorder and the task that writes, which ends when the last recorder is gone.
    pub fn new(client: Client, node: &str) -> (Recorder, impl Future<Output = ()> + use<>) {
        let (queue, records) = mpsc::channel(QUEUE_MAX);
        (
            Recorder { queue },
            write_all(client, node.to_string(), records),
        )
    }

    /// An event about a pod, or about one of its containers (`spec.containers{web}`).
    pub fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        level: Level,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: container.map(|name| field_path(pod, name)),
        };
        self.record(about, level, reason, message.into());
    }

    fn record(&self, about: ObjectReference, level: Level, reason: &'static str, message: String) {
        let record = Record {
            about,
            level,
            reason,
            message,
            at: Timestamp::now(),
        };
        if self.queue.try_send(record).is_err() {
            tracing::debug!(reason, "too many events, one is dropped");
        }
    }
}

fn field_path(pod: &Pod, container: &str) -> String {
    let spec = pod.spec.as_ref();
    let mut init = spec
        .into_iter()
        .flat_map(|spec| spec.init_containers.iter().flatten());
    match init.any(|init| init.name == container) {
        true => format!("spec.initContainers{{{container}}}"),
        false => format!("spec.containers{{{container}}}"),
    }
}

/// The object, its part, the reason and the message: what makes two events the same.
type Key = (Option<String>, Option<String>, &'static str, String);

async fn write_all(client: Client, node: String, mut records: mpsc::Receiver<Record>) {
    let mut known: HashMap<Key, (String, i32)> = HashMap::new();
    while let Some(record) = records.recv().await {
        let namespace = record
            .about
            .namespace
            .clone()
            .unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let key = (
            record.about.uid.clone(),
            record.about.field_path.clone(),
            record.reason,
            record.message.clone(),
        );
        if let Some((name, count)) = known.get_mut(&key) {
            *count += 1;
            if count_again(&api, name, *count, record.at).await {
                continue;
            }
        }
        let event = event(&record, &node, &namespace);
        let name = event.metadata.name.clone().unwrap_or_default();
        if create(&api, &event).await {
            if known.len() >= REMEMBERED_MAX {
                known.clear();
            }
            known.insert(key, (name, 1));
        }
    }
}

/// False when the event is not there any more.
async fn count_again(api: &Api<Event>, name: &str, count: i32, at: Timestamp) -> bool {
    let change = json!({"count": count, "lastTimestamp": time(at)});
    let params = PatchParams::default();
    let patch = Patch::Merge(change);
    let patched = api.patch(name, &params, &patch);
    matches!(tokio::time::timeout(REQUEST_MAX, patched).await, Ok(Ok(_)))
}

async fn create(api: &Api<Event>, event: &Event) -> bool {
    let mut waits = portolan_k8s::backoff::Backoff::new(Duration::from_millis(200), REQUEST_MAX);
    for _ in 0..TRIES {
        let params = PostParams::default();
        let created = api.create(&params, event);
        match tokio::time::timeout(REQUEST_MAX, created).await {
            Ok(Ok(_)) => return true,
            // The API has judged; it will not judge otherwise the next time.
            Ok(Err(kube::Error::Api(status))) if status.code < 500 => {
                tracing::debug!(%status, "an event was refused");
                return false;
            }
            _ => tokio::time::sleep(waits.delay()).await,
        }
    }
    false
}

fn event(record: &Record, node: &str, namespace: &str) -> Event {
    let about = record.about.name.as_deref().unwrap_or_default();
    let name = format!("{about}.{:x}", record.at.as_nanosecond());
    let level = match record.level {
        Level::Normal => "Normal",
        Level::Warning => "Warning",
    };
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_string()),
            ..ObjectMeta::default()
        },
        involved_object: record.about.clone(),
        type_: Some(level.into()),
        reason: Some(record.reason.into()),
        message: Some(record.message.clone()),
        count: Some(1),
        first_timestamp: Some(time(record.at)),
        last_timestamp: Some(time(record.at)),
        source: Some(EventSource {
            component: Some("kubelet".into()),
            host: Some(node.into()),
        }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(node.into()),
        ..Event::default()
    }
}
