//! Somebody who sees all nodes at once, and holds them against what the argument in `docs/ownership.md` rests on.
//!
//! That no slot has two owners is what comes of it; it takes luck to see that fail. The steps of the argument fail sooner.

use crate::node::Node;
use dpr_model::{MapVersion, NodeId, Timestamp};
use std::collections::BTreeMap;

/// What has been seen of all nodes, in all of their lives.
#[derive(Default)]
pub(crate) struct Observer {
    /// For whom each node voted, by term.
    vote_by_term: BTreeMap<(NodeId, u64), NodeId>,
    /// Latest term and map that each node has kept.
    kept_by_node: BTreeMap<NodeId, (u64, MapVersion)>,
    /// The bytes of every map.
    map_by_version: BTreeMap<MapVersion, Vec<u8>>,
    /// The latest map that some data plane took for settled.
    settled: MapVersion,
}

impl Observer {
    /// A node has said or done something. What is wrong, if anything is. `by_majority` says that every map has to descend from
    /// those that were settled before: a half that a witness backs need not have heard of them.
    pub(crate) fn look_at(&mut self, id: NodeId, node: &Node, by_majority: bool) -> Result<(), String> {
        let Some(daemon) = &node.daemon else { return Ok(()) };
        let map = daemon.map();
        let (term, version) = (daemon.term(), map.version());
        let before = self.kept_by_node.entry(id).or_default();
        if term < before.0 || version < before.1 {
            return Err(format!("{id} knew {before:?} and now only {:?}", (term, version)));
        }
        if term < version.term {
            return Err(format!("{id} has a map of term {} and takes part in term {term}", version.term));
        }
        if version > before.1 && version.term < before.0 {
            return Err(format!("{id} had voted in term {} and accepted {version:?}", before.0));
        }
        let made_from = before.1;
        let is_news = (term, version) != *before;
        *before = (term, version);
        let kept = node.saved.as_deref().and_then(kept_of);
        if kept.is_none_or(|(kept, _)| kept != term) && term > 0 {
            return Err(format!("{id} takes part in term {term} and has kept {kept:?}"));
        }
        if let Some((kept_term, Some(vote))) = kept {
            let first = *self.vote_by_term.entry((id, kept_term)).or_insert(vote);
            if first != vote {
                return Err(format!("{id} voted for {first} and for {vote} in term {kept_term}"));
            }
        }
        if !is_news {
            return Ok(());
        }
        let bytes = map.to_bytes();
        if *self.map_by_version.entry(version).or_insert_with(|| bytes.clone()) != bytes {
            return Err(format!("two maps are {version:?}"));
        }
        let is_its_own = by_majority && version != made_from && version.coordinator == id.0;
        if is_its_own && made_from < self.settled && version > self.settled {
            return Err(format!(
                "{id} made {version:?} from {made_from:?}, and {:?} was settled",
                self.settled
            ));
        }
        Ok(())
    }

    /// Nobody acts by a map that is older than one which is settled: that is when everything that moved may be acted on. Without
    /// `by_majority` those count that are acted by now: a half that a witness backs need not have heard of others.
    pub(crate) fn look_at_rights(
        &mut self,
        nodes: &BTreeMap<NodeId, Node>,
        by_majority: bool,
        now: Timestamp,
    ) -> Result<(), String> {
        if !by_majority {
            self.settled = MapVersion::default();
        }
        let acting = |node: &Node| {
            let duty = node.plane.duty.as_ref().filter(|_| node.local(now) <= node.plane.until)?;
            Some((duty.map.version(), duty.settled, duty.map.base()))
        };
        for (version, settled, base) in nodes.values().filter_map(acting) {
            self.settled = self.settled.max(base);
            if settled {
                self.settled = self.settled.max(version);
            }
        }
        // Who is no member of the map that it acts by acts on nothing.
        let is_member =
            |id: &NodeId, node: &Node| node.plane.duty.as_ref().is_some_and(|duty| duty.map.has_member(*id));
        for (id, node) in nodes.iter().filter(|(id, node)| is_member(id, node)) {
            if let Some((version, ..)) = acting(node).filter(|(version, ..)| *version < self.settled) {
                return Err(format!("{id} acts by {version:?}, and {:?} is settled", self.settled));
            }
        }
        Ok(())
    }
}

/// Term and vote of what a node has kept.
fn kept_of(saved: &[u8]) -> Option<(u64, Option<NodeId>)> {
    let term = u64::from_be_bytes(saved.get(5..13)?.try_into().ok()?);
    let vote = u32::from_be_bytes(saved.get(14..18)?.try_into().ok()?);
    Some((term, (*saved.get(13)? != 0).then_some(NodeId(vote))))
}
