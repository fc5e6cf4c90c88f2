//! A pod's network: a namespace whose only link leads to the node, which routes the pod's addresses over it.
//!
//! The pod's link has /32 and /128 addresses and a gateway that exists on no other link (169.254.1.1, fe80::1), so
//! everything a pod sends passes the node, also what it sends to itself through a Service.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_kernel::link::Route;
use portolan_kernel::topology::Host;
use portolan_kernel::{Links, Netns};

use crate::error::Result;
use crate::plan::{POD_GATEWAY, POD_GATEWAY6};

/// The name of the node's end of a pod's link.
pub fn link_name(pod_uid: &str) -> String {
    let hex = pod_uid.chars().filter(char::is_ascii_alphanumeric).take(11);
    format!("veth{}", hex.collect::<String>())
}

/// Builds a pod's namespace and its link; the caller is on the node. What an earlier try has left is replaced.
pub fn build(pod_uid: &str, pod_ips: [IpAddr; 2], node_ips: [IpAddr; 2]) -> Result<Netns> {
    let name = link_name(pod_uid);
    let pod = Host::new()?;
    let mut node = Links::here()?;
    remove_link(&mut node, &name)?;
    node.add_veth(&name, "eth0", Some(&pod.netns))?;
    set_up_pod(&pod, pod_ips)?;
    node.up(&name)?;
    node.add_link_address(&name, IpNet::from(IpAddr::V4(POD_GATEWAY)))?;
    node.add_address(&name, IpNet::new_assert(POD_GATEWAY6.into(), 64))?;
    for (pod_ip, node_ip) in pod_ips.into_iter().zip(node_ips) {
        // Without the source the node's probes would come from the link's own address.
        node.set_route(&Route::dev(pod_ip.into(), &name).from(node_ip))?;
    }
    Ok(pod.netns)
}

fn set_up_pod(pod: &Host, ips: [IpAddr; 2]) -> Result<()> {
    pod.set_up("eth0", &ips.map(IpNet::from))?;
    let mut links = pod.links()?;
    links.set_route(&Route::dev(IpAddr::V4(POD_GATEWAY).into(), "eth0"))?;
    links.set_route(&Route::via(
        IpNet::V4(Default::default()),
        POD_GATEWAY.into(),
    ))?;
    let mut default6 = Route::via(IpNet::V6(Default::default()), POD_GATEWAY6.into());
    default6.dev = Some("eth0".into());
    links.set_route(&default6)?;
    Ok(())
}

/// Takes a pod's link away; its namespace may live on until its processes have ended.
pub fn remove(pod_uid: &str) -> Result<()> {
    remove_link(&mut Links::here()?, &link_name(pod_uid))
}

fn remove_link(node: &mut Links, name: &str) -> Result<()> {
    match node.delete(name) {
        Err(error) if error.errno() == Some(nix::errno::Errno::ENODEV as i32) => Ok(()),
        other => Ok(other?),
    }
}
