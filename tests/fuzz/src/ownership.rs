//! Ownership maps of any bytes, and agreement among nodes to one of which a stranger speaks.

use crate::input::Input;
use dpr_model::{Incarnation, LoadPermille, MapVersion, NodeId, Timestamp};
use dpr_ownership::agreement::{Action, Applicant, Config, MESSAGE_MAX};
use dpr_ownership::shares::Director;
use dpr_ownership::{
    Agreement, MAP_BYTES_MAX, MapDraft, Member, OwnershipMap, ServiceAddress, Share, SlotCount,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const LIFE: Incarnation = Incarnation(1);
/// Actions of a node between two things that happen to it; a map has at most some two hundred chunks.
const ACTIONS_MAX: usize = 1000;

/// Reads a map of any bytes, or lets two nodes agree while one of them hears messages of any bytes in the names of
/// both others. A map that was read is written as it was, its next one keeps a map's own rules, and what nodes say to
/// each other they understand.
///
/// Bytes: which of the two (1). A map: changes (9), then its bytes. Agreement: what was saved (length 2, bytes); then for
/// each message milliseconds before it (2), who speaks (1), length (2) and bytes.
///
/// # Panics
/// When the rule is broken.
pub fn ownership(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.u8() & 1 {
        0 => map(input),
        _ => agreement(input),
    }
}

fn map(mut input: Input<'_>) {
    let draft = |input: &mut Input<'_>, version| MapDraft {
        version,
        members: (0..2)
            .map(|_| Member { node: NodeId(input.u8().into()), share: Share(input.u8().into()) })
            .collect(),
        addresses: vec![service(input.u8()), service(input.u8())],
        voters: vec![NodeId(input.u8().into())],
        wishes: BTreeMap::new(),
    };
    let changes = input.take(9);
    let bytes = input.rest();
    let Ok(map) = OwnershipMap::from_bytes(bytes) else { return };
    assert_eq!(map.to_bytes(), bytes, "a map is the same bytes everywhere");
    keeps_its_rules(&map);
    let version = map.version();
    let later = MapVersion { term: version.term.saturating_add(1), ..version };
    let mut changes = Input::new(changes);
    let is_settled = changes.u8() & 1 == 0;
    let next = map.next(draft(&mut changes, later), is_settled);
    keeps_its_rules(&next);
    assert_eq!(OwnershipMap::from_bytes(&next.to_bytes()), Ok(next));
}

fn service(byte: u8) -> ServiceAddress {
    let home = (byte & 1 == 1).then_some(NodeId(u32::from(byte >> 1 & 3)));
    ServiceAddress { address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, byte >> 3)), home }
}

fn keeps_its_rules(map: &OwnershipMap) {
    assert!(map.to_bytes().len() <= MAP_BYTES_MAX);
    assert_eq!(map.slots_by_member().len(), map.members().len());
    for service in map.addresses() {
        for slot in map.slots().all().step_by(97) {
            let Some(right) = map.right(service.address, slot) else { continue };
            assert!(map.has_member(right.owner), "{right:?} is of nobody");
            let backups: Vec<_> = map.backups(service.address, slot).into_iter().flatten().collect();
            assert!(!backups.contains(&right.owner), "an owner is not its own backup");
            assert!(backups.len() < 2 || backups[0] != backups[1], "{backups:?}");
            assert!(backups.iter().all(|backup| map.has_member(*backup)), "{backups:?}");
        }
    }
}

fn agreement(mut input: Input<'_>) {
    let mut now = Timestamp::from_millis(1000);
    let saved = input.message();
    let config = |node| {
        let slots = SlotCount::new(16).expect("16 slots are few, but enough");
        Config::new(node, LIFE, &NODES).expect("three voters are not too many").with_slots(slots)
    };
    let first = Agreement::new(config(NODES[0]), Some(saved).filter(|saved| !saved.is_empty()), now);
    let Ok(first) = first else { return };
    let second = Agreement::new(config(NODES[1]), None, now).expect("nothing was saved");
    let mut nodes = [first, second];
    for node in &mut nodes {
        let director = |node| Director { node, worth: Share(100), load: LoadPermille(100) };
        let applicants = NODES.map(|node| Applicant { director: director(node), leaving: false });
        node.set_cluster(applicants.to_vec(), vec![service(0), service(9)]);
    }
    while !input.is_empty() {
        // Longer silence is not what this is about, and costs a turn for each of its intervals.
        let wait = Duration::from_millis(u64::from(input.u16() % 1000));
        let from = NODES[usize::from(input.u8() & 1) + 1];
        pass(&mut nodes, &mut now, wait);
        // What does not make sense is refused, and that is all.
        let _ = nodes[0].handle_message((from, LIFE), input.message(), now);
        exchange(&mut nodes, now);
    }
}

fn pass(nodes: &mut [Agreement; 2], now: &mut Timestamp, wait: Duration) {
    let until = *now + wait;
    while *now < until {
        *now = (*now + Duration::from_millis(20)).min(until);
        for node in nodes.iter_mut().filter(|node| node.poll_timeout() <= *now) {
            node.handle_timeout(*now);
        }
        exchange(nodes, *now);
    }
}

/// Every message reaches the other one, who understands it.
fn exchange(nodes: &mut [Agreement; 2], now: Timestamp) {
    for sender in 0..2 {
        let mut actions = 0;
        while let Some(action) = nodes[sender].poll_action() {
            actions += 1;
            assert!(actions < ACTIONS_MAX, "a node that never has enough");
            match action {
                Action::Persist(bytes) => {
                    let config = Config::new(NODES[sender], LIFE, &NODES).expect("it was good before");
                    Agreement::new(config, Some(&bytes), now).expect("what was saved can be read");
                }
                Action::Send { bytes, .. } => {
                    assert!(bytes.len() <= MESSAGE_MAX, "{} bytes", bytes.len());
                    let heard = nodes[1 - sender].handle_message((NODES[sender], LIFE), &bytes, now);
                    heard.expect("what a node says is understood");
                }
                Action::DutyChanged => {
                    let serial = nodes[sender].duty().serial;
                    nodes[sender].confirm(serial, now);
                }
            }
        }
    }
}
