//! The book: what the newest Snapshot says about every frontend, ready to be asked for each new flow.
//!
//! It is replaced by the sync loop and read by doors. The decisions are [`decide`]'s; the book only keeps them, and
//! turns a list of endpoints into an order in which they are tried.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use imbl::OrdMap;
use portolan_model::{
    Affinity, Flow, Origin, PortKey, Protocol, Snapshot, Sweep, Treatment, decide,
};

use crate::limits::Limits;
use crate::order::{Order, Orders};
use crate::tally::Tally;

/// What stands, and since when the clock runs.
pub(crate) struct Book {
    page: RwLock<Page>,
    pub limits: Limits,
    start: Instant,
}

#[derive(Clone, Default)]
struct Page {
    snapshot: Snapshot,
    served: OrdMap<PortKey, Served>,
}

#[derive(Clone)]
struct Served {
    treatments: Arc<[(Treatment, Orders)]>,
    tally: Arc<Tally>,
}

/// Why a flow gets no endpoint. The portal lets no such flow through; it happens while a change is on its way, and to
/// those who come to a door by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No Service answers there.
    Unknown,
    /// The Service says reject or drop.
    NotServed,
}

/// The endpoints that a flow may go to, in the order in which they are tried.
#[derive(Debug)]
pub(crate) struct Plan {
    pub tally: Arc<Tally>,
    order: Arc<Order>,
    /// The slot of the next try.
    slot: usize,
    affinity: Option<Affinity>,
    client: IpAddr,
}

impl Book {
    pub fn new(limits: Limits) -> Self {
        Book {
            page: RwLock::default(),
            limits,
            start: Instant::now(),
        }
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn snapshot(&self) -> Snapshot {
        self.page().snapshot
    }

    /// The tallies of all ports, in the order of their keys.
    pub fn tallies(&self) -> Vec<Arc<Tally>> {
        let page = self.page();
        page.served
            .values()
            .map(|served| Arc::clone(&served.tally))
            .collect()
    }

    fn page(&self) -> Page {
        let page = self.page.read().unwrap_or_else(PoisonError::into_inner);
        page.clone()
    }

    /// From now on `snapshot` holds. UDP clients whose endpoint serves no more are closed (rules R-STALE).
    pub fn replace(&self, snapshot: Snapshot) {
        let before = self.page();
        let sweep = Sweep::new(Some(&before.snapshot), &snapshot);
        let touched = snapshot.touched(&before.snapshot);
        let mut served = before.served;
        let mut looked_at = Vec::new();
        for key in touched {
            let known = served.get(&key).map(|known| Arc::clone(&known.tally));
            looked_at.extend(known.clone());
            match snapshot.port(&key) {
                None => drop(served.remove(&key)),
                Some(port) => {
                    let new = || Arc::new(Tally::new(key.clone(), &self.limits));
                    let tally = known.unwrap_or_else(new);
                    let treatments = decide(snapshot.node(), port);
                    let orders = Orders::of(&treatments);
                    let treatments = treatments.into_iter().zip(orders).collect();
                    served.insert(key, Served { treatments, tally });
                }
            }
        }
        *self.page.write().unwrap_or_else(PoisonError::into_inner) = Page { snapshot, served };
        for tally in looked_at {
            let sessions = tally.sessions();
            let stale = |flow: &Flow| sweep.is_stale(flow);
            let stale = sessions.iter().filter(|session| stale(&session.flow()));
            stale.for_each(|session| session.close());
        }
    }

    /// Where a new flow may go.
    pub fn plan(
        &self,
        protocol: Protocol,
        client: SocketAddr,
        destination: SocketAddr,
        origin: Origin,
    ) -> Result<Plan, Refusal> {
        let page = self.page();
        let found = || {
            let frontend = page.snapshot.frontend(protocol, destination)?;
            let owner = page.snapshot.owner(&frontend)?;
            let served = page.served.get(&owner.key)?;
            let all = &served.treatments;
            let (treatment, orders) = all.iter().find(|(t, _)| t.frontend == frontend)?;
            Some((treatment, orders, &served.tally))
        };
        let (treatment, orders, tally) = found().ok_or(Refusal::Unknown)?;
        let order = orders.for_origin(origin);
        let order = order.filter(|_| treatment.admits(client.ip()));
        let order = Arc::clone(order.ok_or(Refusal::NotServed)?);
        let remembered = treatment.affinity.and_then(|affinity| {
            let known = tally.remembered(client.ip(), self.now(), affinity.timeout)?;
            order.slot_of(known)
        });
        Ok(Plan {
            tally: Arc::clone(tally),
            slot: remembered.unwrap_or_else(|| order.first(tally.next_turn(order.list), client)),
            order,
            affinity: treatment.affinity,
            client: client.ip(),
        })
    }
}

impl Plan {
    /// The endpoint of the next try.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.order.at(self.slot)
    }

    /// That try has failed: the next one goes to the next endpoint.
    pub fn go_on(&mut self) {
        self.slot = self.order.after(self.slot);
    }

    /// The flow goes to `endpoint`: with affinity, later flows of the client do so too.
    pub fn settle(&self, endpoint: SocketAddr, now: Duration) {
        if self.affinity.is_some() {
            self.tally.remember(self.client, endpoint, now);
        }
    }
}
