//! Datagrams of any bytes, with and without keys; and reports and cargo of any content by somebody who has the key.

use crate::input::Input;
use dpr_load_gossip::message::{self, CARGO_BYTES_MAX, DATAGRAM_MAX, EncodedReport};
use dpr_load_gossip::{Action, Config, Destination, EXCLUSIONS_MAX, Gossip, Key, Keyring, PEERS_MAX};
use dpr_model::{Capacity, Incarnation, LoadReport, NodeId, Timestamp};
use siphasher::sip128::SipHasher24;
use std::net::SocketAddr;
use std::time::Duration;

const ME: NodeId = NodeId(1);
const LIFE: Incarnation = Incarnation(5);
const SECRET: [u8; 32] = [7; 32];
const SECTIONS_AT: usize = message::HEADER_LENGTH;
const TAG_LENGTH: usize = 16;

/// Hears datagrams of any bytes; each is accepted or refused, and counted as that; what is known stays within its
/// limits; and what was understood is said again in the same words.
///
/// Bytes: whether there is a key (1); then for each datagram milliseconds before it (2), how it is made (1), length (2)
/// and bytes. A datagram that is not taken as it stands gets magic, version and length right, and a tag if there is a key.
///
/// # Panics
/// When the rule is broken.
pub fn gossip(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let keyring =
        if input.u8() & 1 == 0 { Keyring::unauthenticated() } else { Keyring::new(Key::new(&SECRET), None) };
    let mut now = Timestamp::from_millis(1000);
    let mut gossip = Gossip::new(Config::new(ME, LIFE).with_keyring(keyring.clone()), now);
    gossip.set_report(&own_report()).expect("the report is in bounds");
    while !input.is_empty() {
        now = now + Duration::from_millis(input.u16().into());
        let how = input.u8();
        let datagram = match how & 3 {
            0 => input.message().to_vec(),
            kind => sealed(input.message(), kind, keyring.is_authenticating()),
        };
        hear(&mut gossip, from(how), &datagram, &keyring, now);
        act(&mut gossip, now);
    }
}

fn from(how: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, how >> 4], 7777))
}

fn hear(gossip: &mut Gossip, from: SocketAddr, datagram: &[u8], keyring: &Keyring, now: Timestamp) {
    let judged = |gossip: &Gossip| {
        let counters = gossip.counters();
        (counters.accepted, counters.rejected.values().sum::<u64>())
    };
    let before = judged(gossip);
    let result = gossip.handle_datagram(from, datagram, now);
    let after = judged(gossip);
    match result {
        // Its own datagrams are neither.
        Ok(()) => assert!(after.0 - before.0 <= 1 && after.1 == before.1, "{before:?} {after:?}"),
        Err(_) => assert_eq!((after.0, after.1), (before.0, before.1 + 1)),
    }
    if let Ok(said) = message::decode(datagram, keyring) {
        is_said_again(&said, keyring);
    }
    if let Ok((header, _)) = message::decode_brief(datagram, keyring, ME, LIFE) {
        assert!(result.is_err() || header.sender == ME || gossip.peer(header.sender, now).is_some());
    }
}

/// What was understood of a report is a report, and means the same when it is sent on.
fn is_said_again(said: &message::Datagram, keyring: &Keyring) {
    let interval = said.interval.unwrap_or(Duration::from_millis(100));
    let Ok(encoded) = EncodedReport::new(&said.report, interval) else { return };
    let again = message::encode(&said.header, &encoded, &said.report.received, keyring);
    assert!(again.len() <= DATAGRAM_MAX);
    let mut heard = message::decode(&again, keyring).expect("what was written can be read");
    // A peer's datagram may hold more of these than one of ours.
    heard.report.received.clone_from(&said.report.received);
    assert_eq!((&heard.header, &heard.report), (&said.header, &said.report));
}

fn act(gossip: &mut Gossip, now: Timestamp) {
    if gossip.poll_timeout().is_some_and(|at| at <= now) {
        gossip.handle_timeout(now);
    }
    while let Some(action) = gossip.poll_action() {
        if let Action::Send { bytes, to } = action {
            assert!(bytes.len() <= DATAGRAM_MAX, "{} bytes", bytes.len());
            assert!(to == Destination::Groups || gossip.peers(now).count() > 0, "{to:?} is nobody");
        }
    }
    while let Some(cargo) = gossip.poll_cargo() {
        assert!(cargo.bytes.len() <= CARGO_BYTES_MAX && cargo.from != ME);
    }
    assert!(gossip.peers(now).count() <= PEERS_MAX);
    assert!(gossip.exclusions().count() <= EXCLUSIONS_MAX);
    for peer in gossip.peers(now) {
        let peer = peer.to_peer(None);
        assert_ne!(peer.candidate.node, ME, "a node is no peer of its own");
        assert!(peer.candidate.score() > 0);
    }
}

/// `content` as the header's fields from the flags on and what follows, within what makes it a datagram of ours: of
/// message type `kind`.
fn sealed(content: &[u8], kind: u8, has_key: bool) -> Vec<u8> {
    let id = match has_key {
        true => first(&blake3::derive_key("dpr load-gossip v2 key id", &SECRET)),
        false => [0; 4],
    };
    let mut content = Input::new(content);
    let mut datagram = b"DPRG".to_vec();
    datagram.extend([2, kind]);
    datagram.extend(content.u16().to_be_bytes());
    datagram.extend([0; 2]);
    datagram.extend(id);
    for _ in 0..5 {
        datagram.extend(content.u32().to_be_bytes());
    }
    assert_eq!(datagram.len(), SECTIONS_AT);
    datagram.extend(content.take(DATAGRAM_MAX - SECTIONS_AT - TAG_LENGTH));
    let length =
        u16::try_from(datagram.len() + TAG_LENGTH).expect("it is at most as long as a datagram may be");
    datagram[8..10].copy_from_slice(&length.to_be_bytes());
    let key = blake3::derive_key("dpr load-gossip v2 datagram authentication tag", &SECRET);
    let tag = match has_key {
        true => SipHasher24::new_with_key(&first(&key)).hash(&datagram).as_bytes(),
        false => [0; TAG_LENGTH],
    };
    datagram.extend(tag);
    datagram
}

fn first<const N: usize>(bytes: &[u8; 32]) -> [u8; N] {
    std::array::from_fn(|at| bytes[at])
}

fn own_report() -> LoadReport {
    LoadReport::new(ME, LIFE, [192, 0, 2, 1].into(), Capacity::new(100))
}
