//! Every scenario file on the real kernel, with nftables.
