//! Ownership maps, and messages about them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dpr_fuzz_rules::ownership(bytes));
