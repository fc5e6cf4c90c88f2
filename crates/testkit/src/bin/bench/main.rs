//! `make bench`: what programming the data planes costs, what an agent needs, and what its packets feel; a
//! kube-proxy that `PEER_KUBE_PROXY` names is measured beside it.
//!
//! ```text
//!   bench [--only WORDS]
//!     programming   one process: compile, diff, apply                           (programming.rs)
//!     agent         `portolan proxy` as a process, against `portolan apiserver` (agent.rs)
//!     packets       connections through the node of such an agent               (packets.rs)
//!     traffic       each mode: connections, streams and datagrams               (traffic.rs)
//!        └──▶ Report ──▶ bench/out/results.json; docs/performance.md and .svg, when nothing was left out
//! ```
//!
//! Everything happens in network namespaces of this process, which are gone when it ends.

mod agent;
mod api;
mod bed;
mod bench;
mod contender;
mod document;
mod monitor;
mod objects;
mod packets;
mod plot;
mod process;
mod programming;
mod report;
mod samples;
mod traffic;

use portolan_kernel::Links;
use portolan_kernel::namespace::{Kinds, enter_new};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let only = match words[..] {
        [programming::FLAG, mode, services, endpoints] => {
            let (services, endpoints) = (services.parse()?, endpoints.parse()?);
            let shape = objects::Shape {
                services,
                endpoints,
            };
            return programming::child(mode, shape);
        }
        [] => "",
        ["--only", words] => words,
        _ => return Err(
            "usage: bench [--only WORDS], such as `--only programming` or `--only \"10000 x 2\"`"
                .into(),
        ),
    };
    // Before the first thread: nothing of this is to be seen in the machine's own namespace.
    enter_new(Kinds::CLONE_NEWNET)?;
    Links::here()?.up("lo")?;
    Ok(bench::run(only)?)
}
