//! Network settings of a namespace, under /proc/sys/net. They are never written in the machine's own namespace:
//! a namespace has to be named.

use std::path::Path;

use crate::error::{Error, Result};
use crate::netns::Netns;

/// Writes `net.*` settings of `netns`, given as (path below /proc/sys/net, value).
pub fn set(netns: &Netns, settings: &[(&str, &str)]) -> Result<()> {
    netns.run(|| {
        for (name, value) in settings {
            let path = Path::new("/proc/sys/net").join(name);
            std::fs::write(&path, value).map_err(|e| Error::file("write", &path, e))?;
        }
        Ok(())
    })?
}

/// Reads a `net.*` setting of `netns`.
pub fn read(netns: &Netns, name: &str) -> Result<String> {
    netns.run(|| {
        let path = Path::new("/proc/sys/net").join(name);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::file("read", &path, e))?;
        Ok(text.trim_end().to_string())
    })?
}

/// What every namespace of a lab needs: no duplicate address detection and no reverse path filter.
/// Reverse path filtering would drop the asymmetric paths that NodePort traffic takes.
pub fn set_host(netns: &Netns) -> Result<()> {
    set(
        netns,
        &[
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/all/disable_ipv6", "0"),
            ("ipv6/conf/default/disable_ipv6", "0"),
            // A hairpin through a Service leaves a node by the link that it came in on; nobody shall act on that.
            ("ipv4/conf/all/accept_redirects", "0"),
            ("ipv6/conf/all/accept_redirects", "0"),
            ("ipv6/conf/default/accept_redirects", "0"),
            // An unprivileged process of a pod may listen on port 80, as with containerd's default.
            ("ipv4/ip_unprivileged_port_start", "0"),
        ],
    )
}

/// What a namespace that forwards packets (a node, the fabric) needs beyond [`set_host`].
pub fn set_router(netns: &Netns) -> Result<()> {
    set_host(netns)?;
    set(
        netns,
        &[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/forwarding", "1"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
        ],
    )
}
