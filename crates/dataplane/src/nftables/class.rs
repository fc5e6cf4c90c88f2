//! Classes: the finitely many ways in which a frontend is served, each one chain.

use std::fmt;

use portolan_model::{Balance, Origin};

use super::element::Spot;

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

    /// The list that a slot is in.
    pub const fn of(slot: u32) -> Self {
        match slot < List::Other.first_slot() {
            true => List::Main,
            false => List::Other,
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
    /// To the virtual server at its address, in ipvs mode; in userspace mode, to the door of its origin.
    Server {
        /// Whether the source is rewritten.
        masquerade: bool,
    },
}

impl Way {
    const ALL: [(Way, char); 8] = [
        (Way::Reject, 'r'),
        (Way::Drop, 'd'),
        (Way::pick(List::Main, false), 'm'),
        (Way::pick(List::Main, true), 'M'),
        (Way::pick(List::Other, false), 'o'),
        (Way::pick(List::Other, true), 'O'),
        (Way::Server { masquerade: false }, 's'),
        (Way::Server { masquerade: true }, 'S'),
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
            Way::Server { .. } => Way::Server { masquerade: false },
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
            } | Way::Server { masquerade: true }
        )
    }
}

/// Everything that the chain of a frontend has to know. Counts of lists that no way uses are 0, and then, as when there
/// is one slot only, `balance` is random.
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
    /// How a slot is chosen.
    pub balance: Balance,
    /// Slots of the main list: as many as it has endpoints, if these weigh the same and no hash chooses.
    pub main: u16,
    /// Slots of the other list.
    pub other: u16,
}

impl Class {
    /// A day and a half: 17 bits of seconds. The API allows one day.
    pub const AFFINITY_S_MAX: u32 = 0x1_ffff;

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
            high << 20 | (self.balance as u32) << 17 | self.affinity_s,
            u32::from(self.main) << 16 | u32::from(self.other),
        ]
    }

    /// The class of a number, if it is one that [`Class::pack`] can give.
    pub fn unpack([high, low]: [u32; 2]) -> Option<Self> {
        let balance = Balance::ALL.get((high >> 17 & 7) as usize)?;
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
            balance: *balance,
            main: (low >> 16) as u16,
            other: low as u16,
        })
    }
}

impl Class {
    /// How many slots a list has.
    pub fn slots(&self, list: List) -> u16 {
        match list {
            List::Main => self.main,
            List::Other => self.other,
        }
    }

    /// What [`Turn::pack`] gives for the counters of a list, whoever they belong to.
    pub(crate) fn turn_numbers(&self, list: List) -> [u32; 2] {
        numbers(list, self.slots(list), self.affinity_s)
    }

    /// The counters that its chain leads to, for the Service port `id`.
    pub(crate) fn turns(&self, id: Spot) -> impl Iterator<Item = Turn> {
        let class = *self;
        let counted =
            move |list: &List| class.balance == Balance::RoundRobin && class.slots(*list) > 0;
        let turn = move |list| Turn {
            id,
            list,
            slots: class.slots(list),
            affinity_s: class.affinity_s,
        };
        [List::Main, List::Other]
            .into_iter()
            .filter(counted)
            .map(turn)
    }
}

/// The name of its chain, e.g. `ip-mMM-3`: reached by address; for pods, host and others the main list, the latter two
/// masqueraded; three slots. Letters: `m` main, `o` other, `s` virtual server or relay (capitals masquerade), `r` reject,
/// `d` drop.
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
        if self.balance != Balance::Random {
            write!(f, "-{}", self.balance)?;
        }
        if self.affinity_s > 0 {
            write!(f, "-{}s", self.affinity_s)?;
        }
        Ok(())
    }
}

/// One counter: the turns of one list of one Service port, whichever frontend a flow comes through.
/// Each is a chain of its own, since the kernel counts in each rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Turn {
    /// The identity of the Service port.
    pub id: Spot,
    /// Which of its lists.
    pub list: List,
    /// How many slots it has.
    pub slots: u16,
    /// As in [`Class`].
    pub affinity_s: u32,
}

impl Turn {
    /// The two numbers that follow the identity in the key of `turns`; a class knows them.
    pub fn pack(&self) -> [u32; 2] {
        numbers(self.list, self.slots, self.affinity_s)
    }

    /// The counter of an identity and two numbers.
    pub fn unpack(id: Spot, [number, affinity_s]: [u32; 2]) -> Option<Self> {
        let list = match number >> 16 {
            0 => List::Main,
            1 => List::Other,
            _ => return None,
        };
        Some(Turn {
            id,
            list,
            slots: number as u16,
            affinity_s,
        })
    }
}

const fn numbers(list: List, slots: u16, affinity_s: u32) -> [u32; 2] {
    [list.first_slot() | slots as u32, affinity_s]
}

/// The name of its chain, e.g. `turn-172.30.0.1-80-tcp-main-3`: the identity, the list, three slots.
impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `nft` allows no colons in names.
        let address = self.id.address.to_string().replace(':', "-");
        let protocol = self.id.protocol.as_str().to_ascii_lowercase();
        let list = match self.list {
            List::Main => "main",
            List::Other => "other",
        };
        let (port, slots) = (self.id.port, self.slots);
        write!(f, "turn-{address}-{port}-{protocol}-{list}-{slots}")?;
        if self.affinity_s > 0 {
            write!(f, "-{}s", self.affinity_s)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
