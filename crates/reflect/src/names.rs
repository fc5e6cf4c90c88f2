//! Names that many objects have in common (namespaces, ports, zones), each kept once.

use std::collections::HashSet;
use std::sync::Arc;

/// So many names are kept before those that nobody uses any more are looked for: a cluster has fewer namespaces.
const SWEEP_AT: usize = 1024;

/// All names in use. What nobody uses any more is forgotten when their number has doubled since the last look,
/// so there are at most twice as many as are needed, or [`SWEEP_AT`].
#[derive(Debug)]
pub(crate) struct Names {
    known: HashSet<Arc<str>>,
    sweep_at: usize,
}

impl Default for Names {
    fn default() -> Self {
        Names {
            known: HashSet::new(),
            sweep_at: SWEEP_AT,
        }
    }
}

impl Names {
    /// The one copy of this name.
    pub(crate) fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = SWEEP_AT.max(self.known.len() * 2);
        }
        let name: Arc<str> = text.into();
        self.known.insert(Arc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_for_as_long_as_somebody_uses_it() {
        let mut names = Names::default();
        let http = names.share("http");
        assert!(Arc::ptr_eq(&http, &names.share("http")));
        for number in 0..10 * SWEEP_AT {
            names.share(&format!("gone-{number}"));
            assert!(names.known.len() <= SWEEP_AT);
        }
        assert!(Arc::ptr_eq(&http, &names.share("http")));
        let used: Vec<_> = (0..3 * SWEEP_AT)
            .map(|n| names.share(&format!("used-{n}")))
            .collect();
        assert!(names.known.len() > used.len());
    }
}
