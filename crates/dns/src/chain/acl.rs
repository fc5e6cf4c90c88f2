//! `acl`: who may ask what.

use std::net::IpAddr;

use crate::corefile::plugin::Acl;
use crate::corefile::plugin::filter::{Action, Policy};

/// What the rules say; without a rule that fits, everybody is answered. `name` is text in small letters.
pub(super) fn judge(rules: &[Acl], name: &str, rtype: u16, client: IpAddr) -> Action {
    let fits = |policy: &&Policy| {
        let kind = policy.types.is_empty() || policy.types.contains(&rtype);
        let source =
            policy.sources.is_empty() || policy.sources.iter().any(|net| net.contains(&client));
        kind && source
    };
    for rule in rules.iter().filter(|rule| super::below(&rule.zones, name)) {
        match rule.policies.iter().find(fits) {
            Some(policy) if policy.action != Action::Allow => return policy.action,
            // What one rule allows, the next may still refuse, as in CoreDNS.
            _ => {}
        }
    }
    Action::Allow
}
