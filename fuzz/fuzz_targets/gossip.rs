//! Datagrams of load gossip: of strangers, and of somebody who has the key.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dpr_fuzz_rules::gossip(bytes));
