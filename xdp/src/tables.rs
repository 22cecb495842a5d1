//! The maps, typed: writing what a director knows, reading what the kernel counted.

mod bits;
mod connections;
mod restored;
mod slots;
mod straight;

pub use connections::Connections;
pub(crate) use connections::{Cursor, Table, opened};
pub(crate) use restored::{entries, nodes_in};
use slots::Slots;
use straight::{StraightWays, ways_of};

use crate::abi::{
    Address, Candidates, Carried, Change, Counters, Delivery, ErrorLimit, Flood, FlowEntry, FragmentKey,
    FragmentPorts, FurtherPorts, Home, Hop, LISTS_MAX, MacKey, NODES_MAX, Node, NodeCounts, SERVICES_MAX,
    Service, ServiceKey, Settings, Translator,
};
use crate::content::Content;
use crate::error::XdpError;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::{Ebpf, Pod};
use bits::{address_bits, port_bits};
use dpr_model::FlowKey as Flow;
use std::collections::BTreeMap;

/// The names of all maps, as in `bpf/maps.h`.
pub(crate) const MAPS: [&str; 30] = [
    "flows",
    "flows_v6",
    "half_open",
    "half_open_v6",
    "datagrams",
    "datagrams_v6",
    "carried",
    "carried_v6",
    "hops",
    "translators",
    "fragments",
    "changes",
    "services",
    "further_ports",
    "straight_ways",
    "service_ports",
    "address_bits",
    "shared_macs",
    "slots",
    "addresses",
    "deliveries",
    "nodes",
    "node_by_address",
    "counts_by_node",
    "candidate_lists",
    "settings",
    "counters",
    "error_limit",
    "flood",
    "clock",
];

/// Names of the maps of flows that user space decides about: for IPv4, and for IPv6.
pub(crate) const CARRIED: [&str; 2] = ["carried", "carried_v6"];

/// Every map of the programs.
pub struct Tables {
    settings: Array<MapData, Settings>,
    services: HashMap<MapData, ServiceKey, Service>,
    further_ports: HashMap<MapData, Address, FurtherPorts>,
    straight_ways: StraightWays,
    service_ports: Array<MapData, u64>,
    address_bits: Array<MapData, u64>,
    shared_macs: HashMap<MapData, MacKey, u8>,
    slots: Slots,
    addresses: HashMap<MapData, Address, Home>,
    fragments: HashMap<MapData, FragmentKey, FragmentPorts>,
    changes: RingBuf<MapData>,
    deliveries: HashMap<MapData, Address, Delivery>,
    translators: HashMap<MapData, Address, Translator>,
    pub(crate) carried: Table<Carried>,
    pub(crate) hops: Array<MapData, Hop>,
    nodes: Array<MapData, Node>,
    node_by_address: HashMap<MapData, Address, u32>,
    candidates: Array<MapData, Candidates>,
    counts_by_node: Array<MapData, NodeCounts>,
    counters: PerCpuArray<MapData, Counters>,
    error_limit: Array<MapData, ErrorLimit>,
    flood: Array<MapData, Flood>,
    /// By position in [`Connections::ALL`].
    connections: [Table; 3],
    written: Content,
}

impl Tables {
    /// Takes the maps out of a loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, XdpError> {
        Ok(Self {
            settings: take(ebpf, "settings")?,
            services: take(ebpf, "services")?,
            further_ports: take(ebpf, "further_ports")?,
            straight_ways: StraightWays::take(ebpf)?,
            service_ports: take(ebpf, "service_ports")?,
            address_bits: take(ebpf, "address_bits")?,
            shared_macs: take(ebpf, "shared_macs")?,
            slots: Slots::take(ebpf)?,
            addresses: take(ebpf, "addresses")?,
            fragments: take(ebpf, "fragments")?,
            changes: take(ebpf, "changes")?,
            deliveries: take(ebpf, "deliveries")?,
            translators: take(ebpf, "translators")?,
            carried: Table::take(ebpf, CARRIED)?,
            hops: take(ebpf, "hops")?,
            nodes: take(ebpf, "nodes")?,
            node_by_address: take(ebpf, "node_by_address")?,
            candidates: take(ebpf, "candidate_lists")?,
            counts_by_node: take(ebpf, "counts_by_node")?,
            counters: take(ebpf, "counters")?,
            error_limit: take(ebpf, "error_limit")?,
            flood: take(ebpf, "flood")?,
            connections: [
                Table::take(ebpf, Connections::Flows.names())?,
                Table::take(ebpf, Connections::HalfOpen.names())?,
                Table::take(ebpf, Connections::Datagrams.names())?,
            ],
            written: Content::default(),
        })
    }

    /// Makes the maps hold `content`. Packets never see a reference to what is not there yet: nodes come before what names
    /// them and go after it, lists of candidates and slots are written where nobody looks until the settings say so, and a right is
    /// not prolonged before it is known what it is to.
    ///
    /// # Errors
    /// The kernel refused an entry; the maps then hold some of the old and some of the new content.
    pub fn write(&mut self, content: &Content) -> Result<(), XdpError> {
        let straight_ways = ways_of(content);
        self.straight_ways.close(&straight_ways)?;
        for (number, node) in &content.nodes {
            if self.written.nodes.get(number) != Some(node) {
                self.nodes.set(u32::from(*number), node, 0).map_err(of("nodes"))?;
            }
        }
        let old = &self.written;
        add("node_by_address", &mut self.node_by_address, &old.node_by_address, &content.node_by_address)?;
        let flood_from = match content.settings.flood_from {
            0 => self.flood_from()?,
            given => given,
        };
        let settings = Settings { bank: old.settings.bank ^ 1, flood_from, ..content.settings };
        let first = u32::from(settings.bank) * LISTS_MAX as u32;
        for (position, list) in (first..).zip(content.candidates.iter().take(LISTS_MAX)) {
            self.candidates.set(position, list, 0).map_err(of("candidate_lists"))?;
        }
        self.slots.write(settings.bank, &content.slots)?;
        // Nobody acts on what another node may own by now because of a right that is newer than its knowledge of that.
        let owns_until_ns = settings.owns_until_ns.min(old.settings.owns_until_ns);
        let is_told_of_owners = (&old.services, &old.further_ports, &old.addresses, &old.slots)
            == (&content.services, &content.further_ports, &content.addresses, &content.slots);
        let meanwhile = if is_told_of_owners { settings } else { Settings { owns_until_ns, ..settings } };
        self.settings.set(0, meanwhile, 0).map_err(of("settings"))?;
        add("shared_macs", &mut self.shared_macs, &old.shared_macs, &content.shared_macs)?;
        add("deliveries", &mut self.deliveries, &old.deliveries, &content.deliveries)?;
        add("translators", &mut self.translators, &old.translators, &content.translators)?;
        add("addresses", &mut self.addresses, &old.addresses, &content.addresses)?;
        // What has no bit passes: bits come before what they stand for, and a bit too many does no harm.
        for (name, map, old, new) in [
            ("service_ports", &mut self.service_ports, port_bits(old), port_bits(content)),
            ("address_bits", &mut self.address_bits, address_bits(old), address_bits(content)),
        ] {
            for (word, bits) in new.iter().enumerate().filter(|(word, bits)| old[*word] != **bits) {
                map.set(word as u32, bits, 0).map_err(of(name))?;
            }
        }
        add("further_ports", &mut self.further_ports, &old.further_ports, &content.further_ports)?;
        add("services", &mut self.services, &old.services, &content.services)?;
        remove("services", &mut self.services, &old.services, &content.services)?;
        remove("further_ports", &mut self.further_ports, &old.further_ports, &content.further_ports)?;
        remove("shared_macs", &mut self.shared_macs, &old.shared_macs, &content.shared_macs)?;
        remove("addresses", &mut self.addresses, &old.addresses, &content.addresses)?;
        remove("translators", &mut self.translators, &old.translators, &content.translators)?;
        remove("deliveries", &mut self.deliveries, &old.deliveries, &content.deliveries)?;
        remove("node_by_address", &mut self.node_by_address, &old.node_by_address, &content.node_by_address)?;
        if meanwhile != settings {
            self.settings.set(0, settings, 0).map_err(of("settings"))?;
        }
        self.straight_ways.open(straight_ways)?;
        self.written = Content { settings, ..content.clone() };
        Ok(())
    }

    /// What was counted about the first `count` nodes, by number.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counts(&self, count: u16) -> Result<Vec<NodeCounts>, XdpError> {
        let end = u32::from(count).min(NODES_MAX as u32);
        (0..end).map(|number| self.counts_by_node.get(&number, 0).map_err(of("counts_by_node"))).collect()
    }

    /// What all processors counted.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Counters, XdpError> {
        let by_processor = self.counters.get(&0, 0).map_err(of("counters"))?;
        Ok(by_processor.iter().fold(Counters::default(), Counters::plus))
    }

    /// Forgets every connection and every count, and lets ICMP errors be sent again; for tests.
    ///
    /// # Errors
    /// A map cannot be read or written.
    pub fn clear(&mut self) -> Result<(), XdpError> {
        for connections in Connections::ALL {
            for (flow, _) in self.connections(connections, usize::MAX)? {
                self.remove(connections, &flow)?;
            }
        }
        self.remove_all_carried()?;
        while self.next_change().is_some() {}
        let fragments: Vec<FragmentKey> =
            self.fragments.keys().collect::<Result<_, _>>().map_err(of("fragments"))?;
        for key in fragments {
            self.fragments.remove(&key).map_err(of("fragments"))?;
        }
        for number in self.written.nodes.keys() {
            self.counts_by_node
                .set(u32::from(*number), NodeCounts::default(), 0)
                .map_err(of("counts_by_node"))?;
        }
        let processors = self.counters.get(&0, 0).map_err(of("counters"))?.len();
        let zeros = aya::maps::PerCpuValues::try_from(vec![Counters::default(); processors])
            .map_err(XdpError::Listing)?;
        self.counters.set(0, zeros, 0).map_err(of("counters"))?;
        self.flood.set(0, Flood::default(), 0).map_err(of("flood"))?;
        self.error_limit.set(0, ErrorLimit::default(), 0).map_err(of("error_limit"))
    }

    /// Some entries of a table of connections, and moves `cursor` behind them; at its start again when those were the last.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(crate) fn next_connections(
        &self,
        connections: Connections,
        cursor: &mut Cursor,
    ) -> Result<Vec<(Flow, FlowEntry)>, XdpError> {
        self.table(connections).next(cursor)
    }

    /// The entry of a connection.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn connection(&self, connections: Connections, flow: &Flow) -> Result<Option<FlowEntry>, XdpError> {
        self.table(connections).get(flow)
    }

    /// Entries of a table of connections in no particular order, `limit` at most.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn connections(
        &self,
        connections: Connections,
        limit: usize,
    ) -> Result<Vec<(Flow, FlowEntry)>, XdpError> {
        self.table(connections).entries(limit)
    }

    /// What has become of a connection that others may have to go on with, in order; `None` when there is nothing new. What no
    /// build of this crate writes is skipped.
    pub fn next_change(&mut self) -> Option<(Flow, FlowEntry)> {
        while let Some(bytes) = self.changes.next() {
            let change = Change::from_bytes(&bytes);
            if let Some((flow, change)) = change.and_then(|change| Some((change.flow()?, change))) {
                return Some((flow, change.entry));
            }
        }
        None
    }

    /// Entries in use and at most of the maps that user space fills, by name.
    pub fn fill(&self) -> [(&'static str, usize, usize); 5] {
        let Content { services, further_ports, addresses, deliveries, nodes, .. } = &self.written;
        [
            ("services", services.len(), SERVICES_MAX),
            ("further_ports", further_ports.len(), SERVICES_MAX),
            ("addresses", addresses.len(), SERVICES_MAX),
            ("deliveries", deliveries.len(), SERVICES_MAX),
            ("nodes", nodes.len(), NODES_MAX),
        ]
    }

    /// Memory that the kernel has set aside for the entries of IPv4 and of IPv6 in a table of connections, bytes; `None` before
    /// Linux 6.4, which does not say.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn memory_bytes(&self, connections: Connections) -> Result<[Option<u64>; 2], XdpError> {
        self.table(connections).memory_bytes()
    }

    /// Records a connection as if its packets had been seen; for a table that is taken over, and for tests.
    ///
    /// # Errors
    /// There is no room.
    pub fn insert(
        &mut self,
        connections: Connections,
        flow: &Flow,
        entry: &FlowEntry,
    ) -> Result<(), XdpError> {
        self.table_mut(connections).insert(flow, entry)
    }

    /// Writes anew what is known of a connection; one that is not there is no error, and stays unknown.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn replace(
        &mut self,
        connections: Connections,
        flow: &Flow,
        entry: &FlowEntry,
    ) -> Result<(), XdpError> {
        self.table_mut(connections).replace(flow, entry)
    }

    /// Forgets a connection; one that is not there is no error.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn remove(&mut self, connections: Connections, flow: &Flow) -> Result<(), XdpError> {
        self.table_mut(connections).remove(flow)
    }

    /// So many SYNs a second that a half-open entry is displaced after two seconds at the earliest: the LRU hash evicts before it
    /// is full, and a window that is counted may begin in the middle of a flood.
    fn flood_from(&self) -> Result<u32, XdpError> {
        Ok(self.table(Connections::HalfOpen).max_entries()?.div_ceil(4))
    }

    fn table(&self, connections: Connections) -> &Table {
        &self.connections[connections as usize]
    }

    fn table_mut(&mut self, connections: Connections) -> &mut Table {
        &mut self.connections[connections as usize]
    }
}

pub(crate) fn take<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, XdpError> {
    T::try_from(take_any(ebpf, name)?).map_err(of(name))
}

fn take_any(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, XdpError> {
    ebpf.take_map(name).ok_or(XdpError::Missing(name))
}

pub(crate) fn of(name: &'static str) -> impl Fn(MapError) -> XdpError {
    move |source| XdpError::Map { name, source }
}

/// Writes what is new or has changed.
fn add<K: Pod + Ord, V: Pod + PartialEq>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> Result<(), XdpError> {
    for (key, value) in new.iter().filter(|(key, value)| old.get(key) != Some(value)) {
        map.insert(key, value, 0).map_err(of(name))?;
    }
    Ok(())
}

/// Removes what is no longer wanted.
fn remove<K: Pod + Ord, V: Pod>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> Result<(), XdpError> {
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        map.remove(key).map_err(of(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_map_of_the_object_is_known_by_name() {
        let object = aya_obj::Object::parse(crate::OBJECT).unwrap();
        let in_object: BTreeSet<&str> = object.maps.keys().map(String::as_str).collect();
        assert_eq!(in_object, BTreeSet::from(MAPS));
    }
}
