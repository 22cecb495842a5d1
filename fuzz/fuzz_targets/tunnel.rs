//! Tunnels in tunnels, and what is taken for one.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dpr_fuzz_rules::tunnel(bytes));
