//! Everything of one kind, and then its changes, for ever: errors are logged and retried with a capped back-off.
//!
//! The objects that are there come as the beginning of the watch (KEP-3157), which is one request and needs no memory for
//! a page; a server that refuses that is asked for lists in pages.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, InitialListStrategy};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::backoff::Backoff;

pub use kube::runtime::watcher::Event;

/// What kube-proxy asks for: neither Services that belong to another proxy nor headless ones (KEP-2447).
pub const PROXIED: &str =
    "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";

/// The first retry of a broken watch comes after about this long.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// No retry waits longer than this.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Which objects of a kind are watched; both queries empty for all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Label selector.
    pub labels: &'a str,
    /// Field selector.
    pub fields: &'a str,
}

/// Tells everything that is there, then what changes. `Init`, `InitApply`… and `InitDone` bracket every full listing:
/// what is not named between them is gone. The stream never ends; dropping it ends the watch.
pub fn watch<K>(api: Api<K>, filter: Filter<'_>) -> impl Stream<Item = Event<K>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let text = |query: &str| (!query.is_empty()).then(|| query.to_string());
    let config = Config {
        label_selector: text(filter.labels),
        field_selector: text(filter.fields),
        initial_list_strategy: InitialListStrategy::StreamingList,
        ..Config::default()
    };
    let watching = Watching {
        events: start(&api, &config),
        api,
        config,
    };
    stream::unfold(watching, |mut watching| async {
        watching.next().await.map(|event| (event, watching))
    })
}

struct Watching<K> {
    api: Api<K>,
    config: Config,
    events: BoxStream<'static, watcher::Result<Event<K>>>,
}

fn start<K>(api: &Api<K>, config: &Config) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher::watcher(api.clone(), config.clone())
        .backoff(Backoff::new(RETRY_MIN, RETRY_MAX))
        .boxed()
}

impl<K> Watching<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    async fn next(&mut self) -> Option<Event<K>> {
        loop {
            let error = match self.events.next().await? {
                Ok(event) => return Some(event),
                Err(error) => error,
            };
            let kind = K::plural(&());
            let streams = self.config.initial_list_strategy == InitialListStrategy::StreamingList;
            if streams && is_refused(&error) {
                tracing::debug!(%kind, %error, "the server tells no lists in watches, asking for pages");
                self.config.initial_list_strategy = InitialListStrategy::ListWatch;
                self.events = start(&self.api, &self.config);
            } else {
                tell(&kind, &error);
            }
        }
    }
}

/// Whether a server without the feature WatchList has answered: 422, or 400 where it does not even know the parameter.
fn is_refused(error: &watcher::Error) -> bool {
    let watcher::Error::WatchStartFailed(kube::Error::Api(status)) = error else {
        return false;
    };
    matches!(status.code, 400 | 422)
}

/// Broken connections are daily business (the server restarts); anything else deserves a warning.
fn tell(kind: &str, error: &watcher::Error) {
    match error {
        watcher::Error::WatchFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchError(_) => {
            tracing::debug!(kind, %error, "watch broken, trying again");
        }
        _ => tracing::warn!(kind, %error, "cannot list, trying again"),
    }
}
