//! How long connections are remembered, and how their room is given back.

use crate::fixtures::{A, ISN, ack, at, at_s, config, establish, fin, flow, known, rst, syn, table};
use dpr_conntrack::{Config, Observation, Segment, Silence, Table, TcpState, Timeouts};
use dpr_model::{FlowKey, Protocol};
use std::time::Duration;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A table with one connection that has seen `segments` at second 100 and nothing later.
fn silent_after(segments: &[Segment]) -> Table {
    let mut table = table();
    table.insert(&flow(1), syn(ISN), A, at_s(100)).expect("the table has room");
    for &segment in segments {
        table.observe(&flow(1), segment, at_s(100));
    }
    table
}

#[test]
fn a_silent_connection_is_remembered_as_long_as_ipvs_would() {
    let endings: [(&[Segment], u64); 4] = [
        (&[], 60),
        (&[ack(ISN + 1)], 15 * 60),
        (&[ack(ISN + 1), fin(ISN + 1)], 2 * 60),
        (&[ack(ISN + 1), rst(ISN + 1)], 10),
    ];
    for (segments, timeout_s) in endings {
        let mut table = silent_after(segments);
        let deadline_ms = (100 + timeout_s) * 1000;

        assert_eq!(table.expire(at(deadline_ms - 1), usize::MAX), 0, "{segments:?}");
        assert!(table.get(&flow(1)).is_some(), "{segments:?}");
        assert_eq!(table.expire(at(deadline_ms + 1000), usize::MAX), 1, "{segments:?}");
        assert_eq!(table.status().entries, 0);
    }
}

#[test]
fn a_connection_is_unknown_with_its_deadline_though_nobody_swept() {
    let mut table = silent_after(&[ack(ISN + 1)]);

    assert_eq!(table.observe(&flow(1), ack(ISN + 1), at_s(1000)), Observation::Unknown);
    assert_eq!(table.status().entries, 0);
}

#[test]
fn packets_keep_an_established_connection() {
    let mut table = silent_after(&[ack(ISN + 1)]);

    for minute in (0..24 * 60).step_by(14) {
        let now = at_s(100 + minute * 60);
        table.expire(now, usize::MAX);
        assert_eq!(table.observe(&flow(1), ack(ISN + 1), now), known(A, TcpState::Established));
    }
}

#[test]
fn acknowledgements_keep_a_connection_whose_client_has_closed_its_half() {
    let mut table = silent_after(&[ack(ISN + 1), fin(ISN + 1)]);

    for minute in 0..60 {
        let now = at_s(101 + minute * 60);
        table.expire(now, usize::MAX);
        assert_eq!(table.observe(&flow(1), ack(ISN + 2), now), known(A, TcpState::Fin));
    }
}

#[test]
fn a_retransmitted_syn_prolongs_a_handshake_and_makes_it_the_youngest() {
    let mut table = Table::new(Config { half_open_capacity: 2, ..config() });
    table.insert(&flow(1), syn(ISN), A, at_s(0)).unwrap();
    table.insert(&flow(2), syn(ISN), A, at_s(1)).unwrap();
    table.observe(&flow(1), syn(ISN), at_s(31));

    table.insert(&flow(3), syn(ISN), A, at_s(32)).unwrap();

    assert!(table.get(&flow(2)).is_none());
    assert!(matches!(table.observe(&flow(1), ack(ISN + 1), at_s(90)), Observation::Known { .. }));
}

#[test]
fn a_foreign_syn_does_not_prolong_an_established_connection() {
    let mut table = silent_after(&[ack(ISN + 1)]);
    table.observe(&flow(1), syn(77), at_s(900));

    assert_eq!(table.observe(&flow(1), ack(ISN + 1), at_s(1001)), Observation::Unknown);
}

#[test]
fn a_sweep_looks_at_no_more_entries_than_its_budget() {
    let mut table = table();
    for number in 0..20 {
        establish(&mut table, number, A, at_s(0));
    }
    for number in 20..40 {
        table.insert(&flow(number), syn(ISN), A, at_s(0)).unwrap();
    }

    let sweeps: Vec<usize> = (0..6).map(|_| table.expire(at_s(2000), 8)).collect();

    assert_eq!(sweeps, [8, 8, 8, 8, 8, 0]);
}

#[test]
fn the_next_expiry_is_never_later_than_a_deadline() {
    let mut table = table();
    assert_eq!(table.next_expiry(), None);

    establish(&mut table, 1, A, at(100_500));
    assert_eq!(table.next_expiry(), Some(at_s(1001)));
    table.insert(&flow(2), syn(ISN), A, at(100_700)).unwrap();
    assert_eq!(table.next_expiry(), Some(at(160_700)));

    assert_eq!(table.expire(at(160_699), usize::MAX), 0);
    assert_eq!(table.expire(at(160_700), usize::MAX), 1);
    assert_eq!(table.expire(at_s(1001), usize::MAX), 1);
    assert_eq!(table.next_expiry(), None);
}

#[test]
fn a_timeout_beyond_the_wheel_is_kept_to_the_second() {
    let timeouts = Timeouts { established: Duration::from_secs(5 * 24 * 60 * 60), ..Timeouts::default() };
    let mut table = Table::new(Config { timeouts, ..config() });
    establish(&mut table, 1, A, at(0));

    let alive_until = (1..6 * 24 * 60).find(|minute| table.expire(at_s(minute * 60), usize::MAX) == 1);

    assert_eq!(alive_until, Some(5 * 24 * 60 + 1));
}

#[test]
fn deadlines_hold_over_the_wrap_of_their_clock() {
    let start_ms = u64::from(u32::MAX) - 30_000;
    let mut table = table();
    establish(&mut table, 1, A, at(start_ms));
    table.insert(&flow(2), syn(ISN), A, at(start_ms)).unwrap();

    assert_eq!(table.expire(at(start_ms + 59_999), usize::MAX), 0);
    assert_eq!(table.expire(at(start_ms + 60_000), usize::MAX), 1);
    assert_eq!(
        table.observe(&flow(1), ack(ISN + 1), at(start_ms + 899_999)),
        known(A, TcpState::Established)
    );
}

#[test]
fn a_sleep_of_any_length_forgets_every_connection() {
    for days in [1, 7, 30, 49, 50, 400] {
        let mut table = table();
        establish(&mut table, 1, A, at_s(5));
        table.insert(&flow(2), syn(ISN), A, at_s(5)).unwrap();

        let woken = at(days * DAY_MS + 10_000);

        assert_eq!(table.observe(&flow(1), ack(ISN + 1), woken), Observation::Unknown, "{days} days");
        assert_eq!(table.observe(&flow(2), ack(ISN + 1), woken), Observation::Unknown, "{days} days");
        assert_eq!(table.status().entries, 0);
    }
}

#[test]
fn time_that_runs_backwards_counts_as_standing_still() {
    let mut table = silent_after(&[ack(ISN + 1)]);
    table.expire(at_s(999), usize::MAX);

    table.observe(&flow(1), ack(ISN + 1), at_s(50));

    assert!(matches!(table.observe(&flow(1), ack(ISN + 1), at_s(1898)), Observation::Known { .. }));
}

#[test]
fn a_udp_flow_is_remembered_for_five_minutes_after_its_last_datagram() {
    let mut table = table();
    let flow = FlowKey { protocol: Protocol::Udp, ..flow(1) };
    table.insert(&flow, Segment::DATAGRAM, A, at(0)).unwrap();
    assert!(matches!(table.observe(&flow, Segment::DATAGRAM, at(200_000)), Observation::Known { .. }));
    assert!(matches!(table.observe(&flow, Segment::DATAGRAM, at(499_999)), Observation::Known { .. }));
    assert_eq!(table.observe(&flow, Segment::DATAGRAM, at(800_000)), Observation::Unknown);
    assert_eq!(table.active_at(A), 0);
}

#[test]
fn what_its_real_server_still_has_is_remembered_as_if_its_client_had_spoken() {
    let mut table = silent_after(&[ack(ISN + 1)]);

    assert!(table.renew(&flow(1), ISN, at_s(900)));
    assert!(!table.renew(&flow(1), ISN + 7, at_s(1700)), "another generation");

    assert_eq!(table.expire(at_s(1799), usize::MAX), 0);
    assert_eq!(table.expire(at_s(1802), usize::MAX), 1);
    assert!(!table.renew(&flow(1), ISN, at_s(1802)));
}

#[test]
fn a_handshake_is_not_renewed() {
    let mut table = silent_after(&[]);

    assert!(!table.renew(&flow(1), ISN, at_s(150)));

    assert_eq!(table.expire(at_s(160), usize::MAX), 1);
}

#[test]
fn silence_lasts_from_the_last_packet_that_counts_to_the_deadline() {
    let mut table = silent_after(&[ack(ISN + 1), fin(ISN + 1)]);
    table.expire(at_s(130), usize::MAX);

    let silences: Vec<_> = table.page_with_silence(0, usize::MAX).entries.collect();

    let [(found, entry, silence)] = silences[..] else { panic!("{silences:?}") };
    assert_eq!((found, entry.state), (flow(1), TcpState::Fin));
    assert_eq!(silence, Silence { lasts: Duration::from_secs(30), left: Duration::from_secs(90) });
}
