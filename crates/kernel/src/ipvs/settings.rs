//! What ipvs mode sets in its network namespace besides its own things: sysctls and timeouts.

use std::path::Path;

use portolan_model::ApplyError;

use super::Timeouts;

/// What the flags of ipvs mode say about the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Links answer ARP only for their own addresses (`--ipvs-strict-arp`).
    pub strict_arp: bool,
    /// Lifetimes of connections.
    pub timeouts: Timeouts,
}

/// A setting, its value, and what it is for.
struct Sysctl(&'static str, &'static str);

/// IPVS must tell conntrack what it translates, or nobody could be masqueraded; connections and clients of a real server
/// that is gone must go elsewhere; answers of endpoints are forwarded.
const ALWAYS: [Sysctl; 4] = [
    Sysctl("net/ipv4/vs/conntrack", "1"),
    Sysctl("net/ipv4/vs/expire_nodest_conn", "1"),
    Sysctl("net/ipv4/vs/expire_quiescent_template", "1"),
    Sysctl("net/ipv4/ip_forward", "1"),
];

const STRICT_ARP: [Sysctl; 2] = [
    Sysctl("net/ipv4/conf/all/arp_ignore", "1"),
    Sysctl("net/ipv4/conf/all/arp_announce", "2"),
];

/// Before Linux 5.9 a client's port that comes again waits a second with it (kubernetes issue 81775).
const REUSE: Sysctl = Sysctl("net/ipv4/vs/conn_reuse_mode", "0");

/// Sets everything in the namespace of the calling thread.
pub(super) fn apply(settings: &Settings) -> Result<(), ApplyError> {
    ALWAYS.iter().try_for_each(set)?;
    if settings.strict_arp {
        STRICT_ARP.iter().try_for_each(set)?;
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match is_before_5_9(&release) {
        true => set(&REUSE),
        false => Ok(()),
    }
}

fn is_before_5_9(release: &str) -> bool {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok());
    match (number(), number()) {
        (Some(major), Some(minor)) => (major, minor) < (5, 9),
        _ => false,
    }
}

/// Writes only what differs: a container may show /proc/sys read-only and have the right values.
fn set(Sysctl(name, value): &Sysctl) -> Result<(), ApplyError> {
    let path = Path::new("/proc/sys").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == *value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|error| ApplyError {
        doing: format!(
            "cannot set {} to {value} for ipvs mode",
            name.replace('/', ".")
        ),
        words: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_know_their_age() {
        for (release, before) in [
            ("4.19.0-21-amd64", true),
            ("5.8.18", true),
            ("5.9.0", false),
            ("5.10.0-rc1", false),
            ("6.1.0-53-cloud-amd64\n", false),
            ("strange", false),
        ] {
            assert_eq!(is_before_5_9(release), before, "{release}");
        }
    }
}
