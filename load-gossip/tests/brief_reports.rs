//! When a node speaks briefly, and what its peers make of it.

mod bench;

use bench::{Bench, LIFE, ME, PEER, datagram, peer, report, socket};
use dpr_load_gossip::message::{self, EncodedReport, Header, Via};
use dpr_load_gossip::{Action, DatagramError, Keyring};
use dpr_model::{
    Incarnation, LoadPermille, LoadReport, NodeId, NodeState, Protocol, ReceivedFrom, ServiceReport,
    ServiceSocket, Weight,
};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(100);
/// Offset of the lower byte of a datagram's flags.
const FLAGS_AT: usize = 7;
const READS_BRIEF: u8 = 2;

/// The node under test, with a report of its own.
fn speaker() -> Bench {
    let mut bench = Bench::new();
    bench.gossip.set_report(&report(ME, LIFE)).expect("the report is in bounds");
    bench
}

/// Sends the next report; true if it is a full one.
fn says_all(bench: &mut Bench) -> bool {
    bench.now = bench.now + INTERVAL;
    bench.gossip.send_now(bench.now);
    let sent = bench.actions().into_iter().find_map(|action| match action {
        Action::Send { bytes, .. } => Some(bytes),
        _ => None,
    });
    message::decode(&sent.expect("a report is sent"), &Keyring::unauthenticated()).is_ok()
}

fn says_all_in(bench: &mut Bench, reports: usize) -> Vec<bool> {
    (0..reports).map(|_| says_all(bench)).collect()
}

fn brief(said: &LoadReport, sequence: u64) -> Vec<u8> {
    let header = Header { via: Via::Multicast, sender: said.node, incarnation: said.incarnation, sequence };
    let encoded = EncodedReport::new(said, INTERVAL).expect("the report is in bounds");
    message::encode_brief(&header, &encoded, &said.received, &Keyring::unauthenticated())
}

fn service() -> ServiceReport {
    ServiceReport::new(Protocol::Tcp, ServiceSocket { address: [192, 0, 2, 10].into(), port: 80 })
}

fn hear(bench: &mut Bench, from: NodeId, bytes: &[u8]) -> Result<(), DatagramError> {
    bench.gossip.handle_datagram(socket(from), bytes, bench.now)
}

#[test]
fn a_node_introduces_itself_three_times_then_once_a_second() {
    let mut bench = speaker();

    let said = says_all_in(&mut bench, 23);

    let full: Vec<usize> = said.iter().enumerate().filter(|(_, full)| **full).map(|(at, _)| at).collect();
    assert_eq!(full, [0, 1, 2, 12, 22]);
}

#[test]
fn what_a_brief_report_cannot_say_makes_the_next_three_full() {
    let changes: [fn(&mut LoadReport); 5] = [
        |report| report.weight.0 += 1,
        |report| report.name.push('x'),
        |report| report.services.push(service()),
        |report| report.content_version += 1,
        |report| report.map_version.epoch += 1,
    ];
    for change in changes {
        let mut bench = speaker();
        says_all_in(&mut bench, 4);
        let mut changed = report(ME, LIFE);
        change(&mut changed);
        bench.gossip.set_report(&changed).unwrap();

        assert_eq!(says_all_in(&mut bench, 4), [true, true, true, false], "{changed:?}");
    }
}

#[test]
fn load_state_and_acknowledgements_are_said_briefly() {
    let mut bench = speaker();
    says_all_in(&mut bench, 4);
    let received = vec![ReceivedFrom { director: PEER, incarnation: LIFE, connections: 1 }];
    let changed =
        LoadReport { load: LoadPermille(900), state: NodeState::Leaving, received, ..report(ME, LIFE) };

    bench.gossip.set_report(&changed).unwrap();

    assert!(!says_all(&mut bench));
}

#[test]
fn a_newcomer_and_a_node_that_restarted_are_told_everything() {
    let mut bench = speaker();
    says_all_in(&mut bench, 4);

    bench.hear(&peer(), 1).unwrap();
    assert_eq!(says_all_in(&mut bench, 4), [true, true, true, false]);

    bench.hear(&report(PEER, Incarnation(LIFE.0 + 1)), 1).unwrap();
    assert_eq!(says_all_in(&mut bench, 4), [true, true, true, false]);
}

#[test]
fn while_somebody_does_not_understand_brief_reports_all_are_full() {
    let mut bench = speaker();
    let mut of_an_older_version = datagram(Via::Multicast, &peer(), 1, &Keyring::unauthenticated());
    of_an_older_version[FLAGS_AT] &= !READS_BRIEF;
    hear(&mut bench, PEER, &of_an_older_version).unwrap();
    assert_eq!(says_all_in(&mut bench, 20), [true; 20]);

    bench.hear(&LoadReport { state: NodeState::Leaving, ..peer() }, 2).unwrap();

    assert!(!says_all(&mut bench), "it is gone");
}

#[test]
fn a_brief_report_renews_what_it_says_and_leaves_the_rest() {
    let mut bench = Bench::new();
    bench.hear(&LoadReport { services: vec![service()], ..peer() }, 100).unwrap();
    let weight = bench.weight_of(PEER);
    let received = vec![ReceivedFrom { director: ME, incarnation: LIFE, connections: 12 }];
    let news = LoadReport {
        load: LoadPermille(900),
        state: NodeState::Draining,
        weight: Weight(7),
        received,
        ..peer()
    };
    bench.now = bench.now + INTERVAL;

    hear(&mut bench, PEER, &brief(&news, 101)).unwrap();

    let view = bench.gossip.peer(PEER, bench.now).unwrap();
    assert_eq!((view.report.load, view.report.state), (news.load, news.state));
    assert_eq!((view.report.services.len(), view.report.name.as_str()), (1, "peer"));
    assert_eq!(view.slow_start_weight.0, weight);
    assert_eq!((view.acknowledged, view.report_age), (Some(12), Duration::ZERO));
    assert_eq!(hear(&mut bench, PEER, &brief(&news, 101)), Err(DatagramError::Replayed { sequence: 101 }));
    let left = LoadReport { state: NodeState::Leaving, ..peer() };
    hear(&mut bench, PEER, &brief(&left, 102)).unwrap();
    assert!(!bench.gossip.peer(PEER, bench.now).unwrap().alive);
}

#[test]
fn brief_reports_alone_keep_a_peer_alive() {
    let mut bench = Bench::new();
    bench.hear(&peer(), 1).unwrap();
    bench.actions();

    for sequence in 2..50 {
        bench.pass(INTERVAL);
        hear(&mut bench, PEER, &brief(&peer(), sequence)).unwrap();
    }

    assert_eq!(bench.actions(), []);
}

#[test]
fn who_has_not_introduced_itself_is_not_known_by_a_brief_report() {
    let mut bench = Bench::new();
    let next_life = report(PEER, Incarnation(LIFE.0 + 1));

    assert_eq!(hear(&mut bench, PEER, &brief(&peer(), 7)), Err(DatagramError::NotIntroduced));
    assert!(bench.gossip.peer(PEER, bench.now).is_none());
    bench.hear(&peer(), 8).unwrap();
    assert_eq!(hear(&mut bench, PEER, &brief(&next_life, 1)), Err(DatagramError::NotIntroduced));

    assert_eq!(bench.gossip.peer(PEER, bench.now).unwrap().report.incarnation, LIFE);
    assert_eq!(bench.rejected("not-introduced"), 2);
    bench.hear(&next_life, 2).unwrap();
    assert_eq!(
        hear(&mut bench, PEER, &brief(&peer(), 9)),
        Err(DatagramError::StaleIncarnation { incarnation: LIFE, known: next_life.incarnation })
    );
}

#[test]
fn own_brief_reports_that_come_back_are_ignored_in_silence() {
    let mut bench = speaker();
    let of_life = |life| brief(&report(ME, Incarnation(life)), 5);

    assert_eq!(hear(&mut bench, ME, &of_life(LIFE.0)), Ok(()));
    let stale = DatagramError::StaleIncarnation { incarnation: Incarnation(9), known: LIFE };
    assert_eq!(hear(&mut bench, ME, &of_life(9)), Err(stale));
    assert_eq!(hear(&mut bench, ME, &of_life(11)), Err(DatagramError::NotIntroduced));

    assert_eq!(bench.gossip.peers(bench.now).count(), 0);
}
