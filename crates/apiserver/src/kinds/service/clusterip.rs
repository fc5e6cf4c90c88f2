//! `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`: what they may be together, and how they may change.

use std::net::IpAddr;

use serde_json::Value;

use crate::kind::FieldError;
use crate::kinds::check::address;
use crate::kinds::read::{items, text};

const IPS: &str = "spec.clusterIPs";
const FAMILIES: &str = "spec.ipFamilies";
const POLICY: &str = "spec.ipFamilyPolicy";

/// One of each family.
const IPS_MAX: usize = 2;

/// Whether a Service has no address of its own.
pub fn is_headless(spec: &Value) -> bool {
    matches!(items(&spec["clusterIPs"]), [only] if only == "None")
}

/// Checks the fields of one Service.
pub fn validate(spec: &Value, errors: &mut Vec<FieldError>) {
    if spec["type"] == "ExternalName" {
        return;
    }
    let before = errors.len();
    let ips = items(&spec["clusterIPs"]);
    in_step(spec, ips, errors);
    families(spec, errors);
    if ips.len() > 1 && ips[0] == "None" {
        let detail = "'None' must be the first and only value";
        errors.push(FieldError::invalid(IPS, spec["clusterIPs"].clone(), detail));
        return;
    }
    let mut parsed = Vec::new();
    for (index, ip) in ips
        .iter()
        .enumerate()
        .filter(|(index, ip)| *index > 0 || *ip != "None")
    {
        parsed.push(address::ip(&format!("{IPS}[{index}]"), text(ip), errors));
    }
    if ips.len() > IPS_MAX {
        errors.push(FieldError::invalid(
            IPS,
            spec["clusterIPs"].clone(),
            "may only hold up to 2 values",
        ));
    }
    let Some(parsed) = parsed.into_iter().collect::<Option<Vec<IpAddr>>>() else {
        return;
    };
    if ips.len() > 1 {
        let v4 = parsed.iter().filter(|ip| ip.is_ipv4()).count();
        if v4 > 1 || parsed.len() - v4 > 1 {
            let detail = "may specify no more than one IP for each IP family";
            errors.push(FieldError::invalid(IPS, spec["clusterIPs"].clone(), detail));
        }
    }
    if !is_headless(spec) && errors.len() == before {
        match_families(spec, &parsed, errors);
    }
}

/// `clusterIP` is the first of `clusterIPs`.
fn in_step(spec: &Value, ips: &[Value], errors: &mut Vec<FieldError>) {
    let invalid = |detail: &str| FieldError::invalid(IPS, spec["clusterIPs"].clone(), detail);
    match (text(&spec["clusterIP"]), ips.first()) {
        ("", Some(_)) => errors.push(invalid("must be empty when `clusterIP` is not specified")),
        ("", None) => {}
        (_, None) => errors.push(FieldError::required(IPS, "")),
        (ip, Some(first)) if first != ip => {
            errors.push(invalid("first value must match `clusterIP`"))
        }
        _ => {}
    }
}

fn families(spec: &Value, errors: &mut Vec<FieldError>) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, family) in items(&spec["ipFamilies"]).iter().map(text).enumerate() {
        let field = format!("{FAMILIES}[{index}]");
        if !matches!(family, "IPv4" | "IPv6") {
            errors.push(FieldError::not_supported(&field, family, &["IPv4", "IPv6"]));
        }
        if seen.contains(&family) {
            errors.push(FieldError::duplicate(field, family));
        }
        seen.push(family);
    }
    let policy = &spec["ipFamilyPolicy"];
    let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    if !policy.is_null() && !known.contains(&text(policy)) {
        errors.push(FieldError::not_supported(POLICY, text(policy), &known));
    }
}

fn match_families(spec: &Value, ips: &[IpAddr], errors: &mut Vec<FieldError>) {
    for (index, (ip, family)) in ips.iter().zip(items(&spec["ipFamilies"])).enumerate() {
        let fits = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        if family != fits {
            errors.push(FieldError::invalid(
                format!("{IPS}[{index}]"),
                spec["clusterIPs"][index].clone(),
                format!(
                    "expected an {} value as indicated by `ipFamilies[{index}]`",
                    text(family)
                ),
            ));
        }
    }
}

/// Checks that addresses and families stay, apart from a second one that comes or goes.
pub fn validate_change(spec: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if spec["type"] == "ExternalName" || old["type"] == "ExternalName" {
        return;
    }
    let both_headless = is_headless(spec) && is_headless(old);
    if !both_headless {
        stays(spec, old, ("clusterIPs", "clusterIP"), errors);
    }
    if is_headless(spec) == is_headless(old) && !both_headless {
        stays(spec, old, ("ipFamilies", "ipFamily"), errors);
    }
}

fn stays(spec: &Value, old: &Value, (list, one): (&str, &str), errors: &mut Vec<FieldError>) {
    let (new, before) = (items(&spec[list]), items(&old[list]));
    let invalid = |index: usize, detail: &str| {
        FieldError::invalid(format!("spec.{list}[{index}]"), spec[list].clone(), detail)
    };
    if before.is_empty() {
        return;
    }
    if new.is_empty() {
        errors.push(invalid(0, &format!("primary {one} can not be unset")));
        return;
    }
    for (index, _) in before
        .iter()
        .zip(new)
        .enumerate()
        .filter(|(_, (before, new))| before != new)
    {
        errors.push(invalid(index, "may not change once set"));
    }
    if new.len() < before.len() && spec["ipFamilyPolicy"] != "SingleStack" {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {one}");
        errors.push(FieldError::invalid(
            POLICY,
            spec["ipFamilyPolicy"].clone(),
            detail,
        ));
    }
}
