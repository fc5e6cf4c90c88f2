//! Names on this node: the files of its answerer come from the ConfigMap `coredns`, and the API hears whether it answers.
//!
//! The answerer is a process of its own, which the supervisor keeps: neither ends with the other.

mod answerer;
mod files;
mod slices;

use std::net::SocketAddr;
use std::path::PathBuf;

use kube::Client;
use tokio::sync::watch;

use crate::names::PORT;
use crate::plan::NodePlan;

/// Does its part for ever. `dir` is where the answerer finds its Corefile.
pub async fn keep(client: Client, plan: NodePlan, dir: PathBuf) {
    let [address, _] = plan.ips();
    // Nothing is told before we know: an agent that has just begun must not take an endpoint away.
    let (tell, answers) = watch::channel(None);
    tokio::select! {
        () = files::follow(client.clone(), &dir) => {}
        () = answerer::observe(SocketAddr::new(address, PORT), &tell) => {}
        () = slices::publish(client, plan, answers) => {}
    }
}
