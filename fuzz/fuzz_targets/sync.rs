//! Messages about copies of connections.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dpr_fuzz_rules::sync(bytes));
