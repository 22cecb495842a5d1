//! What the table makes of a client's packets.

use crate::fixtures::{A, B, ISN, ack, at, at_s, establish, fin, flow, ipv4_ends, known, rst, syn, table};
use dpr_conntrack::{EntryView, Observation, Segment, TcpState};
use dpr_model::{FlowKey, Protocol};

const FLOW: u32 = 1;

#[test]
fn a_flow_is_unknown_until_it_is_inserted() {
    let mut table = table();

    assert_eq!(table.observe(&flow(FLOW), syn(ISN), at(0)), Observation::Unknown);
    assert_eq!(table.get(&flow(FLOW)), None);
}

#[test]
fn a_conversation_goes_to_one_real_server_from_syn_to_fin() {
    let mut table = table();
    table.insert(&flow(FLOW), syn(ISN), A, at(0)).unwrap();

    let handshake = table.observe(&flow(FLOW), ack(ISN + 1), at(10));
    let data = table.observe(&flow(FLOW), ack(ISN + 1), at(20));
    let end = table.observe(&flow(FLOW), fin(ISN + 500), at(30));
    let last = table.observe(&flow(FLOW), ack(ISN + 501), at(40));

    let completed = Observation::Known {
        real_server: A,
        state: TcpState::Established,
        retransmitted_syn: false,
        handshake_completed: true,
    };
    assert_eq!(handshake, completed);
    assert_eq!(data, known(A, TcpState::Established));
    assert_eq!(end, known(A, TcpState::Fin));
    assert_eq!(last, known(A, TcpState::Fin));
}

#[test]
fn a_handshake_that_ends_with_a_fin_is_completed_all_the_same() {
    let mut table = table();
    table.insert(&flow(FLOW), syn(ISN), A, at(0)).unwrap();

    let seen = table.observe(&flow(FLOW), fin(ISN + 1), at(10));

    assert!(matches!(seen, Observation::Known { state: TcpState::Fin, handshake_completed: true, .. }));
}

#[test]
fn a_retransmitted_syn_gets_the_same_answer() {
    let mut table = table();
    table.insert(&flow(FLOW), syn(ISN), A, at(0)).unwrap();

    let seen = table.observe(&flow(FLOW), syn(ISN), at(1000));

    let again = Observation::Known {
        real_server: A,
        state: TcpState::HalfOpen,
        retransmitted_syn: true,
        handshake_completed: false,
    };
    assert_eq!(seen, again);
    assert_eq!(table.sent_to(A), 1);
}

#[test]
fn another_syn_on_a_half_open_or_closing_connection_is_a_new_connection_at_once() {
    let endings: [&[Segment]; 4] = [
        &[],
        &[ack(ISN + 1), fin(ISN + 1)],
        &[ack(ISN + 1), rst(ISN + 1)],
        &[ack(ISN + 1), fin(ISN + 1), rst(ISN + 2)],
    ];
    for ending in endings {
        let mut table = table();
        table.insert(&flow(FLOW), syn(ISN), A, at(0)).unwrap();
        for &segment in ending {
            table.observe(&flow(FLOW), segment, at(1));
        }

        assert_eq!(table.observe(&flow(FLOW), syn(77), at(2)), Observation::Unknown, "{ending:?}");
        assert_eq!(table.status().entries, 0);
        table.insert(&flow(FLOW), syn(77), B, at(2)).unwrap();
        assert_eq!((table.open_at(A), table.open_at(B)), (0, 1));
    }
}

#[test]
fn a_restarted_client_gets_a_new_connection_after_its_reset() {
    let mut table = table();
    establish(&mut table, FLOW, A, at(0));

    // The real server answers the SYN with a challenge ACK, and the client that with a reset.
    let first_syn = table.observe(&flow(FLOW), syn(77), at(1000));
    let reset = table.observe(&flow(FLOW), rst(ISN + 1), at(1001));
    let second_syn = table.observe(&flow(FLOW), syn(77), at(2000));

    assert_eq!(first_syn, known(A, TcpState::Established));
    assert_eq!(reset, known(A, TcpState::Reset));
    assert_eq!(second_syn, Observation::Unknown);
}

#[test]
fn a_forged_reset_does_not_end_a_connection_whose_client_goes_on() {
    let mut table = table();
    establish(&mut table, FLOW, A, at(0));
    table.observe(&flow(FLOW), rst(12345), at(1000));

    let seen = table.observe(&flow(FLOW), ack(ISN + 1), at(2000));

    assert_eq!(seen, known(A, TcpState::Established));
    assert!(matches!(table.observe(&flow(FLOW), ack(ISN + 1), at_s(600)), Observation::Known { .. }));
}

#[test]
fn only_an_established_connection_is_carried_on_in_short() {
    let mut table = table();
    let (client, service) = ipv4_ends(&flow(2 * FLOW)).unwrap();
    table.insert(&flow(2 * FLOW), syn(ISN), A, at(0)).unwrap();
    assert_eq!(table.carry_on(client, service, at(1)), None);
    assert_eq!(table.status().half_open, 1);

    table.observe(&flow(2 * FLOW), ack(ISN + 1), at(2));
    assert_eq!(table.carry_on(client, service, at_s(600)), Some(A));
    // It was put off once more.
    assert_eq!(table.carry_on(client, service, at_s(1400)), Some(A));

    table.observe(&flow(2 * FLOW), fin(ISN + 1), at_s(1401));
    assert_eq!(table.carry_on(client, service, at_s(1402)), None);
    assert_eq!(table.carry_on(service, client, at_s(1402)), None);
}

#[test]
fn a_reset_on_a_half_open_connection_leaves_it_among_the_half_open_ones() {
    let mut table = table();
    table.insert(&flow(FLOW), syn(ISN), A, at(0)).unwrap();

    assert_eq!(table.observe(&flow(FLOW), rst(ISN + 1), at(1)), known(A, TcpState::HalfOpen));
    assert_eq!(table.status().half_open, 1);
}

#[test]
fn a_late_report_of_a_closing_does_not_touch_the_next_connection() {
    let mut table = table();
    establish(&mut table, FLOW, A, at(0));
    table.remove(&flow(FLOW));
    table.insert(&flow(FLOW), syn(77), B, at(10)).unwrap();

    assert!(!table.close(&flow(FLOW), ISN, at(20)));
    assert_eq!(table.get(&flow(FLOW)).unwrap().state, TcpState::HalfOpen);
    assert!(table.close(&flow(FLOW), 77, at(30)));
    assert_eq!(table.get(&flow(FLOW)).unwrap().state, TcpState::Closed);
    assert_eq!(table.status().half_open, 0);
}

#[test]
fn a_connection_reported_closed_stays_closed_but_its_last_packets_still_arrive() {
    let mut table = table();
    establish(&mut table, FLOW, A, at(0));
    table.close(&flow(FLOW), ISN, at(100));

    assert_eq!(table.observe(&flow(FLOW), ack(ISN + 9), at(200)), known(A, TcpState::Closed));
    assert_eq!(table.observe(&flow(FLOW), fin(ISN + 9), at(300)), known(A, TcpState::Closed));
}

#[test]
fn a_connection_taken_over_after_its_handshake_has_the_generation_of_its_syn() {
    let mut table = table();

    table.insert(&flow(FLOW), ack(ISN + 1), A, at(0)).unwrap();

    let entry = EntryView { real_server: A, state: TcpState::Established, generation: ISN };
    assert_eq!(table.get(&flow(FLOW)), Some(entry));
}

#[test]
fn inserting_a_flow_again_replaces_its_entry() {
    let mut table = table();
    establish(&mut table, FLOW, A, at(0));

    table.insert(&flow(FLOW), syn(77), B, at(10)).unwrap();

    let entry = EntryView { real_server: B, state: TcpState::HalfOpen, generation: 77 };
    assert_eq!(table.get(&flow(FLOW)), Some(entry));
    assert_eq!((table.status().entries, table.open_at(A), table.sent_to(A)), (1, 0, 1));
}

#[test]
fn flows_that_differ_in_one_field_are_different_connections() {
    let base = flow(0);
    let mut others = [base; 5];
    others[0].client.port += 1;
    others[1].service.port += 1;
    others[2].client.address = flow(2).client.address;
    others[3].service.address = [192, 0, 2, 2].into();
    others[4].protocol = Protocol::Udp;
    let mut table = table();
    table.insert(&base, syn(ISN), A, at(0)).unwrap();

    assert!(others.iter().all(|other: &FlowKey| table.get(other).is_none()));
    assert!(!table.remove(&others[0]));
    assert!(table.remove(&base));
    assert!(!table.remove(&base));
}

#[test]
fn listing_shows_every_live_connection_as_status_does() {
    let mut table = table();
    establish(&mut table, 1, A, at_s(10));
    table.insert(&flow(2), syn(77), B, at_s(20)).unwrap();
    table.insert(&flow(3), syn(78), B, at_s(20)).unwrap();
    table.remove(&flow(3));

    let mut listed: Vec<_> = table.iter(at(30_500)).collect();
    listed.sort_by_key(|connection| connection.flow);

    assert_eq!(listed.len(), 2);
    assert_eq!((listed[0].flow, listed[0].state.as_str(), listed[0].generation), (flow(2), "half-open", 77));
    assert_eq!((listed[0].real_server, listed[0].expires_in_s), (B, 50));
    assert_eq!(
        (listed[1].flow, listed[1].state.as_str(), listed[1].expires_in_s),
        (flow(1), "established", 880)
    );
    assert_eq!(table.iter(at_s(80)).count(), 1);
    assert_eq!(table.iter(at_s(10 + 900)).count(), 0);
}
