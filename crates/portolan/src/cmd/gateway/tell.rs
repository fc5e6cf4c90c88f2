//! Says what the gateway has found: status of Ingresses, log lines, and Events on Ingresses and their classes.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::{Api, Client};
use portolan_controllers::events::{Level, Recorder, reference};
use portolan_gateway::{Followed, Problem, apply_status, status_changes};
use portolan_k8s::wire::networking::{Ingress, IngressClass};
use tokio::sync::watch;

/// Problems that are told; beyond that only `portolan gateway routes` lists them, until some are mended.
const TOLD_MAX: usize = 4096;

/// A status that was not written is tried again after this time, or at the next change.
const RETRY: Duration = Duration::from_secs(5);

/// Tells of every change, until nothing can come any more.
pub(super) async fn tell(
    client: Client,
    mut followed: watch::Receiver<Option<Followed>>,
    addresses: Vec<String>,
) {
    let recorder = Recorder::new(client.clone());
    let mut told: BTreeSet<Problem> = BTreeSet::new();
    let mut all_written = true;
    loop {
        tokio::select! {
            changed = followed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if !all_written => {}
        }
        let Some(now) = followed.borrow_and_update().clone() else {
            continue;
        };
        all_written = write(&client, &now, &addresses).await;
        // What is mended may break again, and is told again then.
        told.retain(|problem| now.routing.problems.contains(problem));
        for problem in &now.routing.problems {
            if told.len() >= TOLD_MAX || !told.insert(problem.clone()) {
                continue;
            }
            tracing::warn!("{problem}");
            event(&client, &recorder, problem).await;
        }
    }
}

/// Whether every status stands as it should.
async fn write(client: &Client, now: &Followed, addresses: &[String]) -> bool {
    let mut all = true;
    for change in status_changes(&now.ingresses, &now.routing, addresses) {
        if let Err(error) = apply_status(client, &change).await {
            tracing::warn!(ingress = %change.ingress, %error, "its status was not written");
            all = false;
        }
    }
    all
}

async fn event(client: &Client, recorder: &Recorder, problem: &Problem) {
    let name = &problem.object.name;
    let object = match problem.kind {
        "IngressClass" => {
            let found = Api::<IngressClass>::all(client.clone()).get_opt(name).await;
            found.ok().flatten().map(|class| reference(&class))
        }
        _ => {
            let api = Api::<Ingress>::namespaced(client.clone(), &problem.object.namespace);
            let found = api.get_opt(name).await;
            found.ok().flatten().map(|ingress| reference(&ingress))
        }
    };
    if let Some(object) = object {
        recorder
            .tell(
                "portolan-gateway",
                object,
                Level::Warning,
                problem.reason,
                &problem.message,
            )
            .await;
    }
}
