//! Gives Services their addresses and ports, inside the write that stores them.

use std::sync::{Mutex, PoisonError};

use portolan_apiserver::kind::{Admission, Denied, FieldError, Kind, Operation, Review};
use portolan_controllers::allocate::{AllocationError, Allocator, Ranges};
use serde_json::Value;

/// The allocator behind the API server's admission hook.
pub struct ServiceAllocation(Mutex<Allocator>);

impl ServiceAllocation {
    /// Nothing is allocated yet; the store tells of the Services that exist when it opens.
    pub fn new(ranges: &Ranges, seed: u64) -> ServiceAllocation {
        ServiceAllocation(Mutex::new(Allocator::new(ranges, seed)))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Allocator) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Admission for ServiceAllocation {
    fn admit(&self, review: &mut Review<'_>) -> Result<(), Denied> {
        if !is_service(review.kind)
            || review.subresource.is_some()
            || review.operation == Operation::Delete
        {
            return Ok(());
        }
        self.with(|allocator| allocator.allocate(review.old, review.object))
            .map_err(|error| match error {
                AllocationError::Invalid {
                    field,
                    value,
                    detail,
                } => Denied::Invalid(vec![FieldError::invalid(field, value, detail)]),
                AllocationError::Internal(why) => Denied::Internal(why),
            })
    }

    fn stored(&self, kind: &Kind, old: Option<&Value>, new: Option<&Value>) {
        if is_service(kind) {
            self.with(|allocator| allocator.stored(old, new));
        }
    }
}

fn is_service(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.kind == "Service"
}
