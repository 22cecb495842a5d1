//! From what nodes report to what can be named.

use crate::table::{AddressTable, ServiceAddress};
use dpr_model::{LoadPermille, NodeState, Weight};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A service address, and how the node is that is home to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Service port.
    pub port: u16,
    /// Service address.
    pub address: IpAddr,
    /// Whether the server behind it accepts connections.
    pub healthy: bool,
    /// Whether the node is heard of.
    pub alive: bool,
    /// What the node says of itself.
    pub state: NodeState,
    /// The operator's preference.
    pub weight: Weight,
    /// Load index.
    pub load: LoadPermille,
}

/// Why an address is not named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// An operator took it out.
    Excluded,
    /// The operator's preference for its node is 0.
    Weightless,
    /// Its node is not heard of.
    Silent,
    /// Its node takes no new connections.
    Inactive(NodeState),
    /// The server behind it accepts no connections.
    Unhealthy,
}

impl Absence {
    /// The word for it in status.
    pub fn label(self) -> &'static str {
        match self {
            Self::Excluded => "excluded",
            Self::Weightless => "weight 0",
            Self::Silent => "silent",
            Self::Inactive(state) => state.label(),
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Decides which addresses are named.
///
/// Named are those of healthy servers on active nodes of a positive weight. Where a port has none, its last ones are
/// named still: an address that may work is better than none, and when everybody looks dead, it is likelier that this
/// node is cut off. Addresses that the operator has excluded are never named.
#[derive(Clone, Debug)]
pub struct Membership {
    keep_dead: bool,
    hot_from: LoadPermille,
    last_good: BTreeMap<u16, Vec<ServiceAddress>>,
}

impl Membership {
    /// `keep_dead` goes on to name addresses of nodes that died, for clusters where live nodes take them over; from
    /// `hot_from` on a node is hot.
    pub fn new(keep_dead: bool, hot_from: LoadPermille) -> Self {
        Self { keep_dead, hot_from, last_good: BTreeMap::new() }
    }

    /// From now on a node is hot from this load on.
    pub fn set_hot_from(&mut self, hot_from: LoadPermille) {
        self.hot_from = hot_from;
    }

    /// What can be named now.
    pub fn table(&mut self, homes: &[Home], excluded: &BTreeSet<IpAddr>) -> AddressTable {
        let named = homes.iter().filter(|home| self.absence(home).is_none());
        let entries = named.map(|home| (home.port, self.entry(home)));
        let good = AddressTable::new(entries);
        for (port, addresses) in good.ports() {
            self.last_good.insert(port, addresses.to_vec());
        }
        let kept = self
            .last_good
            .iter()
            .flat_map(|(port, addresses)| addresses.iter().map(move |entry| (*port, *entry)));
        AddressTable::new(kept.filter(|(_, entry)| !excluded.contains(&entry.address)))
    }

    /// Which addresses `table` does not name, and why; one that several nodes have, as often as it has reasons.
    pub fn left_out(
        &self,
        homes: &[Home],
        excluded: &BTreeSet<IpAddr>,
        table: &AddressTable,
    ) -> Vec<(u16, IpAddr, Absence)> {
        let is_named =
            |home: &Home| table.addresses(home.port).iter().any(|entry| entry.address == home.address);
        let reason = |home: &Home| {
            let absence =
                if excluded.contains(&home.address) { Some(Absence::Excluded) } else { self.absence(home) };
            absence.map(|absence| (home.port, home.address, absence))
        };
        homes.iter().filter(|home| !is_named(home)).filter_map(reason).collect()
    }

    fn absence(&self, home: &Home) -> Option<Absence> {
        let is_active = home.state == NodeState::Active;
        if home.weight.0 == 0 {
            Some(Absence::Weightless)
        } else if !home.alive {
            (!(self.keep_dead && is_active)).then_some(Absence::Silent)
        } else if !is_active {
            Some(Absence::Inactive(home.state))
        } else {
            (!home.healthy).then_some(Absence::Unhealthy)
        }
    }

    fn entry(&self, home: &Home) -> ServiceAddress {
        let hot = home.load >= self.hot_from;
        ServiceAddress { address: home.address, weight: home.weight.0.into(), hot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(last: u8) -> Home {
        Home {
            port: 80,
            address: [192, 0, 2, last].into(),
            healthy: true,
            alive: true,
            state: NodeState::Active,
            weight: Weight::ORDINARY,
            load: LoadPermille(100),
        }
    }

    fn membership() -> Membership {
        Membership::new(false, LoadPermille(700))
    }

    fn named(table: &AddressTable) -> Vec<u8> {
        let last = |entry: &ServiceAddress| match entry.address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => 0,
        };
        table.addresses(80).iter().map(last).collect()
    }

    #[test]
    fn only_healthy_servers_of_active_nodes_are_named() {
        let homes = [
            home(1),
            Home { healthy: false, ..home(2) },
            Home { alive: false, ..home(3) },
            Home { state: NodeState::Joining, ..home(4) },
            Home { state: NodeState::Draining, ..home(5) },
            Home { weight: Weight(0), ..home(6) },
        ];

        assert_eq!(named(&membership().table(&homes, &BTreeSet::new())), [1]);
    }

    #[test]
    fn with_takeover_the_dead_are_named_and_those_that_left_are_not() {
        let homes = [
            home(1),
            Home { alive: false, ..home(2) },
            Home { alive: false, state: NodeState::Leaving, ..home(3) },
        ];

        let table = Membership::new(true, LoadPermille(700)).table(&homes, &BTreeSet::new());

        assert_eq!(named(&table), [1, 2]);
    }

    #[test]
    fn without_a_healthy_node_the_last_good_ones_are_named_but_never_the_excluded() {
        let mut membership = membership();
        membership.table(&[home(1), home(2)], &BTreeSet::new());
        let dead = [1, 2].map(|last| Home { healthy: false, ..home(last) });

        assert_eq!(named(&membership.table(&dead, &BTreeSet::new())), [1, 2]);
        assert_eq!(named(&membership.table(&dead, &BTreeSet::from([home(1).address]))), [2]);
        assert_eq!(named(&membership.table(&[home(3)], &BTreeSet::new())), [3]);
    }

    #[test]
    fn every_address_that_is_not_named_has_a_reason() {
        let homes = [
            home(1),
            Home { healthy: false, ..home(2) },
            Home { alive: false, ..home(3) },
            Home { state: NodeState::Draining, ..home(4) },
            Home { weight: Weight(0), ..home(5) },
            home(6),
            // Another node has this one too.
            Home { state: NodeState::Joining, ..home(1) },
        ];
        let excluded = BTreeSet::from([home(6).address]);
        let mut membership = membership();
        let table = membership.table(&homes, &excluded);

        let left_out = membership.left_out(&homes, &excluded, &table);

        let words: Vec<&str> = left_out.iter().map(|(_, _, absence)| absence.label()).collect();
        assert_eq!(words, ["unhealthy", "silent", "draining", "weight 0", "excluded"]);
        assert!(
            left_out
                .iter()
                .map(|(port, address, _)| (*port, *address))
                .eq([2, 3, 4, 5, 6].map(|last| (80, home(last).address)))
        );
    }

    #[test]
    fn what_is_named_for_want_of_anything_better_is_not_left_out() {
        let mut membership = membership();
        membership.table(&[home(1)], &BTreeSet::new());
        let dead = [Home { alive: false, ..home(1) }];
        let table = membership.table(&dead, &BTreeSet::new());

        assert_eq!(membership.left_out(&dead, &BTreeSet::new(), &table), []);
    }

    #[test]
    fn a_loaded_node_is_hot() {
        let table =
            membership().table(&[home(1), Home { load: LoadPermille(700), ..home(2) }], &BTreeSet::new());

        let hot: Vec<bool> = table.addresses(80).iter().map(|entry| entry.hot).collect();
        assert_eq!(hot, [false, true]);
    }
}
