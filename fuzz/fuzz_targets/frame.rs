//! A frame of any bytes, and everything that a data plane could be told to do to it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dpr_fuzz_rules::frame(bytes));
