//! The pipeline against its naive model, at random.
//!
//! `DPR_OPERATIONS` says how many random operations are tried; CI asks for a million.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use dpr_vectors::reference::{Carrying, METHODS, Operation, Run};
use proptest::prelude::*;

const OPERATIONS_PER_CASE: usize = 500;

fn carrying() -> impl Strategy<Value = Carrying> {
    prop_oneof![
        4 => (0..3u32).prop_map(Carrying::Syn),
        1 => Just(Carrying::SynAck),
        6 => Just(Carrying::Ack),
        2 => Just(Carrying::Fin),
        2 => Just(Carrying::Rst),
        4 => Just(Carrying::Datagram),
        2 => Just(Carrying::Error),
        1 => (0..3u8).prop_map(Carrying::FirstFragment),
        1 => (0..3u8).prop_map(Carrying::LaterFragment),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => (0..6u8, carrying()).prop_map(|(client, carrying)| Operation::Direct { client, carrying }),
        3 => (1..3usize, 0..2u8, 0..6u8, carrying())
            .prop_map(|(from, hops, client, carrying)| Operation::Tunnelled { from, hops, client, carrying }),
        1 => (1..3usize, 0..6u8, carrying())
            .prop_map(|(home, client, carrying)| Operation::Astray { home, client, carrying }),
        2 => (0..3usize, 0..1000u16).prop_map(|(node, load)| Operation::Load { node, load }),
        1 => (1..3usize, any::<bool>()).prop_map(|(node, alive)| Operation::Alive { node, alive }),
        1 => any::<bool>().prop_map(Operation::Freeze),
        2 => (0..400u16).prop_map(|seconds| Operation::Wait { seconds }),
    ]
}

fn cases() -> u32 {
    let operations = std::env::var("DPR_OPERATIONS").map_or(200_000, |value| value.parse().unwrap());
    u32::try_from(operations / OPERATIONS_PER_CASE).unwrap().max(1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn the_pipeline_does_what_the_naive_model_says(
        method in prop::sample::select(&METHODS[..]),
        ipv6 in any::<bool>(),
        persistent in any::<bool>(),
        operations in prop::collection::vec(operation(), OPERATIONS_PER_CASE),
    ) {
        let mut run = Run::begin(method, ipv6, persistent);
        for (position, operation) in operations.iter().enumerate() {
            if let Err(error) = run.perform(operation) {
                return Err(TestCaseError::fail(format!("operation {position}, {operation:?}: {error}")));
            }
        }
    }
}
