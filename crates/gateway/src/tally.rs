//! What has become of requests, in numbers: for each route, and for those that no route is for.
//!
//! ```text
//!   thread 1 … n: a Ledger each, whose cells only that thread writes ─▶ read and added up when somebody asks
//! ```
//!
//! Counting takes no lock and no memory, and touches no cache line that another thread writes: a route's cells are looked
//! up by the place of its target in memory, and are made when its first request comes.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;

use crate::quick::Quick;
use crate::route::{Origin, Target};
use crate::table::Table;

/// Routes that one thread counts by themselves: four times what a large cluster has. When there are so many, those that
/// are not served any more are given up first; requests of further ones are counted with those that no route is for.
pub const ROUTES_MAX: usize = 20_000;

/// Upper bounds of the times that answers took, in microseconds; the last bucket is for all others. Those from 5 ms on are
/// what ingress-nginx has.
pub const BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// Statuses that are counted by themselves for one route: those that come first. Few routes have more than five.
pub const STATUSES_MAX: usize = 12;

const BUCKETS: usize = BOUNDS_US.len() + 1;

/// What one thread has counted of one route. Cache lines come in pairs (Intel's manual, 3.7.3), so that what one
/// thread writes must not share 128 bytes with another.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Cells {
    /// 0 is none yet.
    statuses: [AtomicU16; STATUSES_MAX],
    counts: [AtomicU64; STATUSES_MAX],
    /// Of other statuses, by their first digit.
    classes: [AtomicU64; 5],
    times: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
    sent: AtomicU64,
}

/// Only one thread writes, so that nothing can come between.
fn add(cell: &AtomicU64, count: u64) {
    let before = cell.load(Ordering::Relaxed);
    cell.store(before.wrapping_add(count), Ordering::Relaxed);
}

impl Cells {
    /// Counts an answer with so many bytes of body.
    pub(crate) fn count(&self, status: StatusCode, took: Duration, sent: u64) {
        self.add_status(status.as_u16(), 1);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound);
        add(&self.times[bucket.unwrap_or(BUCKETS - 1)], 1);
        add(&self.sum_us, us);
        add(&self.sent, sent);
    }

    fn add_status(&self, status: u16, count: u64) {
        for (known, cell) in self.statuses.iter().zip(&self.counts) {
            match known.load(Ordering::Relaxed) {
                0 => known.store(status, Ordering::Relaxed),
                known if known != status => continue,
                _ => {}
            }
            return add(cell, count);
        }
        add(&self.classes[class(status)], count);
    }

    /// Takes over what other cells of the same thread have.
    fn absorb(&self, other: &Hits) {
        let statuses = other.statuses.iter();
        statuses.for_each(|(status, count)| self.add_status(*status, *count));
        let pairs = self.classes.iter().zip(other.classes);
        pairs.for_each(|(cell, more)| add(cell, more));
        let pairs = self.times.iter().zip(other.times);
        pairs.for_each(|(cell, more)| add(cell, more));
        add(&self.sum_us, other.sum_us);
        add(&self.sent, other.sent);
    }

    fn read(&self) -> Hits {
        let mut hits = Hits::default();
        for (status, count) in self.statuses.iter().zip(&self.counts) {
            match (
                status.load(Ordering::Relaxed),
                count.load(Ordering::Relaxed),
            ) {
                (0, _) | (_, 0) => {}
                (status, count) => hits.statuses.push((status, count)),
            }
        }
        let read = |cells: &[AtomicU64], to: &mut [u64]| {
            let pairs = cells.iter().zip(to);
            pairs.for_each(|(cell, to)| *to = cell.load(Ordering::Relaxed));
        };
        read(&self.classes, &mut hits.classes);
        read(&self.times, &mut hits.times);
        hits.sum_us = self.sum_us.load(Ordering::Relaxed);
        hits.sent = self.sent.load(Ordering::Relaxed);
        hits
    }
}

/// The first digit of a status, from 0 for 1xx to 4 for 5xx.
fn class(status: u16) -> usize {
    usize::from(status / 100).clamp(1, 5) - 1
}

/// What one thread has counted, for those who read it.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    routes: Mutex<HashMap<Origin, Arc<Cells>>>,
    others: Arc<Cells>,
    connections: AtomicU64,
    ended: AtomicU64,
}

impl Counted {
    /// Adds it to a tally.
    pub(crate) fn add_to(&self, tally: &mut Tally) {
        // The thread itself wants this lock only when a route has its first request.
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let routes: Vec<(Origin, Arc<Cells>)> = routes
            .iter()
            .map(|(origin, cells)| (origin.clone(), Arc::clone(cells)))
            .collect();
        for (origin, cells) in routes {
            tally.routes.entry(origin).or_default().add(&cells.read());
        }
        tally.others.add(&self.others.read());
        // In this order, so that no connection has ended that has not begun.
        let ended = self.ended.load(Ordering::Relaxed);
        let connections = self.connections.load(Ordering::Relaxed);
        tally.connections += connections;
        tally.open += connections.saturating_sub(ended);
    }
}

/// The book of one thread.
#[derive(Debug)]
pub(crate) struct Ledger {
    counted: Arc<Counted>,
    /// Keeps the targets in their places.
    table: Arc<Table>,
    by_place: HashMap<usize, Arc<Cells>, BuildHasherDefault<Quick>>,
}

impl Ledger {
    /// Writes into this.
    pub(crate) fn new(counted: Arc<Counted>) -> Ledger {
        Ledger {
            counted,
            table: Arc::default(),
            by_place: HashMap::default(),
        }
    }

    /// A connection was taken; it has ended when what this returns is dropped, by the same thread.
    pub(crate) fn connected(&self) -> Seat {
        add(&self.counted.connections, 1);
        Seat(Arc::clone(&self.counted))
    }

    /// Where requests of a target of this table are counted.
    pub(crate) fn cells(&mut self, table: &Arc<Table>, target: &Arc<Target>) -> Arc<Cells> {
        self.follow(table);
        let place = Arc::as_ptr(target) as usize;
        if let Some(cells) = self.by_place.get(&place) {
            return Arc::clone(cells);
        }
        let cells = self.cells_of(&target.origin);
        self.by_place.insert(place, Arc::clone(&cells));
        cells
    }

    /// Where those are counted that no route is for.
    pub(crate) fn others(&self) -> Arc<Cells> {
        Arc::clone(&self.counted.others)
    }

    fn cells_of(&self, origin: &Origin) -> Arc<Cells> {
        let routes = &self.counted.routes;
        let mut routes = routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cells) = routes.get(origin) {
            return Arc::clone(cells);
        }
        if routes.len() >= ROUTES_MAX {
            return self.others();
        }
        let cells = Arc::<Cells>::default();
        routes.insert(origin.clone(), Arc::clone(&cells));
        cells
    }

    /// Goes on with another table, and lets go of the one before.
    pub(crate) fn follow(&mut self, table: &Arc<Table>) {
        if Arc::ptr_eq(&self.table, table) {
            return;
        }
        self.by_place.clear();
        self.table = Arc::clone(table);
        let routes = &self.counted.routes;
        let mut routes = routes.lock().unwrap_or_else(PoisonError::into_inner);
        if routes.len() < ROUTES_MAX {
            return;
        }
        let rows = table.rows();
        let served: std::collections::HashSet<&Origin> =
            rows.iter().map(|row| &row.target.origin).collect();
        let others = &self.counted.others;
        routes.retain(|origin, cells| {
            let stays = served.contains(origin);
            if !stays {
                others.absorb(&cells.read());
            }
            stays
        });
    }
}

/// A connection, as long as it lasts.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Counted>);

impl Drop for Seat {
    fn drop(&mut self) {
        add(&self.0.ended, 1);
    }
}

/// What has become of the requests of one route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Statuses, and how many answers had them.
    pub statuses: Vec<(u16, u64)>,
    /// How many had other statuses, by their first digit: 1 to 5.
    pub classes: [u64; 5],
    /// How many took how long, by [`BOUNDS_US`], to the end of their body.
    pub times: [u64; BUCKETS],
    /// How long all of them took together, in microseconds.
    pub sum_us: u64,
    /// Bytes of their bodies.
    pub sent: u64,
}

impl Hits {
    /// How many there were.
    pub fn total(&self) -> u64 {
        self.times.iter().sum()
    }

    /// How many there were by the first digit of their status: 1 to 5.
    pub fn by_class(&self) -> [u64; 5] {
        let mut all = self.classes;
        for (status, count) in &self.statuses {
            all[class(*status)] += count;
        }
        all
    }

    /// Adds what somebody else has counted.
    pub fn add(&mut self, other: &Hits) {
        for (status, count) in &other.statuses {
            match self.statuses.iter_mut().find(|(known, _)| known == status) {
                Some((_, own)) => *own += count,
                None => self.statuses.push((*status, *count)),
            }
        }
        let pairs = self.classes.iter_mut().zip(other.classes);
        pairs.for_each(|(own, more)| *own += more);
        let pairs = self.times.iter_mut().zip(other.times);
        pairs.for_each(|(own, more)| *own += more);
        self.sum_us = self.sum_us.wrapping_add(other.sum_us);
        self.sent = self.sent.wrapping_add(other.sent);
    }
}

/// What has become of all requests since the beginning.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By where the route is written.
    pub routes: HashMap<Origin, Hits>,
    /// Those that no route is for.
    pub others: Hits,
    /// Connections that were taken.
    pub connections: u64,
    /// Those of them that have not ended.
    pub open: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::ObjectName;

    fn target(index: usize) -> Arc<Target> {
        Arc::new(Target {
            origin: Origin {
                kind: "Ingress",
                object: ObjectName::new("shop", "web"),
                field: index.to_string(),
            },
            policy: Arc::default(),
            backends: Vec::new(),
            traffic: Arc::default(),
        })
    }

    fn tally(counted: &Counted) -> Tally {
        let mut tally = Tally::default();
        counted.add_to(&mut tally);
        tally
    }

    #[test]
    fn answers_are_counted_by_route_status_and_time() {
        let counted = Arc::<Counted>::default();
        let mut ledger = Ledger::new(Arc::clone(&counted));
        let (table, target) = (Arc::default(), target(1));
        let cells = ledger.cells(&table, &target);
        cells.count(StatusCode::OK, Duration::from_micros(500), 7);
        cells.count(StatusCode::BAD_GATEWAY, Duration::from_secs(60), 0);
        // Another table, with the same route at another place.
        let again = ledger.cells(&Arc::default(), &Arc::new((*target).clone()));
        again.count(StatusCode::OK, Duration::from_micros(501), 1);
        ledger
            .others()
            .count(StatusCode::NOT_FOUND, Duration::ZERO, 0);
        let seat = ledger.connected();
        drop(ledger.connected());
        let mut sum = tally(&counted);
        counted.add_to(&mut sum);
        let hits = &sum.routes[&target.origin];
        assert_eq!(hits.statuses, [(200, 4), (502, 2)]);
        assert_eq!((hits.by_class(), hits.total()), ([0, 4, 0, 0, 2], 6));
        assert_eq!(
            (hits.times[0], hits.times[1], hits.times[BUCKETS - 1]),
            (2, 2, 2)
        );
        assert_eq!((hits.sum_us, hits.sent), (2 * 60_001_001, 16));
        assert_eq!(sum.others.statuses, [(404, 2)]);
        assert_eq!((sum.connections, sum.open), (4, 2));
        drop(seat);
        assert_eq!(tally(&counted).open, 0);
    }

    #[test]
    fn so_many_statuses_are_counted_by_themselves() {
        let cells = Cells::default();
        for status in 500..=500 + STATUSES_MAX as u16 {
            let status = StatusCode::from_u16(status).unwrap();
            cells.count(status, Duration::ZERO, 0);
        }
        let hits = cells.read();
        assert_eq!(hits.statuses.len(), STATUSES_MAX);
        assert_eq!((hits.classes, hits.total()), ([0, 0, 0, 0, 1], 13));
    }

    #[test]
    fn so_many_routes_are_counted_by_themselves_and_those_that_are_served_come_first() {
        let counted = Arc::<Counted>::default();
        let mut ledger = Ledger::new(Arc::clone(&counted));
        let table = Arc::default();
        let targets: Vec<Arc<Target>> = (0..=ROUTES_MAX).map(target).collect();
        for target in &targets {
            let cells = ledger.cells(&table, target);
            cells.count(StatusCode::OK, Duration::ZERO, 1);
        }
        let full = tally(&counted);
        assert_eq!((full.routes.len(), full.others.total()), (ROUTES_MAX, 1));
        // Nothing of the next table was there before.
        let last = &targets[ROUTES_MAX];
        let cells = ledger.cells(&Arc::default(), last);
        cells.count(StatusCode::OK, Duration::ZERO, 1);
        let after = tally(&counted);
        assert_eq!(after.routes[&last.origin].total(), 1);
        assert_eq!(after.others.total(), ROUTES_MAX as u64 + 1);
        assert_eq!(after.others.sent, ROUTES_MAX as u64 + 1);
    }
}
