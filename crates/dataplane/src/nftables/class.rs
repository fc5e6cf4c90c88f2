//! Classes: the finitely many ways in which a frontend is served, each one chain.

use std::fmt;

use portolan_model::Origin;

/// How the chain of a class finds the identity of the Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// The frontend is the identity: the packet itself says it.
    Direct,
    /// Another address frontend: `services` says it.
    Alias,
    /// A node port: `node-ports` says it.
    NodePort,
}

/// One of the two lists of endpoints that a Service port can have in a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List {
    /// The list of the first frontend; slots from 0.
    Main,
    /// The list that traffic policies make differ from it; slots from 65 536.
    Other,
}

impl List {
    /// The number of its first slot in `endpoints`.
    pub const fn first_slot(self) -> u32 {
        match self {
            List::Main => 0,
            List::Other => 0x1_0000,
        }
    }
}

/// What a class does with a new flow of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// An error answer.
    Reject,
    /// No answer.
    Drop,
    /// To an endpoint of a list.
    Pick {
        /// The list to choose from.
        list: List,
        /// Whether the source is rewritten.
        masquerade: bool,
    },
}

impl Way {
    const ALL: [(Way, char); 6] = [
        (Way::Reject, 'r'),
        (Way::Drop, 'd'),
        (Way::pick(List::Main, false), 'm'),
        (Way::pick(List::Main, true), 'M'),
        (Way::pick(List::Other, false), 'o'),
        (Way::pick(List::Other, true), 'O'),
    ];

    const fn pick(list: List, masquerade: bool) -> Self {
        Way::Pick { list, masquerade }
    }

    fn index(self) -> usize {
        let same = |(way, _): &(Way, char)| *way == self;
        Way::ALL.iter().position(same).unwrap_or_default()
    }

    /// The way without its masquerade: what it does to the destination.
    pub(crate) fn target(self) -> Self {
        match self {
            Way::Pick { list, .. } => Way::pick(list, false),
            other => other,
        }
    }

    /// Whether the source is rewritten.
    pub(crate) fn masquerades(self) -> bool {
        matches!(
            self,
            Way::Pick {
                masquerade: true,
                ..
            }
        )
    }
}

/// Everything that the chain of a frontend has to know. Counts of lists that no way uses are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// Where the identity comes from.
    pub via: Via,
    /// Only sources in `allowed` enter.
    pub guarded: bool,
    /// How long a client is remembered, in seconds; 0 is not at all. At most [`Class::AFFINITY_S_MAX`].
    pub affinity_s: u32,
    /// For packets from pods.
    pub pod: Way,
    /// For packets of the node's own processes.
    pub host: Way,
    /// For all others.
    pub outside: Way,
    /// Endpoints in the main list.
    pub main: u16,
    /// Endpoints in the other list.
    pub other: u16,
}

impl Class {
    /// Twelve days: 20 bits of seconds. The API allows one day.
    pub const AFFINITY_S_MAX: u32 = 0xf_ffff;

    /// The way for `origin`.
    pub fn way(&self, origin: Origin) -> Way {
        match origin {
            Origin::Pod => self.pod,
            Origin::Host => self.host,
            Origin::Outside => self.outside,
        }
    }

    /// The number that stands for this class in the maps; no two classes share one.
    pub fn pack(&self) -> [u32; 2] {
        let ways = [self.pod, self.host, self.outside];
        let mut high = (self.via as u32) << 1 | u32::from(self.guarded);
        for way in ways {
            high = high << 3 | way.index() as u32;
        }
        [
            high << 20 | self.affinity_s,
            u32::from(self.main) << 16 | u32::from(self.other),
        ]
    }

    /// The class of a number, if it is one that [`Class::pack`] can give.
    pub fn unpack([high, low]: [u32; 2]) -> Option<Self> {
        let way = |shift: u32| Way::ALL.get((high >> shift & 7) as usize).map(|w| w.0);
        Some(Class {
            via: match high >> 30 {
                0 => Via::Direct,
                1 => Via::Alias,
                2 => Via::NodePort,
                _ => return None,
            },
            guarded: high >> 29 & 1 == 1,
            pod: way(26)?,
            host: way(23)?,
            outside: way(20)?,
            affinity_s: high & Self::AFFINITY_S_MAX,
            main: (low >> 16) as u16,
            other: low as u16,
        })
    }
}

/// The name of its chain, e.g. `ip-mMM-3`: reached by address; for pods, host and others the main list, the latter two
/// masqueraded; three endpoints. Letters: `m` main, `o` other (capitals masquerade), `r` reject, `d` drop.
impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let via = match self.via {
            Via::Direct => "ip",
            Via::Alias => "alias",
            Via::NodePort => "port",
        };
        let guarded = if self.guarded { "-guarded" } else { "" };
        let letter = |way: Way| Way::ALL[way.index()].1;
        let ways = [self.pod, self.host, self.outside].map(letter);
        write!(
            f,
            "{via}{guarded}-{}-{}",
            String::from_iter(ways),
            self.main
        )?;
        if self.other > 0 {
            write!(f, "-{}", self.other)?;
        }
        if self.affinity_s > 0 {
            write!(f, "-{}s", self.affinity_s)?;
        }
        Ok(())
    }
}
