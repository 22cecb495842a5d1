//! What the local stack sends to clients of a service.

use crate::director::Director;
use crate::ownership::Service;
use dpr_model::{
    ClientSocket, DropReason, FlowKey, ForwardingMethod, Protocol, Reply, ServiceSocket, Sharing, Verdict,
};
use dpr_rewrite::{Kind, Packet, Version, tcp};

impl Director {
    pub(crate) fn reply_verdict(&self, packet: &Packet) -> Verdict {
        let delivery = packet.ip.source();
        if !self.deliveries.ranges().contains(delivery) {
            return Verdict::Pass;
        }
        match &packet.kind {
            Kind::Tcp(_) | Kind::Udp(_) | Kind::IcmpError(_) | Kind::Fragment(_) => {}
            Kind::EchoRequest | Kind::Other => return Verdict::Pass,
        }
        let Some(from) = self.deliveries.service_of(delivery) else {
            return Verdict::Drop(DropReason::UnknownDelivery);
        };
        if let Some(verdict) = self.answer_of_own_server(packet, from) {
            return verdict;
        }
        let to = packet.ip.destination();
        let flow_of = |service_port, client_port| FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address: to, port: client_port },
            service: ServiceSocket { address: from, port: service_port },
        };
        let mss_max = match &packet.kind {
            Kind::Tcp(header) if header.has(tcp::flag::SYN) => {
                self.mss_max(&flow_of(header.source_port(), header.destination_port()), packet)
            }
            _ => None,
        };
        Verdict::Reply(Reply { from, to, mss_max })
    }

    /// A server that resets a connection may have given up its socket without a word about whose it was: the kernel forgets the ends
    /// of a socket that is closed without waiting (`tcp_disconnect` in `net/ipv4/tcp.c`) before it tells of it.
    pub(crate) fn note_refusal(&mut self, reply: &Reply, packet: &Packet) {
        if let Kind::Tcp(header) = &packet.kind
            && header.has(tcp::flag::RST)
        {
            let client = ClientSocket { address: reply.to, port: header.destination_port() };
            let service = ServiceSocket { address: reply.from, port: header.source_port() };
            self.note_end_here(FlowKey { protocol: Protocol::Tcp, client, service });
        }
    }

    /// What a client may send so that it fits into the tunnel through which it comes, if it comes through one.
    fn mss_max(&self, flow: &FlowKey, packet: &Packet) -> Option<u16> {
        self.mss_max_of(self.ownership.service_of(flow), packet.ip.version())
    }

    /// The same for all flows of a service, or of none that is known any more.
    pub(crate) fn mss_max_of(&self, service: Option<Service>, version: Version) -> Option<u16> {
        let method = service.map_or(ForwardingMethod::default(), |service| service.method);
        let owner = service.map(|service| service.owner.node);
        if service.is_some_and(|service| service.sharing != Sharing::Home) {
            // Whatever the method, packets are handed to owners in tunnels, and owners change.
            let room = self.room_to(self.node, method.encapsulation());
            return Some(tcp::mss_max(room, 0, version));
        }
        match method {
            // Kept by its owner.
            _ if owner == Some(self.node) => None,
            ForwardingMethod::Dr | ForwardingMethod::Nat | ForwardingMethod::HalfNat => None,
            ForwardingMethod::Ipip | ForwardingMethod::Gue => {
                // The way to the owner was probed, and is taken for as wide as the way from there.
                let room = match owner {
                    Some(owner) => self.room_to(owner, method.encapsulation()),
                    None => self.room_to(self.node, method.encapsulation()),
                };
                Some(tcp::mss_max(room, 0, version))
            }
        }
    }
}
