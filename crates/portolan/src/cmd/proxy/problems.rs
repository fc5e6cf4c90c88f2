//! Problems become log lines and Events on their Services, each once.

use std::collections::BTreeSet;

use portolan_controllers::events::{Level, Recorder, reference};
use portolan_k8s::wire;
use portolan_model::Problem;
use tokio::sync::mpsc;

/// Problems that are remembered as told; beyond that all may be told once more.
const TOLD_MAX: usize = 4096;

/// Tells what comes, until nothing can come any more.
pub(super) async fn tell(client: kube::Client, mut problems: mpsc::Receiver<Vec<Problem>>) {
    let recorder = Recorder::new(client.clone());
    let mut told: BTreeSet<Problem> = BTreeSet::new();
    while let Some(batch) = problems.recv().await {
        for problem in batch {
            if told.len() >= TOLD_MAX {
                told.clear();
            }
            if !told.insert(problem.clone()) {
                continue;
            }
            tracing::warn!(service = %problem.service, reason = problem.reason, "{}", problem.message);
            let api: kube::Api<wire::Service> =
                kube::Api::namespaced(client.clone(), &problem.service.namespace);
            if let Ok(Some(service)) = api.get_opt(&problem.service.name).await {
                recorder
                    .tell(
                        "portolan-proxy",
                        reference(&service),
                        Level::Warning,
                        problem.reason,
                        &problem.message,
                    )
                    .await;
            }
        }
    }
}
