//! What the API server gives to a Service: address families, ClusterIPs, NodePorts, a health check port.
//!
//! Pure: no I/O, a seed in place of chance. [`Allocator::allocate`] only looks and chooses; [`Allocator::stored`]
//! remembers. Both are called by the one writer of the store, so that nothing comes between a choice and its storing,
//! a write that fails leaves no trace, and a dry run is a choice that is not stored.
//!
//! ```text
//!   Service (defaulted) ──allocate──▶ same Service, fields filled in ──validate, store──▶ stored(old, new)
//! ```
//!
//! At start every Service of the store goes through `stored(None, Some(service))`.
//! What upstream says in which case is kept word by word (pkg/registry/core/service in kubernetes).

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde_json::{Value, json};

mod families;
mod fields;
mod ip_pool;
mod port_pool;

pub use ip_pool::IpPool;
pub use port_pool::PortPool;

use families::{Family, settle_families};
use fields::{Service, drop_for_type, inherit, normalize_cluster_ips, number, set};

/// Ranges that are allocated from.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// Service ranges, one or two, of different families; the first one's family is the default.
    pub service_cidrs: Vec<IpNet>,
    /// `--service-node-port-range`; 30000–32767 by default.
    pub node_ports: RangeInclusive<u16>,
}

/// Why a Service cannot have what it asks for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AllocationError {
    /// A given value cannot be had: 422 with one cause of type "Invalid value".
    #[error("{field}: Invalid value: {value}: {detail}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// What was given.
        value: Value,
        /// What is wrong with it.
        detail: String,
    },
    /// Nothing is left: 500.
    #[error("{0}")]
    Internal(String),
}

/// Who has which address and port. Rebuilt at start by [`Allocator::stored`].
#[derive(Clone, Debug)]
pub struct Allocator {
    pools: Vec<IpPool>,
    ports: PortPool,
    random: fastrand::Rng,
}

impl Allocator {
    /// Nothing is allocated yet. `seed` decides which free addresses are taken.
    pub fn new(ranges: &Ranges, seed: u64) -> Self {
        Allocator {
            pools: ranges
                .service_cidrs
                .iter()
                .map(|cidr| IpPool::new(*cidr))
                .collect(),
            ports: PortPool::new(ranges.node_ports.clone()),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Fills in `spec.ipFamilyPolicy`, `ipFamilies`, `clusterIP(s)`, `ports[].nodePort` and `healthCheckNodePort` of a
    /// Service on create (`old` is `None`) or update of the main resource. Remembers nothing: see [`Allocator::stored`].
    pub fn allocate(
        &mut self,
        old: Option<&Value>,
        new: &mut Value,
    ) -> Result<(), AllocationError> {
        if !new.get("spec").is_some_and(Value::is_object) {
            return Ok(());
        }
        if let Some(old) = old {
            drop_for_type(old, new);
            inherit(old, new);
        }
        normalize_cluster_ips(old, new);
        let clusters: Vec<Family> = self
            .pools
            .iter()
            .map(|pool| Family::of(pool.cidr().addr()))
            .collect();
        settle_families(&clusters, old, new)?;
        let owner = Service(new).owner();
        self.choose_cluster_ips(&owner, new)?;
        self.choose_node_ports(&owner, new)?;
        self.choose_health_check_port(&owner, new)
    }

    /// Follows a change of the store: what `old` had is free, what `new` has is taken.
    /// Undoing a change is the same with the two exchanged.
    pub fn stored(&mut self, old: Option<&Value>, new: Option<&Value>) {
        if let Some(old) = old {
            let owner = Service(old).owner();
            Service(old)
                .addresses()
                .iter()
                .for_each(|ip| self.with_pool(*ip, |pool| pool.release(*ip, &owner)));
            Service(old)
                .all_node_ports()
                .iter()
                .for_each(|port| self.ports.release(*port, &owner));
        }
        if let Some(new) = new {
            let owner = Service(new).owner();
            Service(new)
                .addresses()
                .iter()
                .for_each(|ip| self.with_pool(*ip, |pool| pool.take(*ip, &owner)));
            Service(new)
                .all_node_ports()
                .iter()
                .for_each(|port| self.ports.take(*port, &owner));
        }
    }

    fn with_pool(&mut self, ip: IpAddr, act: impl FnOnce(&mut IpPool)) {
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.cidr().contains(&ip)) {
            act(pool);
        }
    }

    fn choose_cluster_ips(&mut self, owner: &str, new: &mut Value) -> Result<(), AllocationError> {
        let service = Service(new);
        if !service.needs_cluster_ip() {
            return Ok(());
        }
        let mut chosen = service.cluster_ips();
        let given = json!(chosen);
        let families = service.ip_families();
        for (index, text) in families.iter().enumerate() {
            let Some(pool) = self
                .pools
                .iter()
                .find(|pool| Family::of(pool.cidr().addr()).as_str() == text)
            else {
                continue;
            };
            match chosen.get(index) {
                Some(ip) => pool
                    .check(ip, owner)
                    .map_err(|detail| AllocationError::Invalid {
                        field: "spec.clusterIPs".into(),
                        value: given.clone(),
                        detail: format!("failed to allocate IP {ip}: {detail}"),
                    })?,
                None => {
                    let free = pool.free(&mut self.random);
                    let full = || {
                        AllocationError::Internal(
                            "failed to allocate a serviceIP: range is full".into(),
                        )
                    };
                    chosen.push(free.ok_or_else(full)?.to_string());
                }
            }
        }
        set(new, "clusterIP", json!(chosen.first()));
        set(new, "clusterIPs", json!(chosen));
        Ok(())
    }

    /// Ports with one number share their NodePort (TCP and UDP of DNS); given numbers are taken first, wherever they
    /// stand in the list, so that a dynamic choice never takes what a later port asks for.
    fn choose_node_ports(&mut self, owner: &str, new: &mut Value) -> Result<(), AllocationError> {
        self.check_given_ports(owner, new)?;
        if !Service(new).allocates_node_ports() {
            return Ok(());
        }
        let mut mine = Service(new).all_node_ports();
        let Some(ports) = new.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else {
            return Ok(());
        };
        for index in 0..ports.len() {
            if number(&ports[index]["nodePort"]) != 0 {
                continue;
            }
            let shared = shared_node_port(ports, index);
            let free = || self.ports.free(&mut self.random, &mine);
            let full =
                || AllocationError::Internal("failed to allocate a nodePort: range is full".into());
            let chosen = shared.or_else(free).ok_or_else(full)?;
            mine.push(chosen);
            if let Some(port) = ports[index].as_object_mut() {
                port.insert("nodePort".into(), json!(chosen));
            }
        }
        Ok(())
    }

    fn check_given_ports(&self, owner: &str, new: &Value) -> Result<(), AllocationError> {
        for (index, port) in new["spec"]["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let given = number(&port["nodePort"]);
            if given == 0 {
                continue;
            }
            self.ports
                .check(given, owner)
                .map_err(|detail| AllocationError::Invalid {
                    field: format!("spec.ports[{index}].nodePort"),
                    value: json!(given),
                    detail,
                })?;
        }
        Ok(())
    }

    fn choose_health_check_port(
        &mut self,
        owner: &str,
        new: &mut Value,
    ) -> Result<(), AllocationError> {
        if !Service(new).needs_health_check_port() {
            return Ok(());
        }
        let given = number(&new["spec"]["healthCheckNodePort"]);
        if given != 0 {
            return self.ports.check(given, owner).map_err(|detail| {
                AllocationError::Internal(format!(
                    "failed to allocate requested HealthCheck NodePort {given}: {detail}"
                ))
            });
        }
        let mine = Service(new).all_node_ports();
        let full = || {
            AllocationError::Internal(
                "failed to allocate a HealthCheck NodePort : range is full".into(),
            )
        };
        let chosen = self.ports.free(&mut self.random, &mine).ok_or_else(full)?;
        set(new, "healthCheckNodePort", json!(chosen));
        Ok(())
    }
}

/// The NodePort of another port with the same number and another protocol and no such NodePort yet.
fn shared_node_port(ports: &[Value], index: usize) -> Option<u16> {
    let same_port = |other: &&Value| other["port"] == ports[index]["port"];
    let taken = |node_port: u16| {
        let same_protocol = |p: &&Value| p["protocol"] == ports[index]["protocol"];
        ports
            .iter()
            .filter(same_protocol)
            .any(|p| number(&p["nodePort"]) == i64::from(node_port))
    };
    let numbers = ports
        .iter()
        .filter(same_port)
        .filter_map(|p| u16::try_from(number(&p["nodePort"])).ok());
    numbers
        .filter(|number| *number != 0)
        .find(|number| !taken(*number))
}

#[cfg(test)]
mod tests;
