//! What the programs at devices do for traffic from outside: NodePorts, external IPs, LoadBalancer addresses.
//!
//! ```text
//!   client ──▶ device ──▶ program ──▶ @served  (address . port . protocol → identity, list, masquerade?)
//!                            │        @slots   (identity . list . slot → address . port)
//!                            │ found: the flow gets an endpoint and two entries in a table of flows
//!                            └ not found: the packet goes its way, to the rules of nftables mode
//! ```
//!
//! Programs at devices know the client's address and port, so they also choose by a hash of them. What depends on the
//! past (affinity, turns), on ranges of sources, or has no endpoint, is left to the rules. docs/decisions/0012 says why;
//! the programs are `ebpf/tc.c`, and `ebpf/outside.h` does on bytes what [`serves`] does on values.

mod adopt;
mod bytes;
mod compile;
mod diff;
mod state;
mod trace;

pub use adopt::{Readback, adopt};
pub use bytes::{
    PAIR_LEN, RANGE_LEN, SERVED_LEN, TRANSLATION_LEN, TUPLE_LEN, range_of, read_pair, read_range,
    read_served, read_translation, read_tuple, served_of, tuple_of,
};
pub(super) use compile::{compile, update};
pub use diff::Op;
pub(super) use diff::diff;
pub use state::{By, Outside, Served, Translation, Tuple};
pub use trace::serves;
pub(super) use trace::{shares, trace};
