//! The addresses of the network namespace that we run in.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use nix::ifaddrs::getifaddrs;
use tokio::sync::watch;

/// Addresses seldom change; what is new after this while is seen.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// All addresses of all interfaces.
pub(super) fn addresses() -> anyhow::Result<BTreeSet<IpAddr>> {
    let all = getifaddrs().context("cannot list the addresses of the interfaces")?;
    let ip = |address: nix::ifaddrs::InterfaceAddress| {
        let storage = address.address?;
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    };
    Ok(all.filter_map(ip).collect())
}

/// Publishes the addresses as they change, until nobody listens any more.
pub(super) async fn follow(publish: watch::Sender<BTreeSet<IpAddr>>) -> anyhow::Result<()> {
    let mut clock = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = publish.closed() => return Ok(()),
        }
        match addresses() {
            Ok(now) => drop(
                publish.send_if_modified(|before| std::mem::replace(before, now.clone()) != now),
            ),
            Err(error) => tracing::warn!(%error, "keeping the addresses known before"),
        }
    }
}
