//! What the chains of one Service port in one family are rendered from.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use portolan_model::{Origin, Protocol};

use super::name::{Chain, Hash, Role};

/// What happens to new flows of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// An error answer.
    Reject,
    /// No answer.
    Drop,
    /// To an endpoint of a list.
    To {
        /// The chain that chooses.
        list: Role,
        /// Whether the source is rewritten.
        masquerade: bool,
    },
}

impl Way {
    /// Whether it leads to an endpoint.
    pub const fn leads(self) -> bool {
        matches!(self, Way::To { .. })
    }

    /// Whether the source is rewritten.
    pub const fn masquerades(self) -> bool {
        matches!(
            self,
            Way::To {
                masquerade: true,
                ..
            }
        )
    }
}

/// The ways of the three origins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ways {
    pub pod: Way,
    pub host: Way,
    pub outside: Way,
}

impl Ways {
    /// All three.
    pub const fn all(&self) -> [(Origin, Way); 3] {
        [
            (Origin::Pod, self.pod),
            (Origin::Host, self.host),
            (Origin::Outside, self.outside),
        ]
    }

    /// Whether anybody gets to an endpoint.
    pub fn lead(&self) -> bool {
        self.all().iter().any(|(_, way)| way.leads())
    }

    /// How those are refused who get nowhere, if there are any.
    pub fn refusal(&self) -> Option<Way> {
        // Silence wins, should both ever meet: an error would tell a client to give up.
        let failing = self
            .all()
            .into_iter()
            .map(|(_, way)| way)
            .filter(|way| !way.leads());
        failing.max()
    }
}

/// One endpoint to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Index into [`Part::endpoints`].
    pub endpoint: u32,
    /// Its share of the chances of the list.
    pub share: u32,
}

/// The ClusterIP of a Service port, and who is masqueraded on the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClusterIp {
    pub address: IpAddr,
    pub port: u16,
    pub ways: Ways,
}

/// A LoadBalancer address that not everybody may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guarded {
    pub address: IpAddr,
    /// Ranges that may, without overlaps.
    pub sources: Vec<IpNet>,
}

/// What one Service port needs in the table `nat` of one family, apart from its lines in fixed chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// `namespace/name:port`, for comments.
    pub name: Arc<str>,
    pub hash: Hash,
    pub protocol: Protocol,
    /// How long clients are remembered; 0 is not at all.
    pub affinity_s: u32,
    /// One after the other instead of at random.
    pub in_turn: bool,
    /// Everybody who is in a list, sorted by address.
    pub endpoints: Vec<(SocketAddr, Hash)>,
    /// Whom the policy Cluster chooses from.
    pub cluster: Vec<Choice>,
    /// Whom the policy Local chooses from.
    pub local: Vec<Choice>,
    pub cluster_ips: Vec<ClusterIp>,
    /// All external frontends are treated the same.
    pub external: Option<Ways>,
    pub guarded: Vec<Guarded>,
}

impl Part {
    /// The chain of `role`, which is not that of an endpoint.
    pub fn chain(&self, role: Role) -> Chain {
        Chain::Service(role, self.hash)
    }

    /// The list of a role that chooses.
    pub fn list(&self, role: Role) -> &[Choice] {
        match role {
            Role::Local => &self.local,
            _ => &self.cluster,
        }
    }

    /// Every chain that it needs.
    pub fn chains(&self) -> Vec<Chain> {
        let endpoint = |(_, hash): &(SocketAddr, Hash)| Chain::Service(Role::Endpoint, *hash);
        let mut all: Vec<Chain> = self.endpoints.iter().map(endpoint).collect();
        let lists = [Role::Cluster, Role::Local];
        let lists = lists
            .into_iter()
            .filter(|role| !self.list(*role).is_empty());
        all.extend(lists.map(|role| self.chain(role)));
        if self.external.is_some() {
            all.push(self.chain(Role::External));
        }
        if !self.guarded.is_empty() {
            all.push(self.chain(Role::Guard));
        }
        all
    }
}
