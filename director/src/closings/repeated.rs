//! What other nodes are told about connections until they react, a few times at most.

use dpr_conntrack::sync::{LIST_MAX, named_len};
use dpr_model::{FlowKey, NodeId, Timestamp};
use hashbrown::HashMap;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How often it is said. Of what is lost with a probability of a tenth, a thousandth is never heard.
const TIMES: u8 = 3;
/// Until it is said again: more than the way there and back and two looks at what there is to say.
const AGAIN: Duration = Duration::from_millis(250);

/// Connections, each with the node that has to hear of it and what it is to hear.
#[derive(Debug)]
pub(super) struct Repeated<T> {
    item_by_flow: HashMap<FlowKey, Item<T>>,
    /// To be said now.
    due: BTreeMap<NodeId, VecDeque<FlowKey>>,
    /// Said, in the order in which it is said again. What was reacted to stays until then.
    said: VecDeque<(Timestamp, FlowKey)>,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Item<T> {
    to: NodeId,
    what: T,
    times: u8,
    is_due: bool,
}

impl<T: Copy + PartialEq> Repeated<T> {
    /// Room for `capacity` connections.
    pub(super) fn new(capacity: usize) -> Self {
        Self { item_by_flow: HashMap::new(), due: BTreeMap::new(), said: VecDeque::new(), capacity }
    }

    /// Says it to a node from now on, and nothing else of this connection. What is being said already begins anew. False if
    /// there is no room.
    pub(super) fn say(&mut self, to: NodeId, flow: FlowKey, what: T) -> bool {
        if let Some(item) = self.item_by_flow.get_mut(&flow)
            && item.to == to
        {
            if item.what != what {
                *item = Item { what, times: 0, ..*item };
            }
            return true;
        }
        if !self.has_room_for(1) {
            return false;
        }
        self.item_by_flow.insert(flow, Item { to, what, times: 0, is_due: true });
        self.due.entry(to).or_default().push_back(flow);
        true
    }

    /// What is said about a connection, and to whom.
    pub(super) fn get(&self, flow: &FlowKey) -> Option<(NodeId, T)> {
        self.item_by_flow.get(flow).map(|item| (item.to, item.what))
    }

    /// Somebody has reacted: nothing more is said.
    pub(super) fn take(&mut self, flow: &FlowKey) {
        self.item_by_flow.remove(flow);
    }

    /// What to say to which node now, as much as one message has room for. To be called until it returns `None`.
    pub(super) fn poll(&mut self, now: Timestamp) -> Option<(NodeId, Vec<(FlowKey, T)>)> {
        self.find_due(now);
        while let Some(mut first) = self.due.first_entry() {
            let to = *first.key();
            let (mut list, mut len) = (Vec::new(), 0);
            while let Some(flow) = first.get().front().copied()
                && len + named_len(&flow) <= LIST_MAX
            {
                first.get_mut().pop_front();
                let Some(item) = self.item_by_flow.get_mut(&flow).filter(|item| item.to == to) else {
                    continue;
                };
                item.times += 1;
                item.is_due = false;
                len += named_len(&flow);
                list.push((flow, item.what));
                self.said.push_back((now + AGAIN, flow));
            }
            if first.get().is_empty() {
                first.remove();
            }
            if !list.is_empty() {
                return Some((to, list));
            }
        }
        None
    }

    /// True if that many connections more can be said something of.
    pub(super) fn has_room_for(&self, connections: usize) -> bool {
        self.item_by_flow.len().max(self.said.len()) + connections <= self.capacity
    }

    /// Nobody has reacted to what is due again; after the last time nobody will.
    fn find_due(&mut self, now: Timestamp) {
        while let Some((at, flow)) = self.said.front().copied()
            && at <= now
        {
            self.said.pop_front();
            let Some(item) = self.item_by_flow.get_mut(&flow).filter(|item| !item.is_due) else { continue };
            if item.times < TIMES {
                item.is_due = true;
                self.due.entry(item.to).or_default().push_back(flow);
            } else {
                self.item_by_flow.remove(&flow);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::{ClientSocket, Protocol, ServiceSocket};

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn flow(port: u16) -> FlowKey {
        FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address: [192, 0, 2, 1].into(), port },
            service: ServiceSocket { address: [192, 0, 2, 2].into(), port: 80 },
        }
    }

    #[test]
    fn what_nobody_reacts_to_is_said_three_times() {
        let mut repeated = Repeated::new(8);
        repeated.say(A, flow(1), 7);
        let mut polled = |millis| repeated.poll(at(millis));

        assert_eq!(polled(0), Some((A, vec![(flow(1), 7)])));
        assert_eq!(polled(249), None);
        assert_eq!(polled(250), Some((A, vec![(flow(1), 7)])));
        assert_eq!(polled(500), Some((A, vec![(flow(1), 7)])));
        assert_eq!(polled(5000), None);
        assert!(repeated.item_by_flow.is_empty());
    }

    #[test]
    fn nothing_more_is_said_after_a_reaction() {
        let mut repeated = Repeated::new(8);
        repeated.say(A, flow(1), ());
        assert!(repeated.poll(at(0)).is_some());

        repeated.take(&flow(1));

        assert_eq!(repeated.poll(at(250)), None);
    }

    #[test]
    fn what_begins_anew_is_said_once_now() {
        let mut repeated = Repeated::new(8);
        repeated.say(A, flow(1), 7);
        assert!(repeated.poll(at(0)).is_some());
        repeated.take(&flow(1));

        repeated.say(A, flow(1), 8);

        assert_eq!(repeated.poll(at(250)), Some((A, vec![(flow(1), 8)])));
        assert_eq!(repeated.poll(at(250)), None);
    }

    #[test]
    fn each_node_hears_its_own_in_messages_that_are_not_too_long() {
        let mut repeated = Repeated::new(1000);
        for port in 0..100 {
            repeated.say(if port % 2 == 0 { A } else { B }, flow(port), ());
        }
        repeated.say(A, flow(1), ());

        let mut heard = BTreeMap::from([(A, 0), (B, 0)]);
        while let Some((to, list)) = repeated.poll(at(0)) {
            assert!(list.len() * named_len(&flow(1)) <= LIST_MAX);
            *heard.get_mut(&to).unwrap() += list.len();
        }

        assert_eq!(heard, BTreeMap::from([(A, 51), (B, 49)]));
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more_until_they_would_be_said_again() {
        let mut repeated = Repeated::new(2);
        assert!(repeated.say(A, flow(1), ()) && repeated.say(A, flow(2), ()));
        assert!(!repeated.say(A, flow(3), ()));
        let _ = repeated.poll(at(0));
        repeated.take(&flow(1));
        repeated.take(&flow(2));
        assert!(!repeated.say(A, flow(3), ()));

        assert_eq!(repeated.poll(at(250)), None);

        assert!(repeated.say(A, flow(3), ()));
    }
}
