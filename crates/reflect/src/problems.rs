//! What is wrong with the Services as they are written: a value that is cheap to copy and to compare.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use portolan_model::{Problem, ServiceName};

/// The Problems of each Service that has any. A clone costs O(1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problems(OrdMap<ServiceName, Arc<[Problem]>>);

impl Problems {
    /// All of them, in the order of their Services.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.values().flat_map(|problems| problems.iter())
    }

    /// Those of Services with which something else is wrong than in `before`. Costs what differs, not what there is.
    pub fn since(&self, before: &Problems) -> Vec<Problem> {
        let new = before.0.diff(&self.0).filter_map(|item| match item {
            DiffItem::Add(_, problems) => Some(problems),
            DiffItem::Update { new, .. } => Some(new.1),
            DiffItem::Remove(..) => None,
        });
        new.flat_map(|problems| problems.iter().cloned()).collect()
    }

    /// This is wrong with `service` now, and nothing else.
    pub(crate) fn set(&mut self, service: &ServiceName, problems: Vec<Problem>) {
        let before = self.0.get(service);
        if before.map(AsRef::as_ref).unwrap_or_default() == &problems[..] {
            return;
        }
        match problems.is_empty() {
            true => self.0.remove(service),
            false => self.0.insert(service.clone(), problems.into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told() {
        let problem = |name: &str, message: &str| Problem {
            service: ServiceName::new("shop", name),
            reason: "Test",
            message: message.into(),
        };
        let mut problems = Problems::default();
        for name in ["a", "b", "c"] {
            problems.set(&ServiceName::new("shop", name), vec![problem(name, "bad")]);
        }
        let before = problems.clone();
        problems.set(&ServiceName::new("shop", "a"), vec![problem("a", "bad")]);
        assert!(problems.since(&before).is_empty());
        problems.set(&ServiceName::new("shop", "b"), vec![problem("b", "worse")]);
        problems.set(&ServiceName::new("shop", "c"), vec![]);
        assert_eq!(problems.since(&before), [problem("b", "worse")]);
        assert_eq!(problems.iter().count(), 2);
    }
}
