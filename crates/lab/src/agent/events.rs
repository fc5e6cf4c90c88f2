//! Events about pods, in the kubelet's words. The same event again counts up the one that exists.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use super::status::time;

/// Events that wait to be sent; when the API does not take them, further ones are lost, as with the kubelet.
const QUEUE_MAX: usize = 256;
/// How many events are remembered for counting up.
const KNOWN_MAX: usize = 4096;

/// Sends events in the background.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Event>,
    node: String,
}

impl Recorder {
    /// A recorder and the task that sends, which ends with the last recorder.
    pub fn new(
        client: Client,
        node: &str,
    ) -> (Recorder, impl Future<Output = ()> + Send + 'static) {
        let (queue, events) = mpsc::channel(QUEUE_MAX);
        (
            Recorder {
                queue,
                node: node.to_string(),
            },
            send_all(client, events),
        )
    }

    /// An event about a pod, or about one of its containers.
    pub fn tell(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: &str,
        reason: &str,
        message: String,
    ) {
        let meta = &pod.metadata;
        let now = Timestamp::now();
        let init = pod
            .spec
            .iter()
            .flat_map(|spec| spec.init_containers.iter().flatten());
        let field = container.map(|name| {
            let list = if init.into_iter().any(|c| c.name == name) {
                "initContainers"
            } else {
                "containers"
            };
            format!("spec.{list}{{{name}}}")
        });
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{}.{:x}",
                    meta.name.as_deref().unwrap_or_default(),
                    now.as_nanosecond()
                )),
                namespace: meta.namespace.clone(),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: meta.name.clone(),
                namespace: meta.namespace.clone(),
                uid: meta.uid.clone(),
                field_path: field,
                ..ObjectReference::default()
            },
            type_: Some(kind.into()),
            reason: Some(reason.into()),
            message: Some(message),
            count: Some(1),
            first_timestamp: Some(time(now)),
            last_timestamp: Some(time(now)),
            source: Some(EventSource {
                component: Some("kubelet".into()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        };
        if self.queue.try_send(event).is_err() {
            tracing::warn!("an event is lost: too many wait for the API");
        }
    }
}

/// The event's name and how often it was sent, by what makes events the same.
#[derive(Default)]
struct Known {
    counts: HashMap<String, (String, i32)>,
}

impl Known {
    fn key(event: &Event) -> String {
        let about = &event.involved_object;
        let parts = [
            &about.uid,
            &about.field_path,
            &event.type_,
            &event.reason,
            &event.message,
        ];
        parts
            .map(|part| part.as_deref().unwrap_or_default())
            .join("\0")
    }
}

async fn send_all(client: Client, mut events: mpsc::Receiver<Event>) {
    let mut known = Known::default();
    while let Some(event) = events.recv().await {
        if let Err(error) = send(&client, &event, &mut known).await {
            tracing::debug!(%error, "an event is lost");
        }
    }
}

async fn send(client: &Client, event: &Event, known: &mut Known) -> kube::Result<()> {
    let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let key = Known::key(event);
    if let Some((name, count)) = known.counts.get_mut(&key) {
        *count += 1;
        let change = json!({"count": *count, "lastTimestamp": event.last_timestamp});
        if api
            .patch(name, &PatchParams::default(), &Patch::Merge(change))
            .await
            .is_ok()
        {
            return Ok(());
        }
    }
    api.create(&PostParams::default(), event).await?;
    if known.counts.len() >= KNOWN_MAX {
        known.counts.clear();
    }
    known
        .counts
        .insert(key, (event.metadata.name.clone().unwrap_or_default(), 1));
    Ok(())
}
