//! What is wrong with one Service, told to whoever can mend it.

use std::fmt;

use crate::name::ServiceName;

/// Something about one Service that cannot be carried out; the rest of the cluster is not affected.
/// It becomes an Event on the Service, a metric and a line of `portolan why`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The Service it is about.
    pub service: ServiceName,
    /// Event reason in CamelCase, from a fixed list, e.g. `AddressInUse`.
    pub reason: &'static str,
    /// What is wrong, where, and what to do about it: whole sentences.
    pub message: String,
}

impl Problem {
    /// The reason of a Problem about what the proxy mode of this node cannot do, and another one can.
    pub const NOT_IN_THIS_MODE: &str = "NotInThisMode";
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Service {}: {} ({})",
            self.service, self.message, self.reason
        )
    }
}
