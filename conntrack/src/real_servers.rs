//! Real servers as two bytes, their counters, and what happens to their connections when they die.
//!
//! Entries name a *life* of a real server, not the node. Removing a real server ends its life, which strands its
//! connections at once, however many they are: each becomes a miss when it is next looked up, and a sweep gives back
//! the rest in bounded steps. Visiting them all on the spot would stall the packet path for milliseconds just when
//! a node has died. A node that comes back starts a new life; stranded entries stay stranded.

use dpr_model::NodeId;

/// Lives that can be told apart at one time.
const LIVES_MAX: usize = 1 << 16;

/// Number of a life of a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RealServerIndex(u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The node's present life.
    Present,
    /// The node was removed and has not come back.
    Over,
    /// The node has begun another life since.
    Superseded,
}

#[derive(Clone, Debug)]
struct Life {
    node: NodeId,
    standing: Standing,
    /// Entries that name this life.
    open: u32,
    /// Of those, established.
    active: u32,
    /// Connections ever given to the node, earlier lives included.
    sent: u64,
}

/// Real servers by number, and by node in their latest life.
#[derive(Debug, Default)]
pub(crate) struct RealServers {
    lives: Vec<Life>,
    /// Sorted by node.
    latest: Vec<(NodeId, RealServerIndex)>,
    /// Superseded lives that no entry names.
    vacant: Vec<RealServerIndex>,
    stranded: usize,
}

impl RealServers {
    /// The number of a node's present life, which begins if need be; `None` when all 65,536 numbers are in use.
    pub(crate) fn intern(&mut self, node: NodeId) -> Option<RealServerIndex> {
        let Some(latest) = self.latest(node) else { return self.begin(node, 0) };
        let life = self.life_mut(latest);
        if life.standing == Standing::Over && life.open > 0 {
            let sent = life.sent;
            let index = self.begin(node, sent)?;
            self.life_mut(latest).standing = Standing::Superseded;
            return Some(index);
        }
        life.standing = Standing::Present;
        Some(latest)
    }

    /// Ends a node's life. Returns how many connections that strands.
    pub(crate) fn end(&mut self, node: NodeId) -> usize {
        let Some(index) = self.latest(node) else { return 0 };
        let life = self.life_mut(index);
        if life.standing != Standing::Present {
            return 0;
        }
        life.standing = Standing::Over;
        let stranded = life.open as usize;
        self.stranded += stranded;
        stranded
    }

    /// Counts a new entry.
    pub(crate) fn open(&mut self, index: RealServerIndex) {
        let life = self.life_mut(index);
        life.sent += 1;
        life.open += 1;
    }

    /// Counts an entry that becomes established, or no longer is.
    pub(crate) fn count_active(&mut self, index: RealServerIndex, before: bool, after: bool) {
        let life = self.life_mut(index);
        life.active = life.active + u32::from(after) - u32::from(before);
    }

    /// Counts an entry that is no more.
    pub(crate) fn close(&mut self, index: RealServerIndex) {
        let life = self.life_mut(index);
        life.open -= 1;
        let (standing, open) = (life.standing, life.open);
        if standing != Standing::Present {
            self.stranded -= 1;
        }
        if standing == Standing::Superseded && open == 0 {
            self.vacant.push(index);
        }
    }

    pub(crate) fn node(&self, index: RealServerIndex) -> NodeId {
        self.life(index).node
    }

    /// The node, if entries that name this life are not stranded.
    #[inline]
    pub(crate) fn present(&self, index: RealServerIndex) -> Option<NodeId> {
        let life = self.life(index);
        (life.standing == Standing::Present).then_some(life.node)
    }

    /// Whether entries that name this life are stranded.
    pub(crate) fn is_over(&self, index: RealServerIndex) -> bool {
        self.life(index).standing != Standing::Present
    }

    /// Entries that name a life that is over.
    pub(crate) fn stranded(&self) -> usize {
        self.stranded
    }

    pub(crate) fn sent_to(&self, node: NodeId) -> u64 {
        self.latest(node).map_or(0, |index| self.life(index).sent)
    }

    pub(crate) fn open_at(&self, node: NodeId) -> u32 {
        let life = self.latest(node).map(|index| self.life(index));
        life.filter(|life| life.standing == Standing::Present).map_or(0, |life| life.open)
    }

    pub(crate) fn active_at(&self, node: NodeId) -> u32 {
        let life = self.latest(node).map(|index| self.life(index));
        life.filter(|life| life.standing == Standing::Present).map_or(0, |life| life.active)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.lives.capacity() * size_of::<Life>()
            + self.latest.capacity() * size_of::<(NodeId, RealServerIndex)>()
            + self.vacant.capacity() * size_of::<RealServerIndex>()
    }

    fn latest(&self, node: NodeId) -> Option<RealServerIndex> {
        let position = self.latest.binary_search_by_key(&node, |&(node, _)| node).ok()?;
        Some(self.latest[position].1)
    }

    fn begin(&mut self, node: NodeId, sent: u64) -> Option<RealServerIndex> {
        let life = Life { node, standing: Standing::Present, open: 0, active: 0, sent };
        let index = match self.vacant.pop() {
            Some(index) => index,
            None if self.lives.len() < LIVES_MAX => {
                self.lives.push(life.clone());
                RealServerIndex(u16::try_from(self.lives.len() - 1).ok()?)
            }
            None => self.forget_removed_node()?,
        };
        *self.life_mut(index) = life;
        match self.latest.binary_search_by_key(&node, |&(node, _)| node) {
            Ok(position) => self.latest[position].1 = index,
            Err(position) => self.latest.insert(position, (node, index)),
        }
        Some(index)
    }

    /// Gives up a removed node that no entry names, and its count with it.
    fn forget_removed_node(&mut self) -> Option<RealServerIndex> {
        let position = self.latest.iter().position(|&(_, index)| {
            let life = self.life(index);
            life.standing == Standing::Over && life.open == 0
        })?;
        Some(self.latest.remove(position).1)
    }

    #[inline]
    fn life(&self, index: RealServerIndex) -> &Life {
        &self.lives[usize::from(index.0)]
    }

    fn life_mut(&mut self, index: RealServerIndex) -> &mut Life {
        &mut self.lives[usize::from(index.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(7);
    const OTHER: NodeId = NodeId(8);

    #[test]
    fn a_returning_node_gets_a_new_number_while_entries_name_the_old_one() {
        let mut servers = RealServers::default();
        let first = servers.intern(NODE).unwrap();
        servers.open(first);

        assert_eq!(servers.end(NODE), 1);
        let second = servers.intern(NODE).unwrap();

        assert_ne!(first, second);
        assert!(servers.is_over(first) && !servers.is_over(second));
        assert_eq!((servers.sent_to(NODE), servers.open_at(NODE), servers.stranded()), (1, 0, 1));
    }

    #[test]
    fn a_returning_node_without_entries_keeps_its_number() {
        let mut servers = RealServers::default();
        let first = servers.intern(NODE).unwrap();
        servers.end(NODE);

        assert_eq!(servers.intern(NODE), Some(first));
        assert!(!servers.is_over(first));
    }

    #[test]
    fn a_number_is_used_again_when_its_last_entry_has_gone() {
        let mut servers = RealServers::default();
        let first = servers.intern(NODE).unwrap();
        servers.open(first);
        servers.end(NODE);
        servers.intern(NODE).unwrap();
        servers.close(first);

        assert_eq!(servers.intern(OTHER), Some(first));
        assert_eq!(servers.stranded(), 0);
        assert_eq!(servers.node(first), OTHER);
    }

    #[test]
    fn a_node_removed_twice_strands_its_connections_once() {
        let mut servers = RealServers::default();
        let index = servers.intern(NODE).unwrap();
        servers.open(index);

        assert_eq!((servers.end(NODE), servers.end(NODE), servers.end(OTHER)), (1, 0, 0));
        assert_eq!(servers.stranded(), 1);
    }

    #[test]
    fn when_all_numbers_are_in_use_only_a_removed_node_makes_room() {
        let mut servers = RealServers::default();
        for node in 0..=u32::from(u16::MAX) {
            assert!(servers.intern(NodeId(node)).is_some());
        }
        let newcomer = NodeId(1 << 20);

        assert_eq!(servers.intern(newcomer), None);
        servers.end(NODE);

        assert!(servers.intern(newcomer).is_some());
        assert_eq!(servers.intern(NODE), None);
    }
}
