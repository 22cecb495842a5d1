//! What the maps should hold, all of it, as plain values.

use crate::abi::{
    Address, Candidates, Delivery, FurtherPorts, Home, MacKey, Node, Service, ServiceKey, Settings, Slot,
    Translator,
};
use dpr_model::{MacAddress, PortRange};
use std::collections::BTreeMap;

/// The wanted content of every map that user space fills.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// For every packet; `bank` is the writer's, and so is a `flood_from` of 0.
    pub settings: Settings,
    /// Service sockets of the cluster.
    pub services: BTreeMap<ServiceKey, Service>,
    /// Ports that services have beside their own, by service address.
    pub further_ports: BTreeMap<Address, FurtherPorts>,
    /// Addresses, for packets without ports.
    pub addresses: BTreeMap<Address, Home>,
    /// Slots of the addresses that no node holds, in order; none before nodes have agreed on owners.
    pub slots: Vec<Slot>,
    /// MAC addresses that all nodes have; the values say nothing.
    pub shared_macs: BTreeMap<MacKey, u8>,
    /// Delivery addresses in use.
    pub deliveries: BTreeMap<Address, Delivery>,
    /// Nodes by number.
    pub nodes: BTreeMap<u16, Node>,
    /// Numbers by node address; this node's is among them, as its own client.
    pub node_by_address: BTreeMap<Address, u32>,
    /// Peers that translate, by the address that they send from.
    pub translators: BTreeMap<Address, Translator>,
    /// Ports of this node to which real servers answer what it translated.
    pub nat_ports: Option<PortRange>,
    /// Lists of candidates; services name them by position.
    pub candidates: Vec<Candidates>,
    /// Peers, services and candidates that did not fit, or that the programs cannot do. Their packets would pass to the
    /// kernel: with any of them, this data plane is not the one to use.
    pub left_out: usize,
}

/// Where packets to a node go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface.
    pub link: u32,
    /// MAC address of the interface.
    pub source: MacAddress,
    /// MAC address of the next hop.
    pub destination: MacAddress,
}
