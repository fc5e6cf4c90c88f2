//! Looking after a server that has failed, until it is well again; and whether it asks us in turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::server::Server;
use super::{Ask, TRY_TIMEOUT};
use crate::corefile::plugin::forward::Check;
use crate::message::Question;
use crate::wire::{Name, class, rcode, rtype};

/// Between two tries to find out whether a server asks us in turn, as long as it does not answer.
pub(super) const LOOP_RETRY: Duration = Duration::from_secs(1);
/// So many tries: a server that comes up later than this is looked at when its checks succeed again.
pub(super) const LOOP_TRIES_MAX: usize = 60;

/// Waits for failures, and checks until there is an answer that is no SERVFAIL. Never ends.
pub(super) async fn watch(server: Arc<Server>, check: Check) {
    loop {
        server.failed.notified().await;
        if check.period.is_zero() {
            continue;
        }
        while !is_well(&server, &check).await {
            let fails = server
                .fails
                .fetch_add(1, Ordering::Relaxed)
                .saturating_add(1);
            server.counts.checks_failed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(server = server.label, fails, "a check has failed");
            tokio::time::sleep(check.period).await;
        }
        server.fails.store(0, Ordering::Relaxed);
    }
}

/// Whether it answers at all: SERVFAIL is what a server says that cannot reach others, so it does not count.
async fn is_well(server: &Server, check: &Check) -> bool {
    let name = Name::parse(check.domain.as_str()).unwrap_or_else(|_| Name::root());
    let mut ask = Ask::of(Question {
        name,
        rtype: rtype::NS,
        class: class::IN,
    });
    ask.recursion_desired = check.recursion;
    let time = check
        .period
        .clamp(Duration::from_millis(100), TRY_TIMEOUT)
        .max(Duration::from_secs(1));
    match server.ask_within(&ask, time).await {
        Ok(message) => message.rcode != rcode::SERVFAIL,
        Err(_) => false,
    }
}

/// Asks for the server's token (HINFO, as CoreDNS does). If that comes to us, [`super::Forward::is_token`] sees it.
pub(super) async fn find_loop(server: Arc<Server>) {
    let Ok(name) = Name::parse(&server.token) else {
        return;
    };
    let ask = Ask::of(Question {
        name,
        rtype: rtype::HINFO,
        class: class::IN,
    });
    for _ in 0..LOOP_TRIES_MAX {
        if server.ask_within(&ask, TRY_TIMEOUT).await.is_ok() || server.is_looping() {
            return;
        }
        tokio::time::sleep(LOOP_RETRY).await;
    }
}
