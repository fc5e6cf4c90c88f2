//! List and watch of one kind, for ever: errors are logged and retried with a capped back-off.

use std::fmt::Debug;
use std::time::Duration;

use futures::{Stream, StreamExt, future};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
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

/// Lists, then watches. `Init`, `InitApply`… and `InitDone` bracket every full listing: what is not named between
/// them is gone. The stream never ends; dropping it ends the watch.
pub fn watch<K>(api: Api<K>, filter: Filter<'_>) -> impl Stream<Item = Event<K>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let text = |query: &str| (!query.is_empty()).then(|| query.to_string());
    let config = watcher::Config {
        label_selector: text(filter.labels),
        field_selector: text(filter.fields),
        ..watcher::Config::default()
    };
    let kind = K::plural(&()).to_string();
    watcher::watcher(api, config)
        .backoff(Backoff::new(RETRY_MIN, RETRY_MAX))
        .filter_map(move |event| future::ready(event.inspect_err(|error| tell(&kind, error)).ok()))
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
