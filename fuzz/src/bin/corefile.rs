//! libFuzzer's entry: see `portolan_fuzz::names::corefile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portolan_fuzz::names::corefile(bytes));
