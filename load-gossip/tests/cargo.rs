//! Messages that gossip carries for others.

use dpr_load_gossip::message::CARGO_BYTES_MAX;
use dpr_load_gossip::{Action, Cargo, CargoError, Config, Destination, Gossip, Key, Keyring};
use dpr_model::{Incarnation, NodeId, Timestamp};
use std::net::SocketAddr;
use std::sync::Arc;

const NOW: Timestamp = Timestamp::from_millis(1000);
const SENDER: NodeId = NodeId(7);
const LIFE: Incarnation = Incarnation(9);

fn node(id: NodeId, key: u8) -> Gossip {
    let keyring = Keyring::new(Key::new(&[key; 32]), None);
    Gossip::new(Config::new(id, LIFE).with_keyring(keyring), NOW)
}

fn socket() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 7], 7946))
}

/// The datagram of a message to all.
fn datagram(gossip: &mut Gossip, cargo: &[u8]) -> Arc<[u8]> {
    gossip.carry(None, cargo, NOW).expect("the message is short");
    match gossip.poll_action() {
        Some(Action::Send { to: Destination::Groups, bytes }) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_comes_as_it_was_sent_with_the_name_of_its_sender() {
    let (mut sender, mut receiver) = (node(SENDER, 1), node(NodeId(8), 1));
    let bytes = datagram(&mut sender, b"a map");

    receiver.handle_datagram(socket(), &bytes, NOW).unwrap();
    sender.handle_datagram(socket(), &bytes, NOW).unwrap();

    let cargo = Cargo { from: SENDER, incarnation: LIFE, bytes: b"a map".to_vec() };
    assert_eq!(receiver.poll_cargo(), Some(cargo));
    assert_eq!(receiver.poll_cargo(), None);
    assert_eq!(sender.poll_cargo(), None, "its own multicast is not for itself");
}

#[test]
fn nothing_is_carried_from_strangers() {
    let bytes = datagram(&mut node(SENDER, 2), b"a map");
    let mut receiver = node(NodeId(8), 1);

    assert!(receiver.handle_datagram(socket(), &bytes, NOW).is_err());
    assert_eq!(receiver.poll_cargo(), None);
}

#[test]
fn what_does_not_fit_or_has_no_way_is_refused() {
    let mut sender = node(SENDER, 1);

    let too_long = vec![0; CARGO_BYTES_MAX + 1];
    assert_eq!(sender.carry(None, &too_long, NOW), Err(CargoError::TooLong(too_long.len())));
    assert_eq!(sender.carry(Some(NodeId(8)), b"", NOW), Err(CargoError::UnknownPeer(NodeId(8))));
    assert_eq!(sender.carry(None, &too_long[1..], NOW), Ok(()));
}
