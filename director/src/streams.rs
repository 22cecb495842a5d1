//! Streams of copies: to the nodes that stand ready for this one, and to all that may meet its clients.

use dpr_conntrack::sync::{Copied, Stream};
use dpr_model::{Incarnation, NodeId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes a second to each node: what 100,000 connections a second over IPv4 need, and half as much again for repetition and
/// snapshots.
const BYTES_PER_SECOND: u64 = 4_000_000;

/// One stream for each node that is told of anything.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    by_node: BTreeMap<NodeId, Stream>,
    /// Where later streams begin, so that nobody takes them for earlier ones.
    next_sequence: u64,
    /// Who stands ready for connections.
    backups: BTreeSet<NodeId>,
    /// Who is to know clients that stay with their real server.
    hearers: BTreeSet<NodeId>,
    /// In which life each peer was when it was heard last.
    life_by_node: BTreeMap<NodeId, Incarnation>,
    /// Before that no stream has anything to send: in large clusters there are many, and hardly ever has one.
    silent_until: Timestamp,
}

impl Streams {
    /// Others stand ready from now on, or for other connections.
    pub(crate) fn set_backups(&mut self, backups: BTreeSet<NodeId>, now: Timestamp) {
        for backup in &backups {
            self.by_node.entry(*backup).and_modify(Stream::copy_anew);
        }
        self.backups = backups;
        self.begin_and_end(now);
    }

    /// Nodes that come to be owners know clients by then, whether they stand ready for anything or not.
    pub(crate) fn set_hearers(&mut self, hearers: BTreeSet<NodeId>, now: Timestamp) {
        if self.hearers != hearers {
            self.hearers = hearers;
            self.begin_and_end(now);
        }
    }

    /// A peer is heard in this life. One that has begun another has forgotten what it was told, and may not have been missed by
    /// anybody: then no map changes.
    pub(crate) fn note_life(&mut self, node: NodeId, life: Incarnation) {
        let before = self.life_by_node.insert(node, life);
        if before.is_some_and(|before| before != life) {
            self.by_node.entry(node).and_modify(Stream::copy_anew);
            self.wake();
        }
    }

    /// Forgets lives of nodes that nobody knows any more.
    pub(crate) fn retain_lives(&mut self, is_known: impl Fn(NodeId) -> bool) {
        self.life_by_node.retain(|node, _| is_known(*node));
    }

    fn begin_and_end(&mut self, now: Timestamp) {
        let Self { by_node, next_sequence, backups, hearers, .. } = self;
        let is_told = |node: &NodeId| backups.contains(node) || hearers.contains(node);
        let ended = by_node.iter().filter(|(node, _)| !is_told(node));
        *next_sequence = ended.map(|(_, stream)| stream.end()).fold(*next_sequence, u64::max);
        by_node.retain(|node, _| is_told(node));
        for node in backups.union(hearers) {
            by_node.entry(*node).or_insert_with(|| Stream::new(BYTES_PER_SECOND, *next_sequence, now));
        }
        self.wake();
    }

    /// To every node: whoever takes over part of an address may meet any of its clients.
    pub(crate) fn tell_all(&mut self, copied: &Copied, now: Timestamp) {
        self.by_node.values_mut().for_each(|stream| stream.record(copied, now));
        self.wake();
    }

    /// What was said waits for nothing else to be said: others may need it soon.
    pub(crate) fn flush(&mut self, now: Timestamp) {
        self.by_node.values_mut().for_each(|stream| stream.flush(now));
        self.wake();
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Stream> {
        self.by_node.get(&node)
    }

    /// Has something recorded or acknowledged, if there is a stream to `node`.
    pub(crate) fn with(&mut self, node: NodeId, change: impl FnOnce(&mut Stream)) {
        if let Some(stream) = self.by_node.get_mut(&node) {
            change(stream);
            self.silent_until = self.silent_until.min(stream.next_at());
        }
    }

    /// The next message, and for whom. `page` as for [`Stream::poll`], of what a node has copies of.
    pub(crate) fn poll(
        &mut self,
        page: impl Fn(NodeId, usize, &mut dyn FnMut(&Copied)) -> Option<usize>,
        now: Timestamp,
    ) -> Option<(NodeId, Vec<u8>)> {
        if now < self.silent_until {
            return None;
        }
        let said = self.by_node.iter_mut().find_map(|(node, stream)| {
            let bytes = stream.poll(|from, tell| page(*node, from, tell), now)?;
            Some((*node, bytes))
        });
        if said.is_none() {
            self.silent_until = self.by_node.values().map(Stream::next_at).min().unwrap_or(now);
        }
        said
    }

    /// Any stream may have something to send.
    fn wake(&mut self) {
        self.silent_until = Timestamp::default();
    }

    /// Who is told of anything, in order.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.by_node.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_conntrack::sync::Message;

    const BACKUP: NodeId = NodeId(2);

    /// True if something is sent within a second; all of it arrives.
    fn is_told(streams: &mut Streams, now: Timestamp) -> bool {
        let later = now + std::time::Duration::from_secs(1);
        let mut is_told = false;
        while let Some((to, bytes)) = streams.poll(|_, _, _| None, later) {
            let Ok(Message::Batch { sequence, .. }) = Message::from_bytes(&bytes) else { panic!("no batch") };
            streams.with(to, |stream| stream.handle_ack(sequence + 1, 0, false));
            is_told = true;
        }
        is_told
    }

    #[test]
    fn a_backup_that_was_away_for_so_short_a_time_that_nobody_missed_it_is_told_everything_again() {
        let (mut streams, now) = (Streams::default(), Timestamp::from_millis(1000));
        streams.set_backups([BACKUP].into(), now);
        streams.note_life(BACKUP, Incarnation(1));
        assert!(is_told(&mut streams, now), "a snapshot");
        streams.note_life(BACKUP, Incarnation(1));
        assert!(!is_told(&mut streams, now));

        streams.note_life(BACKUP, Incarnation(2));

        assert!(is_told(&mut streams, now));
    }

    #[test]
    fn who_hears_of_clients_only_has_a_stream_as_long_as_it_does() {
        let (mut streams, now) = (Streams::default(), Timestamp::from_millis(1000));
        streams.set_backups([BACKUP].into(), now);
        streams.set_hearers([BACKUP, NodeId(3)].into(), now);
        streams.set_backups(BTreeSet::new(), now);
        assert!(streams.nodes().eq([BACKUP, NodeId(3)]));

        streams.set_hearers(BTreeSet::new(), now);

        assert_eq!(streams.nodes().count(), 0);
    }
}
