//! What a node says and asks: statements, and maps that it missed.

use crate::agreement::message::{Chunk, Message, PROMISES_MAX, Promise, Request, Standing, Statement};
use crate::agreement::transfer::{Assembly, EncodedMap};
use crate::agreement::{Action, Agreement, STATEMENTS_MAX, is_voter};
use crate::encoding::MapHash;
use dpr_model::{MapVersion, NodeId, Timestamp};

impl Agreement {
    pub(super) fn serve(&mut self, to: NodeId, request: &Request) {
        for chunk in self.accepted.answer(request) {
            let bytes = Message::Chunk(chunk).to_bytes();
            self.actions.push_back(Action::Send { to: Some(to), bytes });
        }
    }

    /// Takes in a chunk. True if it completed a map that is accepted.
    pub(super) fn receive(&mut self, chunk: Chunk, now: Timestamp) -> bool {
        let known = self.assembly.as_ref().map_or(self.accepted.map.version(), |assembly| assembly.version);
        if chunk.version > known && chunk.version.term >= self.term {
            self.assembly = Some(Assembly::new(chunk.version, chunk.hash));
        }
        match self.assembly.as_mut().and_then(|assembly| assembly.add(chunk)) {
            Some(map) => self.accept(EncodedMap::new(map), now),
            None => false,
        }
    }

    /// Asks for the newest map that anybody has, one node after another.
    pub(super) fn fetch(&mut self, now: Timestamp) {
        let Some((newest, hash, holders)) = self.newest_elsewhere(now) else {
            self.assembly = None;
            return;
        };
        if self.assembly.as_ref().is_none_or(|assembly| assembly.version < newest) {
            self.assembly = Some(Assembly::new(newest, hash));
        }
        let Some(assembly) = &mut self.assembly else { return };
        if assembly.asked.is_some_and(|(_, at)| now.since(at) < self.config.interval / 2) {
            return;
        }
        let last = assembly.asked.map(|(last, _)| last);
        let next = holders.iter().find(|node| last.is_some_and(|last| **node > last));
        let Some(to) = next.or(holders.first()).copied() else { return };
        assembly.asked = Some((to, now));
        let bytes = Message::Request(assembly.request()).to_bytes();
        self.actions.push_back(Action::Send { to: Some(to), bytes });
    }

    /// The newest map that this node would accept, and who has it.
    fn newest_elsewhere(&self, now: Timestamp) -> Option<(MapVersion, MapHash, Vec<NodeId>)> {
        let version = self.accepted.map.version();
        if !self.peers.may_have_later(version) {
            return None;
        }
        let is_wanted =
            |standing: &Standing| standing.accepted > version && standing.accepted.term >= self.term;
        let holders: Vec<(NodeId, Standing)> = self
            .peers
            .heard(now)
            .map(|(node, standing)| (node, *standing))
            .filter(|(_, standing)| is_wanted(standing))
            .collect();
        let (_, newest) = holders.iter().max_by_key(|(_, standing)| standing.accepted)?;
        let has_it =
            |(node, standing): &(NodeId, Standing)| (standing.accepted == newest.accepted).then_some(*node);
        Some((newest.accepted, newest.hash, holders.iter().filter_map(has_it).collect()))
    }

    /// Says where this node stands: at every interval, and at once when something changed.
    pub(super) fn speak(&mut self, now: Timestamp) {
        let standing = self.standing(now);
        let changed = self.said.is_none_or(|(said, _)| said != standing);
        let rested = self.said.is_none_or(|(_, at)| now.since(at) >= self.config.interval / STATEMENTS_MAX);
        if now < self.next_send && !(changed && rested) {
            if changed {
                self.next_send = now + self.config.interval / STATEMENTS_MAX;
            }
            return;
        }
        self.said = Some((standing, now));
        self.next_send = now + self.config.interval;
        let promises = self.promises(now);
        let mut parts = promises.chunks(PROMISES_MAX);
        let first = parts.next().unwrap_or_default();
        for promises in std::iter::once(first).chain(parts) {
            let statement = Statement {
                stamp: now,
                standing,
                forgotten: self.forgotten.iter().copied().collect(),
                promises: promises.to_vec(),
            };
            let bytes = Message::Statement(statement).to_bytes();
            self.actions.push_back(Action::Send { to: None, bytes });
        }
    }

    fn standing(&self, now: Timestamp) -> Standing {
        Standing {
            term: self.term,
            vote: self.vote,
            names: self.names(now),
            accepted: self.accepted.map.version(),
            hash: self.accepted.hash,
            acting: self.rights.acting(),
            cleared: self.is_cleared(now),
            able: self.is_able(now),
            entitled: self.rights.is_entitled(),
            coordinating: self.coordinating,
            handed: self.has_handed(),
            cut_off: self.cut_off,
        }
    }

    /// What a voter says of everybody else; others make no promises.
    fn promises(&self, now: Timestamp) -> Vec<Promise> {
        let map = &self.accepted.map;
        if !is_voter(map, self.own.node) {
            return Vec::new();
        }
        let members = map.members().iter().map(|member| member.node);
        let voters = map.voters().before.iter().chain(&map.voters().now).copied();
        let mut nodes: Vec<NodeId> =
            self.peers.iter().map(|(node, _)| node).chain(members).chain(voters).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.retain(|node| *node != self.own.node);
        nodes.into_iter().map(|node| self.peers.promise(node, self.memory_from, now)).collect()
    }
}
