//! What kube-controller-manager and kube-scheduler do for Services, and what the API server allocates for them.
//!
//! Decisions are pure functions over objects; one small runner per controller does the I/O.

pub mod allocate;
