//! Frames under VLAN tags, of which the kernel shows the inner one within the frame and the outer one beside it.
//!
//! Behind the tags a frame is judged as without, and what neighbours under tags answer is shown too: nobody else hears it.

use super::super::interest::Interest;
use super::{
    ANCILLARY, AND, Block, ETHERTYPE_AT, IP_AT, JUMP, JUMP_ANY_BIT, JUMP_AT_LEAST, JUMP_EQUAL, JUMP_GREATER,
    LOAD_BYTE, LOAD_HALF, RETURN, V6_NEXT_HEADER_AT, V6_PAYLOAD_AT, VLAN_TAG_AT, VLAN_TAG_PRESENT_AT, blocks,
    judged, neighbour_block, statement,
};
use dpr_rewrite::ethernet::{TAG_LEN, VLAN_IDENTIFIER, ethertype};
use dpr_rewrite::protocol;
use libc::sock_filter;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Operation of an ARP packet (RFC 826), and that of a reply.
const ARP_OPERATION_AT: u32 = IP_AT + 6;
const ARP_REPLY: u32 = 2;
/// A neighbour advertisement (RFC 4861, section 4.4).
const ND_ADVERTISEMENT: u32 = 136;

/// The program for an interest in VLANs; `untagged` is what judges frames without tags.
pub(super) fn program(interest: &Interest, untagged: Vec<sock_filter>) -> Vec<sock_filter> {
    let under_one = under_tags(interest);
    let under_two = behind_a_tag(under_one.clone());
    let mut selection = Selection::default();
    selection.instructions.push(statement(LOAD_BYTE, VLAN_TAG_PRESENT_AT));
    selection.go_if(0, Way::Untagged);
    for vlan in &interest.vlans {
        match *vlan.tags().as_slice() {
            [outer] => {
                selection.load_identifier(VLAN_TAG_AT);
                selection.go_if(outer.vlan().into(), Way::UnderOne);
            }
            [outer, inner] => {
                let mut block = Block::new();
                require_identifier(&mut block, VLAN_TAG_AT, outer.vlan());
                require_identifier(&mut block, IP_AT, inner.vlan());
                block.push(statement(LOAD_HALF, ETHERTYPE_AT));
                let at = selection.instructions.len();
                for announced in [ethertype::VLAN, ethertype::PROVIDER_VLAN] {
                    block.push(sock_filter { code: JUMP_EQUAL, jt: 0, jf: 1, k: announced.into() });
                    selection.jumps.push((at + block.instructions.len(), Way::UnderTwo));
                    block.push(statement(JUMP, 0));
                }
                selection.instructions.extend(block.finish());
            }
            _ => {}
        }
    }
    selection.instructions.push(statement(RETURN, 0));
    selection.then(untagged, under_one, under_two)
}

/// What judges frames under one tag, which itself is not in them.
fn under_tags(interest: &Interest) -> Vec<sock_filter> {
    let services: BTreeSet<IpAddr> = interest.services.iter().map(|(_, socket)| socket.ip()).collect();
    // Also those that the host holds: it does not hear who asks for them.
    let asked_for = services.difference(&interest.asked_for).map(|address| neighbour_block(*address));
    let mut all = answers_of_neighbours();
    all.extend(asked_for);
    all.extend(blocks(interest));
    judged(&all)
}

fn answers_of_neighbours() -> Vec<Vec<sock_filter>> {
    let mut arp = Block::new();
    arp.require(LOAD_HALF, ETHERTYPE_AT, ethertype::ARP.into());
    arp.require(LOAD_HALF, ARP_OPERATION_AT, ARP_REPLY);
    arp.accept();
    let mut nd = Block::new();
    nd.require(LOAD_HALF, ETHERTYPE_AT, ethertype::IPV6.into());
    nd.require(LOAD_BYTE, V6_NEXT_HEADER_AT, protocol::ICMPV6.into());
    nd.require(LOAD_BYTE, V6_PAYLOAD_AT, ND_ADVERTISEMENT);
    nd.accept();
    vec![arp.finish(), nd.finish()]
}

/// The same for frames that have a tag more in front of what is looked at.
fn behind_a_tag(mut program: Vec<sock_filter>) -> Vec<sock_filter> {
    let loads = |code| {
        !matches!(code, JUMP | JUMP_EQUAL | JUMP_GREATER | JUMP_AT_LEAST | JUMP_ANY_BIT | RETURN | AND)
    };
    for instruction in program.iter_mut().filter(|instruction| loads(instruction.code)) {
        if instruction.k < ANCILLARY {
            instruction.k += TAG_LEN as u32;
        }
    }
    program
}

/// Leaves the block unless the control field of a tag there is that of `vlan`.
fn require_identifier(block: &mut Block, at: u32, vlan: u16) {
    block.push(statement(LOAD_HALF, at));
    block.push(statement(AND, VLAN_IDENTIFIER.into()));
    block.require_loaded(vlan.into());
}

/// Where a frame is judged.
#[derive(Clone, Copy)]
enum Way {
    Untagged,
    UnderOne,
    UnderTwo,
}

/// Tests in front, each of which may jump to where a frame is judged.
#[derive(Default)]
struct Selection {
    instructions: Vec<sock_filter>,
    jumps: Vec<(usize, Way)>,
}

impl Selection {
    fn load_identifier(&mut self, at: u32) {
        self.instructions.push(statement(LOAD_HALF, at));
        self.instructions.push(statement(AND, VLAN_IDENTIFIER.into()));
    }

    /// Jumps if the loaded value is `expected`.
    fn go_if(&mut self, expected: u32, way: Way) {
        self.instructions.push(sock_filter { code: JUMP_EQUAL, jt: 0, jf: 1, k: expected });
        self.jumps.push((self.instructions.len(), way));
        self.instructions.push(statement(JUMP, 0));
    }

    fn then(
        mut self,
        untagged: Vec<sock_filter>,
        under_one: Vec<sock_filter>,
        under_two: Vec<sock_filter>,
    ) -> Vec<sock_filter> {
        let begin = self.instructions.len();
        for (at, way) in self.jumps {
            let target = match way {
                Way::Untagged => begin,
                Way::UnderOne => begin + untagged.len(),
                Way::UnderTwo => begin + untagged.len() + under_one.len(),
            };
            // Far less than 2^32: what is longer than the kernel's limit is not used.
            self.instructions[at].k = (target - at - 1) as u32;
        }
        [self.instructions, untagged, under_one, under_two].concat()
    }
}
