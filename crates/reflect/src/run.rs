//! Feeds a [`Tracker`] from the API, and publishes what it says.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use futures::{FutureExt, Stream, StreamExt, stream};
use kube::{Api, Client};
use portolan_k8s::watch::{Event, Filter, PROXIED, watch};
use portolan_k8s::wire;
use tokio::sync::watch;

use crate::node::NodeOptions;
use crate::tracker::{Reflection, Tracker};

/// Events that are taken in before something is published, when they come faster than they are taken in:
/// more would let a flood of events keep the data plane waiting.
const BURST_MAX: usize = 4096;

/// What [`run`] needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// About the node, as it changes; its name does not.
    pub node: watch::Receiver<NodeOptions>,
    /// The addresses of the node's interfaces, as they change; empty when unknown.
    pub interfaces: watch::Receiver<BTreeSet<IpAddr>>,
}

enum News {
    Service(Box<Event<wire::Service>>),
    Slice(Event<wire::EndpointSlice>),
    Node(Event<wire::Node>),
    Interfaces(BTreeSet<IpAddr>),
    Options(Box<NodeOptions>),
}

/// Watches for ever, and sends a new Reflection after each burst of events; the channel holds `None` until everything
/// has been listed once. Ends when nobody listens any more.
pub async fn run(client: Client, options: Options, publish: watch::Sender<Option<Reflection>>) {
    let node = options.node.borrow().clone();
    let mut tracker = Tracker::new(node.clone(), options.interfaces.borrow().clone());
    let mut news = Box::pin(news(client, &node.name, &options));
    loop {
        let first = tokio::select! {
            first = news.next() => first,
            () = publish.closed() => None,
        };
        let Some(first) = first else {
            return;
        };
        let received = Instant::now();
        take(&mut tracker, first);
        for _ in 1..BURST_MAX {
            match news.next().now_or_never().flatten() {
                Some(next) => take(&mut tracker, next),
                None => break,
            }
        }
        if let Some(mut reflection) = tracker.reflect() {
            reflection.received = Some(received);
            publish.send_replace(Some(reflection));
        }
    }
}

fn take(tracker: &mut Tracker, news: News) {
    match news {
        News::Service(event) => tracker.service(*event),
        News::Slice(event) => tracker.slice(event),
        News::Node(event) => tracker.node(event),
        News::Interfaces(addresses) => tracker.set_interfaces(addresses),
        News::Options(options) => tracker.set_options(*options),
    }
}

fn news(client: Client, name: &str, options: &Options) -> impl Stream<Item = News> + Send + use<> {
    let proxied = Filter {
        labels: PROXIED,
        fields: "",
    };
    let own = format!("metadata.name={name}");
    let own = Filter {
        labels: "",
        fields: &own,
    };
    let services = watch(Api::<wire::Service>::all(client.clone()), proxied)
        .map(|event| News::Service(Box::new(event)));
    let slices = watch(Api::<wire::EndpointSlice>::all(client.clone()), proxied).map(News::Slice);
    let nodes = watch(Api::<wire::Node>::all(client), own).map(News::Node);
    let changes = stream::unfold(options.interfaces.clone(), |mut interfaces| async move {
        interfaces.changed().await.ok()?;
        let addresses = interfaces.borrow_and_update().clone();
        Some((News::Interfaces(addresses), interfaces))
    });
    let decisions = stream::unfold(options.node.clone(), |mut node| async move {
        node.changed().await.ok()?;
        let options = node.borrow_and_update().clone();
        Some((News::Options(Box::new(options)), node))
    });
    stream::select_all([
        services.boxed(),
        slices.boxed(),
        nodes.boxed(),
        changes.boxed(),
        decisions.boxed(),
    ])
}
