//! A DNS query of any bytes, by UDP and by TCP.

#![no_main]

#[path = "../../rrdns/tests/wire/rules.rs"]
mod rules;

use dpr_model::Timestamp;
use dpr_rrdns::{Now, Transport};
use libfuzzer_sys::fuzz_target;
use rules::{Subject, check};

fuzz_target!(|bytes: &[u8]| {
    let now = Now { monotonic: Timestamp::from_millis(1000), unix_s: 1_700_000_000 };
    for transport in [Transport::Udp, Transport::Tcp] {
        check(&mut Subject::new(), bytes, transport, now);
    }
});
