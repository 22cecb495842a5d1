//! What an earlier life of the daemon left in the maps.

use super::{Tables, of};
use crate::abi::{NODES_MAX, Node};
use crate::content::Content;
use crate::error::XdpError;
use aya::Pod;
use aya::maps::{Array, HashMap, MapData};
use std::collections::BTreeMap;

impl Tables {
    /// Reads what the maps hold, which an earlier life of the daemon wrote, and goes on from there. Lists of candidates are
    /// left out: they are written anew each time.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn read(&mut self) -> Result<&Content, XdpError> {
        let settings = self.settings.get(&0, 0).map_err(of("settings"))?;
        self.straight_ways.read()?;
        self.written = Content {
            settings,
            slots: self.slots.read(settings.bank, settings.slots())?,
            services: entries("services", &self.services)?,
            further_ports: entries("further_ports", &self.further_ports)?,
            addresses: entries("addresses", &self.addresses)?,
            shared_macs: entries("shared_macs", &self.shared_macs)?,
            deliveries: entries("deliveries", &self.deliveries)?,
            translators: entries("translators", &self.translators)?,
            node_by_address: entries("node_by_address", &self.node_by_address)?,
            nodes: nodes_in(&self.nodes)?,
            ..Content::default()
        };
        Ok(&self.written)
    }
}

/// Nodes that were ever written, by number.
pub(crate) fn nodes_in(map: &Array<MapData, Node>) -> Result<BTreeMap<u16, Node>, XdpError> {
    let mut nodes = BTreeMap::new();
    for number in 0..NODES_MAX as u32 {
        let node = map.get(&number, 0).map_err(of("nodes"))?;
        if node.flags != 0 {
            nodes.insert(number as u16, node);
        }
    }
    Ok(nodes)
}

/// Everything in a hash map.
pub(crate) fn entries<K: Pod + Ord, V: Pod>(
    name: &'static str,
    map: &HashMap<MapData, K, V>,
) -> Result<BTreeMap<K, V>, XdpError> {
    map.iter().collect::<Result<_, _>>().map_err(of(name))
}
