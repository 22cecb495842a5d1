//! Any bytes: nothing panics, whatever is answered is well-formed for another implementation and obeys the rules that
//! hold for all replies. Random queries, damaged queries, and the corpus that fuzzing has collected.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rules;

use dpr_model::Timestamp;
use dpr_rrdns::{Now, Transport};
use proptest::prelude::*;
use rules::{Subject, check};
use std::path::Path;

/// A query of any name, type, class, flags and options, as somebody may well send it.
fn queries() -> impl Strategy<Value = Vec<u8>> {
    let names = prop_oneof![
        Just("www.example.org"),
        Just("WwW.example.ORG"),
        Just("home.example.org"),
        Just("example.org"),
        Just("no.such.example.org"),
        Just("x.wild.example.org"),
        Just("example.net"),
        Just(""),
    ];
    let types = prop_oneof![
        Just(1u16),
        Just(28),
        Just(2),
        Just(6),
        Just(5),
        Just(15),
        Just(255),
        Just(252),
        any::<u16>()
    ];
    let class = prop_oneof![9 => Just(1u16), 1 => any::<u16>()];
    let flags = prop_oneof![Just(0u16), Just(0x0100), any::<u16>()];
    let options = prop::collection::vec((0u16..16, prop::collection::vec(any::<u8>(), 0..48)), 0..4);
    let edns = prop::option::of((any::<u16>(), 0u8..3, any::<u16>(), options));
    (any::<u16>(), flags, names, types, class, edns).prop_map(|(id, flags, name, rtype, class, edns)| {
        let mut bytes = Vec::new();
        for field in [id, flags, 1, 0, 0, u16::from(edns.is_some())] {
            bytes.extend(field.to_be_bytes());
        }
        for label in name.split('.').filter(|label| !label.is_empty()) {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(rtype.to_be_bytes());
        bytes.extend(class.to_be_bytes());
        if let Some((payload, version, flags, options)) = edns {
            bytes.extend([0, 0, 41]);
            bytes.extend(payload.to_be_bytes());
            bytes.extend([0, version]);
            bytes.extend(flags.to_be_bytes());
            let mut data = Vec::new();
            for (code, option) in options {
                data.extend(code.to_be_bytes());
                data.extend(u16::try_from(option.len()).unwrap().to_be_bytes());
                data.extend(option);
            }
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
        }
        bytes
    })
}

fn transports() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Udp), Just(Transport::Tcp)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn every_reply_to_a_query_is_well_formed_and_obeys_the_rules(
        query in queries(),
        transport in transports(),
    ) {
        check(&mut Subject::new(), &query, transport, Now::default());
    }

    #[test]
    fn damaged_queries_do_no_harm(
        mut query in queries(),
        transport in transports(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in any::<prop::sample::Index>(),
    ) {
        for (at, byte) in damage {
            let at = at.index(query.len());
            query[at] = byte;
        }
        query.truncate(length.index(query.len()) + 1);
        check(&mut Subject::new(), &query, transport, Now::default());
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), transport in transports()) {
        check(&mut Subject::new(), &bytes, transport, Now::default());
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test is the shell that reads the corpus")]
fn the_corpus_does_no_harm() {
    let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/dns_query"));
    let mut subject = Subject::new();
    let mut replayed = 0;
    for entry in corpus.read_dir().unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for transport in [Transport::Udp, Transport::Tcp] {
            let now = Now { monotonic: Timestamp::from_millis(replayed * 100), unix_s: 1_700_000_000 };
            check(&mut subject, &bytes, transport, now);
        }
        replayed += 1;
    }
    assert!(replayed >= 20, "only {replayed} inputs in {}", corpus.display());
}
