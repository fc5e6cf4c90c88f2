//! `make bench`: what programming the data planes costs, what an agent needs, and what its packets feel; a
//! kube-proxy that `PEER_KUBE_PROXY` names is measured beside it, haproxy (`PEER_HAPROXY`) beside userspace mode, and other DNS servers beside ours.
//!
//! ```text
//!   bench [--only WORDS]
//!     programming   one process: compile, diff, apply                           (programming.rs)
//!     agent         `portolan proxy` as a process, against `portolan apiserver` (agent.rs)
//!     packets       connections through the node of such an agent               (packets.rs)
//!     traffic       each mode: connections, streams and datagrams               (traffic.rs)
//!     dns           `portolan dns`, alone on a core, asked by dnsperf           (dns.rs)
//!     gateway       `portolan gateway` alone on a core, beside nginx and haproxy (gateway.rs)
//!        └──▶ Report ──▶ bench/out/results.json; docs/performance.md and .svg, when nothing was left out
//! ```
//!
//! Everything happens in network namespaces of this process, which are gone when it ends.

mod agent;
mod api;
mod bed;
mod bench;
mod contender;
mod dns;
mod document;
mod gateway;
mod haproxy;
mod lane;
mod monitor;
mod noise;
mod objects;
mod packets;
mod plot;
mod process;
mod programming;
mod report;
mod samples;
mod traffic;

use std::path::Path;

use portolan_kernel::cgroup::Cgroup;
use portolan_kernel::ebpf::Location;
use portolan_kernel::namespace::{Kinds, enter_new, is_first_user};
use portolan_kernel::{Links, mount};

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
    enter_new(Kinds::CLONE_NEWNET | Kinds::CLONE_NEWNS)?;
    Links::here()?.up("lo")?;
    if !is_first_user() {
        return Ok(bench::run(only)?);
    }
    let cgroup = confine()?;
    let done = bench::run(only);
    cgroup.dismiss()?;
    Ok(done?)
}

/// What programs of eBPF mode see, and what they leave behind, is of this process and its children.
fn confine() -> portolan_kernel::Result<Cgroup> {
    mount::make_private()?;
    mount::bpffs(Path::new("/sys/fs/bpf"))?;
    let mut cgroup = Cgroup::new(&Location::default().cgroup)?;
    cgroup.join()?;
    cgroup.show_as_root()?;
    Ok(cgroup)
}
