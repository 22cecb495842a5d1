//! Names of flows and of fragmented packets, and what is known about them.
//!
//! Flows of each IP version have maps of their own; [`NamedFlow`] says which one is meant.

use super::{Address, AddressV4, Port, mapped, unmapped};
use dpr_model::{ClientSocket, FlowKey as Flow, Protocol, ServiceSocket};
use std::net::IpAddr;

/// Name of a connection over IPv4, or of a flow of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(4))]
pub struct FlowKey {
    /// The client's port.
    pub client_port: Port,
    /// The service's port.
    pub service_port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// Padding.
    pub zero: [u8; 3],
    /// The client's address.
    pub client: AddressV4,
    /// The service address.
    pub service: AddressV4,
}

/// The same over IPv6. It begins as the other one does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(4))]
pub struct FlowKeyV6 {
    /// The client's port.
    pub client_port: Port,
    /// The service's port.
    pub service_port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// Padding.
    pub zero: [u8; 3],
    /// The client's address.
    pub client: Address,
    /// The service address.
    pub service: Address,
}

/// What the connection-forwarding table knows about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowEntry {
    /// The client's initial sequence number.
    pub generation: u32,
    /// When the entry is over, in ticks of the monotonic clock, which wrap.
    pub deadline: u32,
    /// Number of the node that terminates the connection.
    pub real_server: u16,
    /// A [`TcpState`](super::TcpState).
    pub state: u8,
    /// In which of this node's terms as the owner it was made; it is void in all others.
    pub term: u8,
}

/// In place of the state of a connection: a server on this node has reset it.
pub const RESET_HERE: u8 = 0xff;

/// What has become of a connection that others may have to go on with, or that a server on this node has reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Change {
    /// Name of the connection; addresses of IPv4 are mapped.
    pub flow: FlowKeyV6,
    /// What is known of it now.
    pub entry: FlowEntry,
}

impl Change {
    /// As the programs write it; `None` if it is not as long.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = Some(bytes).filter(|bytes| bytes.len() == size_of::<Self>())?;
        let flow = FlowKeyV6 {
            client_port: taken(&mut rest)?,
            service_port: taken(&mut rest)?,
            protocol: taken::<1>(&mut rest)?[0],
            zero: taken(&mut rest)?,
            client: taken(&mut rest)?,
            service: taken(&mut rest)?,
        };
        let entry = FlowEntry {
            generation: u32::from_ne_bytes(taken(&mut rest)?),
            deadline: u32::from_ne_bytes(taken(&mut rest)?),
            real_server: u16::from_ne_bytes(taken(&mut rest)?),
            state: taken::<1>(&mut rest)?[0],
            term: taken::<1>(&mut rest)?[0],
        };
        Some(Self { flow, entry })
    }

    /// The connection; `None` for what no build of this crate writes.
    pub fn flow(&self) -> Option<Flow> {
        let FlowKeyV6 { client, service, .. } = self.flow;
        let ends = match unmapped(service) {
            service @ IpAddr::V4(_) => (unmapped(client), service),
            // A client's address may look like a mapped one.
            service @ IpAddr::V6(_) => (client.into(), service),
        };
        flow_of(self.flow.protocol, ends, (self.flow.client_port, self.flow.service_port))
    }
}

fn taken<const LEN: usize>(rest: &mut &[u8]) -> Option<[u8; LEN]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

/// A flow's name in the maps of its IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamedFlow {
    /// In those of IPv4.
    V4(FlowKey),
    /// In those of IPv6.
    V6(FlowKeyV6),
}

impl From<&Flow> for NamedFlow {
    fn from(flow: &Flow) -> Self {
        let client_port = flow.client.port.to_be_bytes();
        let service_port = flow.service.port.to_be_bytes();
        let protocol = flow.protocol.number();
        match (flow.client.address, flow.service.address) {
            (IpAddr::V4(client), IpAddr::V4(service)) => Self::V4(FlowKey {
                client_port,
                service_port,
                protocol,
                zero: [0; 3],
                client: client.octets(),
                service: service.octets(),
            }),
            (client, service) => Self::V6(FlowKeyV6 {
                client_port,
                service_port,
                protocol,
                zero: [0; 3],
                client: mapped(client),
                service: mapped(service),
            }),
        }
    }
}

impl FlowKey {
    /// The flow; `None` for what no build of this crate writes.
    pub fn flow(&self) -> Option<Flow> {
        let ports = (self.client_port, self.service_port);
        flow_of(self.protocol, (self.client.into(), self.service.into()), ports)
    }
}

impl FlowKeyV6 {
    /// The flow; `None` for what no build of this crate writes.
    pub fn flow(&self) -> Option<Flow> {
        let ports = (self.client_port, self.service_port);
        flow_of(self.protocol, (self.client.into(), self.service.into()), ports)
    }
}

fn flow_of(protocol: u8, ends: (IpAddr, IpAddr), ports: (Port, Port)) -> Option<Flow> {
    Some(Flow {
        protocol: Protocol::from_number(protocol)?,
        client: ClientSocket { address: ends.0, port: u16::from_be_bytes(ports.0) },
        service: ServiceSocket { address: ends.1, port: u16::from_be_bytes(ports.1) },
    })
}

/// What all fragments of a packet have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct FragmentKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Identification, in the processor's byte order.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Padding.
    pub zero: [u8; 3],
}

/// What the first one said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct FragmentPorts {
    /// The client's port.
    pub client_port: Port,
    /// The service's port.
    pub service_port: Port,
    /// When it is forgotten, in ticks of the monotonic clock, which wrap.
    pub deadline: u32,
}
