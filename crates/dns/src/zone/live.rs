//! The Zone that is answered from now: readers take it without a lock, its owner puts the next one in its place.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::{Index, Zone};

/// The present Zone.
pub struct Live(ArcSwap<Zone>);

impl Live {
    /// Begins with what `index` has.
    pub fn new(index: &Index) -> Self {
        Live(ArcSwap::from_pointee(index.zone().clone()))
    }

    /// The Zone as it is now. Take it for one query, or for a few at a time, and never across a wait.
    pub fn load(&self) -> Guard<Arc<Zone>> {
        self.0.load()
    }

    /// From now on answers are made of what `index` has.
    pub fn publish(&self, index: &Index) {
        self.0.store(Arc::new(index.zone().clone()));
    }
}
