//! Events (`kubectl describe`, `kubectl get events`): what controllers have done to an object.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;

/// Events that are remembered, so that a repetition only raises the count of the first one.
const REMEMBERED_MAX: usize = 4096;

/// How much somebody should worry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// All is well.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Writes Events; repetitions raise the count. An Event that cannot be written is only logged.
pub struct Recorder {
    client: Client,
    written: Mutex<HashMap<Id, Written>>,
}

/// What makes two Events one: object, reason, message.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Id(String, String, String);

/// Name of the Event, and how often it has happened.
struct Written {
    name: String,
    count: i32,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

impl Recorder {
    /// Nothing has been written yet.
    pub fn new(client: Client) -> Self {
        Recorder {
            client,
            written: Mutex::default(),
        }
    }

    /// Says that `component` did something to `object`.
    pub async fn tell(
        &self,
        component: &str,
        object: ObjectReference,
        level: Level,
        reason: &str,
        message: &str,
    ) {
        let namespace = object
            .namespace
            .clone()
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let id = Id(
            object.uid.clone().unwrap_or_default(),
            reason.to_string(),
            message.to_string(),
        );
        let now = Time(Timestamp::now());
        let known = self.repeat(&id);
        if let Some((name, count)) = known {
            let patch = json!({"count": count, "lastTimestamp": now});
            if api
                .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .is_ok()
            {
                return;
            }
        }
        let name = format!(
            "{}.{:016x}",
            object.name.as_deref().unwrap_or_default(),
            fastrand::u64(..)
        );
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: object,
            reason: Some(reason.into()),
            message: Some(message.into()),
            type_: Some(
                if level == Level::Normal {
                    "Normal"
                } else {
                    "Warning"
                }
                .into(),
            ),
            source: Some(EventSource {
                component: Some(component.into()),
                host: None,
            }),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            reporting_component: Some(component.into()),
            reporting_instance: Some(String::new()),
            ..Event::default()
        };
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => self.remember(id, name),
            Err(error) => tracing::debug!(%error, reason, message, "event not written"),
        }
    }

    fn repeat(&self, id: &Id) -> Option<(String, i32)> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let written = written.get_mut(id)?;
        written.count += 1;
        Some((written.name.clone(), written.count))
    }

    fn remember(&self, id: Id, name: String) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.len() >= REMEMBERED_MAX {
            written.clear();
        }
        written.insert(id, Written { name, count: 1 });
    }
}

/// A reference to an object, for an Event.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference {
        field_path: None,
        ..object.object_ref(&())
    }
}
