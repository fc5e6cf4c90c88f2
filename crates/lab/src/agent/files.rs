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
/// The longest single search domain; some resolvers give up at a longer one.
const SEARCH_DOMAIN_MAX: usize = 253;
/// The longest host name of a pod.
const HOSTNAME_MAX: usize = 63;
/// The longest name that the kernel takes for a machine.
const KERNEL_NAME_MAX: usize = 64;

/// A pod's resolv.conf.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// The file.
    pub text: String,
    /// What was left out because resolvers would not take it, in the words of the kubelet's events.
    pub left_out: Vec<String>,
}

/// What a resolv.conf says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Resolv {
    nameservers: Vec<String>,
    searches: Vec<String>,
    /// Names and values; an option without a value has an empty one.
    options: Vec<(String, String)>,
}

impl Resolv {
    /// Reads a file: of several search lines the last one holds, and of an option that is said twice the later one.
    fn parse(text: &str) -> Resolv {
        let mut resolv = Resolv::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let word = words.next();
            match word {
                Some("nameserver") => resolv.nameservers.extend(words.take(1).map(str::to_string)),
                Some("search") => resolv.searches = words.map(without_dot).collect(),
                Some("options") => words.for_each(|word| {
                    let (name, value) = word.split_once(':').unwrap_or((word, ""));
                    resolv.set_option(name, value);
                }),
                _ => {}
            }
        }
        resolv
    }

    /// What a resolver does without any file: it asks its own machine, and adds nothing to names.
    fn without_file() -> Resolv {
        Resolv {
            nameservers: vec!["127.0.0.1".into(), "::1".into()],
            searches: vec![".".into()],
            options: Vec::new(),
        }
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
            options: vec![("ndots".into(), "5".into())],
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
            self.set_option(name, option.value.as_deref().unwrap_or_default());
        }
    }

    fn set_option(&mut self, name: &str, value: &str) {
        self.options.retain(|(known, _)| known != name);
        self.options.push((name.to_string(), value.to_string()));
    }

    /// Leaves out what is too much, from the end, and says so.
    fn fit(&mut self) -> Vec<String> {
        let mut left_out = Vec::new();
        drop_repeated(&mut self.nameservers);
        drop_repeated(&mut self.searches);
        if self.nameservers.len() > NAMESERVERS_MAX {
            self.nameservers.truncate(NAMESERVERS_MAX);
            left_out.push(format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
                self.nameservers.join(" ")
            ));
        }
        let wanted = self.searches.len();
        self.searches.truncate(SEARCHES_MAX);
        self.searches
            .retain(|domain| domain.len() <= SEARCH_DOMAIN_MAX);
        while self.searches.join(" ").len() > SEARCH_BYTES_MAX {
            self.searches.pop();
        }
        if self.searches.len() < wanted {
            left_out.push(format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                self.searches.join(" ")
            ));
        }
        left_out
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text += &format!("search {}\n", self.searches.join(" "));
        }
        for server in &self.nameservers {
            text += &format!("nameserver {server}\n");
        }
        if !self.options.is_empty() {
            let spell = |(name, value): &(String, String)| match value.as_str() {
                "" => name.clone(),
                value => format!("{name}:{value}"),
            };
            let words: Vec<_> = self.options.iter().map(spell).collect();
            text += &format!("options {}\n", words.join(" "));
        }
        text
    }
}

fn without_dot(domain: &str) -> String {
    match domain.strip_suffix('.') {
        Some(rest) if !rest.is_empty() => rest.to_string(),
        _ => domain.to_string(),
    }
}

fn drop_repeated(words: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    words.retain(|word| seen.insert(word.clone()));
}

/// `/etc/resolv.conf`; `host` is the node's, if it has one.
pub fn resolv_conf(namespace: &str, spec: &PodSpec, host: Option<&str>) -> ResolvConf {
    let of_host = || host.map_or_else(Resolv::without_file, Resolv::parse);
    let cluster = || Resolv::for_cluster(namespace, host.map(Resolv::parse).unwrap_or_default());
    let mut resolv = match spec.dns_policy.as_deref() {
        Some("None") => Resolv::default(),
        Some("Default") => of_host(),
        Some("ClusterFirstWithHostNet") => cluster(),
        _ if spec.host_network == Some(true) => of_host(),
        _ => cluster(),
    };
    resolv.merge(spec);
    let left_out = resolv.fit();
    ResolvConf {
        text: resolv.text(),
        left_out,
    }
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

/// What the kernel calls the pod (`hostname`): its host name, or with `setHostnameAsFQDN` its full name.
pub fn kernel_name(pod: &Pod) -> Result<String, String> {
    let whole = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn);
    let (host, full) = host_names(pod);
    match full.filter(|_| whole == Some(true)) {
        Some(full) if full.len() > KERNEL_NAME_MAX => Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long \
             ({KERNEL_NAME_MAX} characters is the max, {} characters requested)",
            full.len()
        )),
        Some(full) => Ok(full),
        None => Ok(host),
    }
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
mod tests;
