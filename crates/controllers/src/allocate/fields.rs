//! Reading the fields of a Service out of JSON, and what an update inherits or drops.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// A Service to be read. Absent and malformed fields read as empty: validation has its own words for them.
pub(super) struct Service<'a>(pub(super) &'a Value);

impl<'a> Service<'a> {
    fn text(&self, field: &str) -> &'a str {
        self.0["spec"][field].as_str().unwrap_or_default()
    }

    fn texts(&self, field: &str) -> Vec<String> {
        let list = self.0["spec"][field].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(String::from).collect()
    }

    /// `namespace/name`.
    pub(super) fn owner(&self) -> String {
        let meta = |field: &str| self.0["metadata"][field].as_str().unwrap_or_default();
        format!("{}/{}", meta("namespace"), meta("name"))
    }

    /// `spec.type`.
    pub(super) fn kind(&self) -> &'a str {
        match self.text("type") {
            "" => "ClusterIP",
            kind => kind,
        }
    }

    pub(super) fn policy(&self) -> Option<&'a str> {
        self.0["spec"]["ipFamilyPolicy"].as_str()
    }

    pub(super) fn ip_families(&self) -> Vec<String> {
        self.texts("ipFamilies")
    }

    pub(super) fn cluster_ips(&self) -> Vec<String> {
        self.texts("clusterIPs")
    }

    pub(super) fn is_headless(&self) -> bool {
        self.cluster_ips().first().is_some_and(|ip| ip == "None")
            || self.text("clusterIP") == "None"
    }

    pub(super) fn has_selector(&self) -> bool {
        self.0["spec"]["selector"]
            .as_object()
            .is_some_and(|pairs| !pairs.is_empty())
    }

    pub(super) fn needs_cluster_ip(&self) -> bool {
        self.kind() != "ExternalName" && !self.is_headless()
    }

    /// Whether the type has NodePorts at all.
    pub(super) fn needs_node_ports(&self) -> bool {
        matches!(self.kind(), "NodePort" | "LoadBalancer")
    }

    /// Whether missing NodePorts are chosen: not with `allocateLoadBalancerNodePorts: false`.
    pub(super) fn allocates_node_ports(&self) -> bool {
        match self.kind() {
            "NodePort" => true,
            "LoadBalancer" => self.0["spec"]["allocateLoadBalancerNodePorts"]
                .as_bool()
                .unwrap_or(true),
            _ => false,
        }
    }

    pub(super) fn needs_health_check_port(&self) -> bool {
        self.kind() == "LoadBalancer" && self.text("externalTrafficPolicy") == "Local"
    }

    /// ClusterIPs that are addresses.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        match self.kind() {
            "ExternalName" => Vec::new(),
            _ => self
                .cluster_ips()
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
        }
    }

    /// NodePorts and the health check port, as far as they are set; a number that two ports share appears twice.
    pub(super) fn all_node_ports(&self) -> Vec<u16> {
        let ports = self.0["spec"]["ports"].as_array().into_iter().flatten();
        let numbers = ports.map(|port| number(&port["nodePort"]));
        let health = number(&self.0["spec"]["healthCheckNodePort"]);
        let all = numbers
            .chain([health])
            .filter_map(|n| u16::try_from(n).ok());
        all.filter(|port| *port != 0).collect()
    }
}

/// An integer, 0 if there is none.
pub(super) fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// `clusterIP` is the first of `clusterIPs`; clients that know only one of them must be understood.
pub(super) fn normalize_cluster_ips(old: Option<&Value>, new: &mut Value) {
    let single = new["spec"]["clusterIP"]
        .as_str()
        .unwrap_or_default()
        .to_string();
    let list = Service(new).cluster_ips();
    let was = |old: &Value, field: &str| old["spec"][field] == new["spec"][field];
    let only_single_changed =
        old.is_some_and(|old| !was(old, "clusterIP") && was(old, "clusterIPs"));
    if single.is_empty() && only_single_changed {
        remove(new, "clusterIPs");
    } else if !single.is_empty() && (list.is_empty() || only_single_changed) {
        set(new, "clusterIPs", json!([single]));
    } else if single.is_empty()
        && let Some(first) = list.first()
    {
        set(new, "clusterIP", json!(first));
    }
}

/// An update that leaves out what was allocated keeps it (`patchAllocatedValues` upstream).
pub(super) fn inherit(old: &Value, new: &mut Value) {
    let (before, after) = (Service(old), Service(new));
    let cluster_ip = before.needs_cluster_ip() && after.kind() != "ExternalName";
    let node_ports = before.needs_node_ports() && after.allocates_node_ports();
    let health = before.needs_health_check_port() && after.needs_health_check_port();
    if cluster_ip {
        let absent = |field: &str| new["spec"][field].as_str().unwrap_or_default().is_empty();
        let (no_single, no_list) = (absent("clusterIP"), Service(new).cluster_ips().is_empty());
        if no_single && no_list {
            copy(old, new, "clusterIPs");
            copy(old, new, "clusterIP");
        }
        for field in ["ipFamilyPolicy", "ipFamilies"] {
            if new["spec"][field].is_null() {
                copy(old, new, field);
            }
        }
    }
    if node_ports {
        inherit_node_ports(old, new);
    }
    if health && number(&new["spec"]["healthCheckNodePort"]) == 0 {
        copy(old, new, "healthCheckNodePort");
    }
}

fn inherit_node_ports(old: &Value, new: &mut Value) {
    let used = Service(new).all_node_ports();
    let of_old = |port: &Map<String, Value>| {
        let same = |was: &&Value| {
            ["port", "protocol"]
                .iter()
                .all(|f| was.get(f) == port.get(*f))
        };
        old["spec"]["ports"]
            .as_array()?
            .iter()
            .find(same)
            .map(|was| number(&was["nodePort"]))
    };
    for port in ports_mut(new) {
        if port.get("nodePort").is_some_and(|given| number(given) != 0) {
            continue;
        }
        if let Some(had) =
            of_old(port).filter(|had| *had != 0 && !used.iter().any(|u| i64::from(*u) == *had))
        {
            port.insert("nodePort".into(), json!(had));
        }
    }
}

/// A change of type drops what the new type does not have, unless the same update changes it
/// (`dropTypeDependentFields` upstream).
pub(super) fn drop_for_type(old: &Value, new: &mut Value) {
    let (before, after) = (Service(old), Service(new));
    let same = |field: &str| old["spec"][field] == new["spec"][field];
    let mut dropped: Vec<&str> = Vec::new();
    if before.needs_cluster_ip() && after.kind() == "ExternalName" {
        dropped.extend(
            ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]
                .into_iter()
                .filter(|f| same(f)),
        );
    }
    if before.needs_health_check_port() && !after.needs_health_check_port() {
        dropped.extend(["healthCheckNodePort"].into_iter().filter(|f| same(f)));
    }
    if before.kind() == "LoadBalancer" && after.kind() != "LoadBalancer" {
        let fields = ["allocateLoadBalancerNodePorts", "loadBalancerClass"];
        dropped.extend(fields.into_iter().filter(|f| same(f)));
    }
    if before.needs_node_ports() && !after.needs_node_ports() {
        dropped.extend(["externalTrafficPolicy"].into_iter().filter(|f| same(f)));
    }
    let ports_go =
        before.needs_node_ports() && !after.needs_node_ports() && same_node_ports(old, new);
    dropped.into_iter().for_each(|field| remove(new, field));
    if ports_go {
        ports_mut(new).for_each(|port| drop(port.shift_remove("nodePort")));
    }
}

fn same_node_ports(old: &Value, new: &Value) -> bool {
    let of = |service: &Value| -> Vec<i64> {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        ports.map(|port| number(&port["nodePort"])).collect()
    };
    let (before, after) = (of(old), of(new));
    after.iter().all(|port| *port == 0 || before.contains(port))
}

fn ports_mut(new: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let ports = new.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
    ports.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Sets a field of `spec`; a Service whose spec is no object stays as it is.
pub(super) fn set(new: &mut Value, field: &str, value: Value) {
    if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert(field.to_string(), value);
    }
}

fn copy(old: &Value, new: &mut Value, field: &str) {
    if !old["spec"][field].is_null() {
        set(new, field, old["spec"][field].clone());
    }
}

fn remove(new: &mut Value, field: &str) {
    if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) {
        spec.shift_remove(field);
    }
}
