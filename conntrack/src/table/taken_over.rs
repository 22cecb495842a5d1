//! Connections that another table had, with the state that they had there.

use crate::key::Key;
use crate::table::{EntryView, Table};
use crate::tcp_state::{Segment, TcpState};
use dpr_model::{FlowKey, Timestamp};

impl Table {
    /// Goes on with a connection of another table: with its generation and state, and with all the patience that the state
    /// has. Displaces nobody. False if there is no room; a connection that is known already stays as it is.
    pub fn take_over(&mut self, flow: &FlowKey, entry: EntryView, now: Timestamp) -> bool {
        let EntryView { real_server, state, generation } = entry;
        let known = self.get(flow);
        if known.is_some_and(|known| (known.generation, known.real_server) == (generation, real_server)) {
            return true;
        }
        let first = match state {
            TcpState::HalfOpen => Segment { syn: true, sequence: generation, ..Segment::default() },
            _ => Segment { ack: true, sequence: generation.wrapping_add(1), ..Segment::default() },
        };
        if !self.insert_if_room(flow, first, real_server, now) {
            return false;
        }
        if let Some((index, before)) = self.find(&Key::from(flow)).filter(|(_, before)| *before != state) {
            self.enter(index, before, state);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use dpr_model::{ClientSocket, NodeId, Protocol, ServiceSocket};

    const NOW: Timestamp = Timestamp::from_millis(1000);

    fn flow(client_port: u16) -> FlowKey {
        FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address: [192, 0, 2, 7].into(), port: client_port },
            service: ServiceSocket { address: [198, 51, 100, 1].into(), port: 80 },
        }
    }

    #[test]
    fn a_connection_goes_on_in_the_state_that_it_had_elsewhere() {
        let mut table = Table::new(Config::with_seed([1, 2]));
        for (port, state) in (1..).zip(TcpState::ALL) {
            let entry = EntryView { real_server: NodeId(2), state, generation: 77 };

            assert!(table.take_over(&flow(port), entry, NOW));

            assert_eq!(table.get(&flow(port)), Some(entry));
        }
        assert_eq!(table.active_at(NodeId(2)), 1);
        assert_eq!(table.status().half_open, 1);
    }

    #[test]
    fn what_is_known_already_is_not_set_back() {
        let mut table = Table::new(Config::with_seed([1, 2]));
        let entry = |state| EntryView { real_server: NodeId(2), state, generation: 77 };
        table.take_over(&flow(1), entry(TcpState::Fin), NOW);

        assert!(table.take_over(&flow(1), entry(TcpState::Established), NOW));

        assert_eq!(table.get(&flow(1)), Some(entry(TcpState::Fin)));
        assert_eq!(table.sent_to(NodeId(2)), 1);
    }

    #[test]
    fn a_full_table_takes_nothing_over() {
        let mut table = Table::new(Config { capacity: 1, ..Config::with_seed([1, 2]) });
        let entry = EntryView { real_server: NodeId(2), state: TcpState::Established, generation: 77 };
        assert!(table.take_over(&flow(1), entry, NOW));

        assert!(!table.take_over(&flow(2), entry, NOW));

        assert_eq!(table.get(&flow(1)), Some(entry));
    }
}
