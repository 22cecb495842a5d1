//! What a packet is about.

use crate::ownership::{Home, OwnershipMap, Service};
use dpr_conntrack::Segment;
use dpr_model::{ClientSocket, FlowKey, Protocol, ServiceSocket};
use dpr_rewrite::tcp::{TcpHeader, flag};
use dpr_rewrite::{Kind, Packet, Piece};

/// What a packet from outside of a node is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject {
    /// A client's segment or datagram for a service, or an error about the answer to one.
    Flow(FlowKey, Service),
    /// A fragment for a service address.
    Fragment(Piece, Protocol, Home),
    /// An echo request to a service address.
    Echo(Home),
    /// No service.
    Nothing,
}

impl Subject {
    #[inline]
    pub(crate) fn of(packet: &Packet, ownership: &OwnershipMap) -> Self {
        match flow_of(packet) {
            Some(flow) => Self::of_flow(flow, ownership),
            None => Self::of_other(packet, ownership),
        }
    }

    /// Of what is no whole segment or datagram.
    pub(crate) fn of_other(packet: &Packet, ownership: &OwnershipMap) -> Self {
        let address = packet.ip.destination();
        let home = || ownership.home_of(address, packet.ip.source());
        match &packet.kind {
            Kind::IcmpError(quote) => {
                // The error is about a reply: its sender was the service, its receiver the client.
                let flow = FlowKey {
                    protocol: quote.protocol,
                    client: ClientSocket { address: quote.destination, port: quote.destination_port },
                    service: ServiceSocket { address, port: quote.source_port },
                };
                Self::of_flow(flow, ownership)
            }
            Kind::Fragment(piece) => match (Protocol::from_number(packet.ip.protocol()), home()) {
                (Some(protocol), Some(home)) => Self::Fragment(*piece, protocol, home),
                _ => Self::Nothing,
            },
            Kind::EchoRequest => home().map_or(Self::Nothing, Self::Echo),
            Kind::Tcp(_) | Kind::Udp(_) | Kind::Other => Self::Nothing,
        }
    }

    fn of_flow(flow: FlowKey, ownership: &OwnershipMap) -> Self {
        ownership.service_of(&flow).map_or(Self::Nothing, |service| Self::Flow(flow, service))
    }
}

/// The flow of a whole segment or datagram, if it is one and comes from a client.
#[inline(always)]
pub(crate) fn flow_of(packet: &Packet) -> Option<FlowKey> {
    let (protocol, source_port, port) = match &packet.kind {
        Kind::Tcp(header) => (Protocol::Tcp, header.source_port(), header.destination_port()),
        Kind::Udp(header) => (Protocol::Udp, header.source_port, header.destination_port),
        Kind::IcmpError(_) | Kind::Fragment(_) | Kind::EchoRequest | Kind::Other => return None,
    };
    Some(FlowKey {
        protocol,
        client: ClientSocket { address: packet.ip.source(), port: source_port },
        service: ServiceSocket { address: packet.ip.destination(), port },
    })
}

/// What a segment or datagram means to the connection-forwarding table, and whether it may begin a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) segment: Segment,
    pub(crate) opens: bool,
}

impl Step {
    /// Of UDP, every datagram may be the first of a flow.
    pub(crate) const DATAGRAM: Self = Self { segment: Segment::DATAGRAM, opens: true };

    pub(crate) fn of_tcp(header: &TcpHeader) -> Self {
        let segment = Segment {
            syn: header.has(flag::SYN),
            ack: header.has(flag::ACK),
            fin: header.has(flag::FIN),
            rst: header.has(flag::RST),
            sequence: header.sequence(),
        };
        let opening = header.flags() & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN;
        Self { segment, opens: opening }
    }
}
