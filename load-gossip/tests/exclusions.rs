//! What one operator decides, every node knows, and none has to remember alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use dpr_load_gossip::{Action, Config, Gossip, message};
use dpr_model::{
    Capacity, Exclusion, Incarnation, LoadReport, NodeId, ServiceReport, ServiceSocket, Timestamp,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const ATTACKED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));
const INTERVAL: Duration = Duration::from_millis(100);

fn node(id: u32, incarnation: u64) -> Gossip {
    let config = Config::new(NodeId(id), Incarnation(incarnation));
    let mut gossip = Gossip::new(config, Timestamp::default());
    gossip.set_report(&report(id, incarnation)).unwrap();
    gossip
}

fn report(id: u32, incarnation: u64) -> LoadReport {
    LoadReport::new(NodeId(id), Incarnation(incarnation), address(id), Capacity::new(1))
}

fn address(id: u32) -> IpAddr {
    [10, 0, 0, u8::try_from(id).unwrap()].into()
}

/// Lets `from` speak, to everybody in `to`; returns what they heard of exclusions.
fn speak(from: &mut Gossip, id: u32, to: &mut [&mut Gossip], now: Timestamp) -> Vec<Exclusion> {
    from.send_now(now);
    let mut heard = Vec::new();
    while let Some(action) = from.poll_action() {
        let Action::Send { bytes, .. } = action else { continue };
        for other in to.iter_mut() {
            other.handle_datagram(SocketAddr::new(address(id), 7777), &bytes, now).unwrap();
        }
    }
    for other in to {
        while let Some(action) = other.poll_action() {
            if let Action::Excluded(exclusion) = action {
                heard.push(exclusion);
            }
        }
    }
    heard
}

#[test]
fn a_decision_reaches_everybody_with_the_next_report_and_is_news_once() {
    let (mut one, mut two, mut three) = (node(1, 1), node(2, 1), node(3, 1));
    one.exclude(ATTACKED, true, 1000).unwrap();

    let first = speak(&mut one, 1, &mut [&mut two, &mut three], Timestamp::from_millis(1));
    let second = speak(&mut one, 1, &mut [&mut two, &mut three], Timestamp::from_millis(101));

    let expected = Exclusion { address: ATTACKED, excluded: true, decided_ms: 1000, by: NodeId(1) };
    assert_eq!((first, second), (vec![expected; 2], vec![]));
    assert!(two.exclusions().eq([&expected]) && three.exclusions().eq([&expected]));
}

#[test]
fn a_node_that_restarts_learns_from_those_that_did_not_decide() {
    let (mut one, mut two) = (node(1, 1), node(2, 1));
    one.exclude(ATTACKED, true, 1000).unwrap();
    speak(&mut one, 1, &mut [&mut two], Timestamp::from_millis(1));
    // Long after it was news.
    for turn in 0..20 {
        speak(&mut two, 2, &mut [], Timestamp::default() + INTERVAL * turn);
    }

    let mut reborn = node(1, 2);
    speak(&mut two, 2, &mut [&mut reborn], Timestamp::from_millis(5000));

    assert!(reborn.exclusions().next().unwrap().excluded);
    reborn.exclude(ATTACKED, false, 900).unwrap();
    speak(&mut reborn, 1, &mut [&mut two], Timestamp::from_millis(5100));
    assert!(!two.exclusions().next().unwrap().excluded, "even with a clock that is behind");
}

#[test]
fn the_largest_report_has_room_for_exclusions_and_acknowledgements() {
    let mut gossip = node(1, 1);
    let mut full = report(1, 1);
    full.name = "n".repeat(63);
    let socket = |port| ServiceSocket { address: ATTACKED, port };
    let service = |port| ServiceReport::new(dpr_model::Protocol::Tcp, socket(port));
    full.services = (1..=64).map(service).collect();
    full.received =
        vec![dpr_model::ReceivedFrom { director: NodeId(2), incarnation: Incarnation(1), connections: 7 }];
    gossip.set_report(&full).unwrap();
    for last in 0..64 {
        gossip.exclude(IpAddr::V6([0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into()), true, 1).unwrap();
    }

    gossip.send_now(Timestamp::from_millis(1));
    let Some(Action::Send { bytes, .. }) = gossip.poll_action() else { panic!("nothing is sent") };
    let datagram = message::decode(&bytes, &dpr_load_gossip::Keyring::unauthenticated()).unwrap();

    assert_eq!((datagram.exclusions.len(), datagram.report.received.len()), (4, 1));
}
