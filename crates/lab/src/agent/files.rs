//! The texts of a pod's `/etc/resolv.conf` and `/etc/hosts`, and its host name: the kubelet's rules, pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::plan::DNS_SERVICE;

/// The cluster's domain.
const DOMAIN: &str = "cluster.local";
/// The C library reads no more name servers.
const NAMESERVERS_MAX: usize = 3;
/// The most search domains, and their bytes together.
const SEARCHES_MAX: usize = 32;
/// As much as kubelet takes of the search list; more is left out, so that every resolver reads the file.
const SEARCH_BYTES_MAX: usize = 2048;
/// The longest host name that the kernel takes.
const HOSTNAME_MAX: usize = 63;

/// What a resolv.conf says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Resolv {
    nameservers: Vec<String>,
    searches: Vec<String>,
    options: Vec<(String, Option<String>)>,
}

impl Resolv {
    /// Reads a file; of several search or options lines the last one holds.
    fn parse(text: &str) -> Resolv {
        let mut resolv = Resolv::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let word = words.next();
            let rest = words.map(str::to_string);
            match word {
                Some("nameserver") => resolv.nameservers.extend(rest.take(1)),
                Some("search") => resolv.searches = rest.map(without_dot).collect(),
                Some("options") => {
                    let option = |text: String| match text.split_once(':') {
                        Some((name, value)) => (name.to_string(), Some(value.to_string())),
                        None => (text, None),
                    };
                    resolv.options = rest.map(option).collect();
                }
                _ => {}
            }
        }
        resolv
    }

    fn for_cluster(namespace: &str, host: Resolv) -> Resolv {
        let mut searches = vec![
            format!("{namespace}.svc.{DOMAIN}"),
            format!("svc.{DOMAIN}"),
            DOMAIN.to_string(),
        ];
        searches.extend(host.searches);
        Resolv {
            nameservers: vec![DNS_SERVICE.to_string()],
            searches,
            options: vec![("ndots".into(), Some("5".into()))],
        }
    }

    /// Adds the pod's own `dnsConfig`.
    fn merge(&mut self, spec: &PodSpec) {
        let Some(own) = &spec.dns_config else { return };
        self.nameservers
            .extend(own.nameservers.iter().flatten().cloned());
        self.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            self.options.retain(|(known, _)| known != name);
            self.options.push((name.clone(), option.value.clone()));
        }
    }

    fn text(mut self) -> String {
        drop_repeated(&mut self.nameservers);
        drop_repeated(&mut self.searches);
        self.nameservers.truncate(NAMESERVERS_MAX);
        self.searches.truncate(SEARCHES_MAX);
        while self.searches.join(" ").len() > SEARCH_BYTES_MAX {
            self.searches.pop();
        }
        let mut text = String::new();
        if !self.searches.is_empty() {
            text += &format!("search {}\n", self.searches.join(" "));
        }
        for server in &self.nameservers {
            text += &format!("nameserver {server}\n");
        }
        if !self.options.is_empty() {
            let spell = |(name, value): &(String, Option<String>)| match value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            };
            let words: Vec<_> = self.options.iter().map(spell).collect();
            text += &format!("options {}\n", words.join(" "));
        }
        text
    }
}

fn without_dot(domain: String) -> String {
    match domain.strip_suffix('.') {
        Some(rest) if !rest.is_empty() => rest.to_string(),
        _ => domain,
    }
}

fn drop_repeated(words: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    words.retain(|word| seen.insert(word.clone()));
}

/// `/etc/resolv.conf`; `host` is the machine's.
pub fn resolv_conf(namespace: &str, spec: &PodSpec, host: &str) -> String {
    let host = Resolv::parse(host);
    let in_host_network = spec.host_network == Some(true);
    let mut resolv = match spec.dns_policy.as_deref() {
        Some("None") => Resolv::default(),
        Some("Default") => host,
        Some("ClusterFirstWithHostNet") => Resolv::for_cluster(namespace, host),
        _ if in_host_network => host,
        _ => Resolv::for_cluster(namespace, host),
    };
    resolv.merge(spec);
    resolv.text()
}

/// The pod's host name, and its full name if it has a subdomain.
pub fn host_names(pod: &Pod) -> (String, Option<String>) {
    let spec = pod.spec.as_ref();
    let given = spec.and_then(|spec| spec.hostname.as_deref());
    let name = given
        .filter(|name| !name.is_empty())
        .or(pod.metadata.name.as_deref())
        .unwrap_or("pod");
    let mut end = name.len().min(HOSTNAME_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let host = name[..end].trim_end_matches(['-', '.']).to_string();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let subdomain = spec
        .and_then(|spec| spec.subdomain.as_deref())
        .filter(|subdomain| !subdomain.is_empty());
    let full = subdomain.map(|domain| format!("{host}.{domain}.{namespace}.svc.{DOMAIN}"));
    (host, full)
}

/// `/etc/hosts` of a pod with its own network.
pub fn hosts(pod: &Pod, ips: &[IpAddr]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let (host, full) = host_names(pod);
    let names = match full {
        Some(full) => format!("{full}\t{host}"),
        None => host,
    };
    for ip in ips {
        text += &format!("{ip}\t{names}\n");
    }
    text + &aliases(pod)
}

/// `/etc/hosts` of a pod in its node's network: the node's, and the pod's own entries.
pub fn hosts_of_node(pod: &Pod, node: &str) -> String {
    format!(
        "# Kubernetes-managed hosts file (host network).\n{node}{}",
        aliases(pod)
    )
}

fn aliases(pod: &Pod) -> String {
    let list = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.host_aliases.as_deref());
    let Some(list) = list.filter(|list| !list.is_empty()) else {
        return String::new();
    };
    let line = |alias: &k8s_openapi::api::core::v1::HostAlias| {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        format!("{}\t{names}\n", alias.ip)
    };
    let lines: String = list.iter().map(line).collect();
    format!("\n# Entries added by HostAliases.\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HOST: &str = "search example.org. local\nnameserver 192.0.2.1\noptions timeout:1\n";

    fn resolv(spec: serde_json::Value) -> String {
        let mut spec = spec;
        spec["containers"] = json!([]);
        resolv_conf("shop", &serde_json::from_value(spec).unwrap(), HOST)
    }

    const CLUSTER: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local example.org local\n\
                           nameserver 172.30.0.10\noptions ndots:5\n";
    const DEFAULT: &str = "search example.org local\nnameserver 192.0.2.1\noptions timeout:1\n";

    #[test]
    fn dns_policies() {
        let cases = [
            (json!({}), CLUSTER),
            (
                json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}),
                DEFAULT,
            ),
            (
                json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
                CLUSTER,
            ),
            (json!({"dnsPolicy": "Default"}), DEFAULT),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.7"]}}),
                "nameserver 192.0.2.7\n",
            ),
        ];
        for (spec, want) in cases {
            assert_eq!(resolv(spec.clone()), want, "{spec}");
        }
    }

    #[test]
    fn the_pods_own_config_is_added_and_its_options_win() {
        let got = resolv(json!({"dnsPolicy": "Default", "dnsConfig": {
            "nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"],
            "searches": ["local", "own"], "options": [{"name": "timeout", "value": "3"}, {"name": "edns0"}]
        }}));
        let want = "search example.org local own\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n\
                    options timeout:3 edns0\n";
        assert_eq!(got, want);
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-0", "namespace": "shop"},
            "spec": {"containers": [], "subdomain": "web", "hostAliases": [{"ip": "192.0.2.9", "hostnames": ["a", "b"]}]}
        }))
        .unwrap();
        let text = hosts(&pod, &["10.1.0.2".parse().unwrap()]);
        assert!(text.contains("\n10.1.0.2\tweb-0.web.shop.svc.cluster.local\tweb-0\n"));
        assert!(text.ends_with("# Entries added by HostAliases.\n192.0.2.9\ta\tb\n"));
    }

    #[test]
    fn long_names_are_cut_to_what_the_kernel_takes() {
        let mut pod = Pod::default();
        pod.metadata.name = Some(format!("{}-end", "x".repeat(62)));
        assert_eq!(host_names(&pod).0, "x".repeat(62));
    }
}
