//! Names under test: objects from fixtures, messages as text, and a slow zone that is obviously right.
//!
//! [`message`] reads answers with code of its own; [`objects`] turns the JSON of a cluster into changes; [`reference`] is
//! the zone as text, and [`random`] holds ours against it.

pub mod message;
pub mod objects;
pub mod random;
pub mod reference;
