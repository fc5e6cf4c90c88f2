//! Which of the two kernels behind the tools holds this node's rules.

use portolan_dataplane::iptables::Table;
use portolan_model::{ApplyError, Family};

use super::tool::Tool;

/// The kernel behind the tools. Rules of one are not seen by the tools of the other, but packets meet both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// nf_tables, spoken to in the words of iptables.
    Nft,
    /// ip_tables, which newer kernels may lack.
    Legacy,
}

/// How many chains one commit of nf_tables writes or removes. The tool keeps the names of a commit's chains in a list
/// that it looks through for each line, so that 10 000 Services in one commit take minutes, and 100 chains at a time
/// seconds.
pub const CHAINS_PER_COMMIT: usize = 100;

/// Chains that the kubelet makes, so that others find out which variant the node uses.
const HINTS: [&str; 2] = [":KUBE-IPTABLES-HINT ", ":KUBE-KUBELET-CANARY "];

impl Variant {
    /// How it is called in the names of the tools.
    pub const fn name(self) -> &'static str {
        match self {
            Variant::Nft => "nft",
            Variant::Legacy => "legacy",
        }
    }

    /// How many chains one commit writes or removes: ip_tables takes the whole table with each, so it gets one.
    pub(super) const fn chains_max(self) -> usize {
        match self {
            Variant::Nft => CHAINS_PER_COMMIT,
            Variant::Legacy => usize::MAX,
        }
    }

    /// The variant that the node of the calling thread's network namespace uses: the one with the kubelet's hint, else
    /// the one with more rules, else nf_tables. A variant that this machine does not have holds no rules.
    /// This is how the images of kube-proxy choose.
    pub fn detect() -> Result<Self, ApplyError> {
        let (nft, legacy) = (Tool::here(Variant::Nft)?, Tool::here(Variant::Legacy)?);
        let texts = |tool: &Tool, table| -> String {
            let text = |family| tool.save(family, table).unwrap_or_default();
            Family::ALL.map(text).concat()
        };
        if has_hint(&texts(&nft, Some(Table::Mangle))) {
            return Ok(Variant::Nft);
        }
        // To name a table would make it stand in a kernel that has not used ip_tables until now.
        let found = texts(&legacy, None);
        if has_hint(&found) {
            return Ok(Variant::Legacy);
        }
        // A node without a kubelet.
        let more = rules_in(&found) > 0 && rules_in(&found) > rules_in(&texts(&nft, None));
        Ok(if more { Variant::Legacy } else { Variant::Nft })
    }
}

/// Whether one of the kubelet's chains stands.
fn has_hint(text: &str) -> bool {
    let hint = |line: &str| HINTS.iter().any(|hint| line.starts_with(hint));
    text.lines().any(hint)
}

fn rules_in(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with('-')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_a_chain() {
        let text = "# by iptables-save\n*mangle\n:KUBE-IPTABLES-HINT - [0:0]\n-A X -j Y\nCOMMIT\n";
        assert!(has_hint(text));
        assert!(!has_hint(&text.replace("HINT", "HINTS")));
        assert!(has_hint(&text.replace("IPTABLES-HINT", "KUBELET-CANARY")));
        assert!(!has_hint(""));
        assert_eq!(rules_in(text), 1);
    }
}
