//! What a coordinator does: maps out of who is there.

use crate::agreement::consent::next_voters;
use crate::agreement::message::Message;
use crate::agreement::takeover::GiveBack;
use crate::agreement::transfer::EncodedMap;
use crate::agreement::{Action, Agreement, version_after};
use crate::held::Wish;
use crate::map::{MEMBERS_MAX, MapDraft, Member, ServiceAddress, VOTERS_MAX};
use crate::shares::Director;
use dpr_model::{NodeId, Timestamp};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Intervals that a coordinator waits for a map to be settled before it replaces it for no urgent reason.
const PATIENCE_INTERVALS: u32 = 10;

/// A member that may not act for this many of the shortest promises loses its slots: longer than any change of maps
/// or of coordinators takes.
const POWERLESS_PROMISES: u32 = 2;

impl Agreement {
    /// Makes the next map if there is a reason to, and if this node is coordinator.
    pub(super) fn coordinate(&mut self, now: Timestamp) {
        self.coordinating = self.is_elected(now) && self.is_named(now);
        if !self.coordinating {
            return;
        }
        let settled = self.rights.is_settled();
        let (wishes, is_asked) = self.wishes(settled, now);
        let draft = self.draft(wishes, now);
        let present = &self.accepted.map;
        let same_members = present.members().iter().eq(&draft.members);
        let same_addresses = present.addresses().eq(draft.addresses.iter().copied());
        let new_voters = settled && (draft.voters != present.voters().now || present.is_joint());
        let new_term = present.version().term != self.term;
        if same_members && same_addresses && !new_voters && !new_term && !is_asked {
            return;
        }
        let is_missing = |member: &Member| !draft.members.iter().any(|other| other.node == member.node);
        let urgent = new_term || present.members().iter().any(is_missing);
        let patience = self.config.interval * PATIENCE_INTERVALS;
        let impatient = self.proposed_at.is_none_or(|at| now.since(at) >= patience);
        if settled || urgent || impatient {
            let map = EncodedMap::new(present.next(draft, settled));
            self.publish(map, now);
        }
    }

    fn publish(&mut self, map: EncodedMap, now: Timestamp) {
        self.proposed_at = Some(now);
        let chunks: Vec<_> = map.chunks().map(|chunk| Message::Chunk(chunk).to_bytes()).collect();
        self.accept(map, now);
        self.actions.extend(chunks.into_iter().map(|bytes| Action::Send { to: None, bytes }));
    }

    fn draft(&mut self, wishes: BTreeMap<IpAddr, Wish>, now: Timestamp) -> MapDraft {
        let mut members = self.remaining_members(now);
        let joining = self.applicants.iter().filter(|applicant| self.may_join(applicant.director.node, now));
        for applicant in joining {
            if !applicant.leaving && members.iter().all(|member| member.node != applicant.director.node) {
                members.push(Member { node: applicant.director.node, share: applicant.director.worth });
            }
        }
        members.sort_unstable_by_key(|member| member.node);
        members.truncate(MEMBERS_MAX);
        self.update_shares(&mut members, now);
        let nodes = self.present_nodes(&members, now);
        let gone = |node| self.is_leaving(node) || self.forgotten.contains(&node);
        let voters = next_voters(&self.accepted.map.voters().now, &nodes, gone, VOTERS_MAX);
        let version = version_after(self.accepted.map.version(), self.term, self.own.node);
        let addresses = self.next_addresses(&members);
        MapDraft { version, members, addresses, voters, wishes }
    }

    /// Members who neither took leave nor were forgotten, nor are dead by the word of a quorum, nor powerless by their
    /// own word: a node that is heard and does not hear has no rights, and its slots would have no owner.
    fn remaining_members(&self, now: Timestamp) -> Vec<Member> {
        let stays = |member: &&Member| {
            let node = member.node;
            let is_lost = self.is_agreed_dead(node, now) || self.is_powerless(node, now);
            let is_lost = is_lost || self.is_cut_off(node);
            !self.is_leaving(node) && !self.forgotten.contains(&node) && !is_lost
        };
        self.accepted.map.members().iter().filter(stays).copied().collect()
    }

    fn is_agreed_dead(&self, node: NodeId, now: Timestamp) -> bool {
        self.is_suspected(node, now) && self.have_consent(|peer| peer.suspects.contains(&node), now)
    }

    fn is_powerless(&self, node: NodeId, now: Timestamp) -> bool {
        let patience = self.config.promise_min() * POWERLESS_PROMISES;
        self.peers.get(node).is_some_and(|peer| peer.powerless_for(now) > patience)
    }

    fn may_join(&self, node: NodeId, now: Timestamp) -> bool {
        let is_able_to =
            || self.peers.get(node).is_some_and(|peer| peer.promised_until >= now && peer.standing.entitled);
        (node == self.own.node || is_able_to()) && !self.is_cut_off(node)
    }

    /// True for a node that clients cannot reach, by its own word, while they can reach another one: if they reach nobody, that
    /// is nobody's fault, and nothing is gained by a move.
    fn is_cut_off(&self, node: NodeId) -> bool {
        let says_so = |node: NodeId| match self.peers.get(node) {
            _ if node == self.own.node => self.cut_off,
            Some(peer) => peer.standing.cut_off,
            None => true,
        };
        let mut present = self.applicants.iter().filter(|applicant| applicant.director.worth.0 > 0);
        says_so(node) && self.knows(node) && present.any(|applicant| !says_so(applicant.director.node))
    }

    fn knows(&self, node: NodeId) -> bool {
        node == self.own.node || self.peers.get(node).is_some()
    }

    /// Nodes that can be voters: members, and those that are none only because clients do not reach them.
    fn present_nodes(&self, members: &[Member], now: Timestamp) -> Vec<NodeId> {
        let voters = self.accepted.map.voters().now.iter().copied();
        let is_there = |node: &NodeId| *node == self.own.node || self.peers.is_heard(*node, now);
        let cut_off = voters.filter(|node| {
            is_there(node)
                && self.is_cut_off(*node)
                && !self.is_leaving(*node)
                && !self.forgotten.contains(node)
        });
        let mut nodes: Vec<NodeId> = members.iter().map(|member| member.node).chain(cut_off).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    fn is_leaving(&self, node: NodeId) -> bool {
        self.applicants.iter().any(|applicant| applicant.director.node == node && applicant.leaving)
    }

    /// Shares by worth and load; whoever is not reported on keeps its own.
    fn update_shares(&mut self, members: &mut [Member], now: Timestamp) {
        let directors: Vec<Director> = self
            .applicants
            .iter()
            .map(|applicant| applicant.director)
            .filter(|director| members.iter().any(|member| member.node == director.node))
            .collect();
        let shares = self.shares.update(&directors, now);
        for (director, share) in directors.iter().zip(shares) {
            for member in members.iter_mut().filter(|member| member.node == director.node) {
                member.share = share;
            }
        }
    }

    /// Addresses that are reported, and those of nodes that nobody reports on any more: they are in others' hands. Where homes
    /// do not get theirs back by themselves, a new one counts from the moment on at which its home can have it.
    fn next_addresses(&self, members: &[Member]) -> Vec<ServiceAddress> {
        let is_reported =
            |node: NodeId| self.applicants.iter().any(|applicant| applicant.director.node == node);
        let present = &self.accepted.map;
        let orphaned = present.addresses().filter(|service| {
            service.home.is_some_and(|home| !is_reported(home) && !self.forgotten.contains(&home))
        });
        let has_begun = |service: &ServiceAddress| {
            let is_member = |home: NodeId| members.iter().any(|member| member.node == home);
            self.config.give_back == GiveBack::Auto
                || service.home.is_none_or(is_member)
                || present.address(service.address).is_some()
        };
        let reported = self.addresses.iter().copied().filter(has_begun);
        let mut addresses: Vec<ServiceAddress> = reported.chain(orphaned).collect();
        addresses.sort_by_key(|service| service.address);
        addresses.dedup_by_key(|service| service.address);
        addresses
    }
}
