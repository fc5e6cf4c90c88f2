//! `ipFamilyPolicy` and `ipFamilies`: what is missing is inferred, as `initIPFamilyFields` upstream does it.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::AllocationError;
use super::fields::{Service, set};

/// IP family in the API's spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Family::V4, Family::V6]
            .into_iter()
            .find(|family| family.as_str() == text)
    }

    fn other(self) -> Self {
        match self {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }
}

/// Fills in policy and families of a Service that has a ClusterIP or is headless. `cluster` is what the cluster has,
/// the default first. Values that make no sense at all are left to validation.
pub(super) fn settle_families(
    cluster: &[Family],
    old: Option<&Value>,
    new: &mut Value,
) -> Result<(), AllocationError> {
    if Service(new).kind() == "ExternalName" {
        return Ok(());
    }
    if let Some(old) = old {
        trim_on_downgrade(old, new);
    }
    let service = Service(new);
    let mut families: Vec<Family> = service
        .ip_families()
        .iter()
        .filter_map(|text| Family::parse(text))
        .collect();
    infer_from_addresses(&service, &mut families)?;
    let selectorless = service.is_headless() && !service.has_selector();
    let policy = match service.policy() {
        Some(policy) => policy.to_string(),
        None if selectorless || families.len() == 2 => "RequireDualStack".to_string(),
        None => "SingleStack".to_string(),
    };
    check(&policy, cluster, &families, selectorless, &service)?;
    if families.is_empty() {
        families.extend(cluster.first());
    }
    let other = families.first().map(|family| family.other());
    let wants_both = policy == "RequireDualStack" || policy == "PreferDualStack";
    if let (1, true, Some(other)) = (families.len(), wants_both, other)
        && (cluster.contains(&other) || selectorless)
    {
        families.push(other);
    }
    set(new, "ipFamilyPolicy", json!(policy));
    set(
        new,
        "ipFamilies",
        json!(families.iter().map(|f| f.as_str()).collect::<Vec<_>>()),
    );
    Ok(())
}

/// Given addresses say which families are meant; where families are given as well, both must agree.
fn infer_from_addresses(
    service: &Service<'_>,
    families: &mut Vec<Family>,
) -> Result<(), AllocationError> {
    for (index, text) in service.cluster_ips().iter().enumerate() {
        let Some(family) = text.parse().ok().map(Family::of) else {
            return Ok(());
        };
        match families.get(index) {
            None => families.push(family),
            Some(expected) if *expected == family => {}
            Some(expected) => {
                return Err(AllocationError::Invalid {
                    field: format!("spec.clusterIPs[{index}]"),
                    value: json!(text),
                    detail: format!(
                        "expected an {} value as indicated by `ipFamilies[{index}]`",
                        expected.as_str()
                    ),
                });
            }
        }
    }
    Ok(())
}

fn check(
    policy: &str,
    cluster: &[Family],
    families: &[Family],
    selectorless: bool,
    service: &Service<'_>,
) -> Result<(), AllocationError> {
    let invalid = |field: &str, value: Value, detail: &str| {
        Err(AllocationError::Invalid {
            field: field.into(),
            value,
            detail: detail.into(),
        })
    };
    if policy == "SingleStack" && families.len() == 2 {
        let detail = match service.cluster_ips().len() {
            2 => "may not be 'SingleStack' when multiple 'clusterIPs' are specified",
            _ => "may not be 'SingleStack' when multiple 'ipFamilies' are specified",
        };
        return invalid("spec.ipFamilyPolicy", json!(policy), detail);
    }
    if selectorless {
        return Ok(());
    }
    if policy == "RequireDualStack" && cluster.len() < 2 {
        return invalid(
            "spec.ipFamilyPolicy",
            json!(policy),
            "this cluster is not configured for dual-stack services",
        );
    }
    match families.iter().position(|family| !cluster.contains(family)) {
        Some(index) => {
            let field = format!("spec.ipFamilies[{index}]");
            invalid(
                &field,
                json!(families[index].as_str()),
                "not configured on this cluster",
            )
        }
        None => Ok(()),
    }
}

/// Setting the policy to SingleStack is enough to give the second family back.
fn trim_on_downgrade(old: &Value, new: &mut Value) {
    if Service(new).policy() != Some("SingleStack") || Service(old).policy() == Some("SingleStack")
    {
        return;
    }
    for field in ["ipFamilies", "clusterIPs"] {
        let Some(list) = new["spec"].get_mut(field).and_then(Value::as_array_mut) else {
            continue;
        };
        if old["spec"][field].as_array() == Some(list) {
            list.truncate(1);
        }
    }
}
