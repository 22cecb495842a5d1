//! The pipeline against its naive model.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dpr_fuzz_rules::pipeline(bytes));
