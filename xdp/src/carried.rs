//! Flows that user space decides about, as the programs carry them on.
//!
//! A translated one is known by two names: that of the client's packets, which is the flow's, and that of the real server's. With half NAT
//! replies have no address of this node, so that only the first is entered; so it is of what is sent on as it is.

use crate::abi::{Carried, HOPS_MAX, Hop, carried_flag, mapped, unmapped};
use crate::error::XdpError;
use crate::tables::{Tables, of};
use dpr_director::{CarriedFlow, Onward};
use dpr_model::{ClientSocket, FlowKey, NodeId, ServiceSocket};
use std::net::{IpAddr, SocketAddr};

/// Where a flow's packets go next, by numbers of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// To the node that terminates it.
    Node(u16),
    /// Translated, to the neighbours towards the real server and towards the client.
    Hops([u16; 2]),
}

impl Tables {
    /// Lets the programs carry on a flow in a term of this node as the owner, 0 where nobody else may own it; `now` in ticks of the
    /// monotonic clock.
    ///
    /// # Errors
    /// There is no room: then all of its packets are handed up, as before.
    pub fn enter_carried(
        &mut self,
        carried: &CarriedFlow,
        next: Next,
        term: u8,
        now: u32,
    ) -> Result<(), XdpError> {
        let [to_server, to_client] = match next {
            Next::Node(number) => [number; 2],
            Next::Hops(numbers) => numbers,
        };
        let forth = Carried { seen: now, next: to_server, term, ..forth(carried) };
        self.carried.insert(&carried.flow, &forth)?;
        let Some((name, back)) = back(carried) else { return Ok(()) };
        let entered = self.carried.insert(&name, &Carried { seen: now, next: to_client, ..back });
        if entered.is_err() {
            self.carried.remove(&carried.flow)?;
        }
        entered
    }

    /// From now on every packet of a flow is handed up.
    ///
    /// # Errors
    /// The map cannot be written.
    pub(crate) fn remove_carried(&mut self, carried: &CarriedFlow) -> Result<(), XdpError> {
        self.carried.remove(&carried.flow)?;
        back(carried).map_or(Ok(()), |(name, _)| self.carried.remove(&name))
    }

    /// Says where the neighbour with a number is, below [`HOPS_MAX`].
    ///
    /// # Errors
    /// There is no such number.
    pub fn set_hop(&mut self, number: u16, hop: &Hop) -> Result<(), XdpError> {
        debug_assert!(usize::from(number) < HOPS_MAX);
        self.hops.set(u32::from(number), hop, 0).map_err(of("hops"))
    }

    /// Removes all of them, and forgets where neighbours are.
    pub(crate) fn remove_all_carried(&mut self) -> Result<(), XdpError> {
        let all = self.carried.entries(usize::MAX)?;
        all.iter().try_for_each(|(name, _)| self.carried.remove(name))?;
        (0..HOPS_MAX as u16).try_for_each(|number| self.set_hop(number, &Hop::default()))
    }
}

impl Carried {
    /// The flow that this is about, and that has the name; `None` for the way back of a translated one.
    pub fn of_flow(&self, name: &FlowKey) -> Option<CarriedFlow> {
        if self.is_reply() {
            return None;
        }
        let [source, server] = self.ends(name);
        let client = SocketAddr::new(name.client.address, name.client.port);
        let onward = match self.is_as_sent() {
            true => Onward::AsSent,
            false => Onward::Translated { server, stand_in: (source != client).then_some(source) },
        };
        let real_server = NodeId(self.real_server);
        Some(CarriedFlow { flow: *name, real_server, generation: self.generation, onward })
    }

    /// The flow that this is of, by its own name or by that of its way back.
    pub fn flow(&self, name: &FlowKey) -> FlowKey {
        if !self.is_reply() {
            return *name;
        }
        let [service, client] = self.ends(name);
        FlowKey {
            protocol: name.protocol,
            client: ClientSocket { address: client.ip(), port: client.port() },
            service: ServiceSocket { address: service.ip(), port: service.port() },
        }
    }

    /// True for what a real server's packets leave with.
    pub fn is_reply(&self) -> bool {
        self.flags & carried_flag::REPLY != 0
    }

    /// True for packets that are sent on as they are.
    pub(crate) fn is_as_sent(&self) -> bool {
        self.flags & carried_flag::AS_SENT != 0
    }

    /// Source and destination that packets of this name leave with.
    fn ends(&self, name: &FlowKey) -> [SocketAddr; 2] {
        let address = |address| match name.service.address {
            IpAddr::V4(_) => unmapped(address),
            // An address may look like a mapped one.
            IpAddr::V6(_) => address.into(),
        };
        [(self.source, self.ports[0]), (self.destination, self.ports[1])]
            .map(|(octets, port)| SocketAddr::new(address(octets), u16::from_be_bytes(port)))
    }
}

/// What becomes of a client's packets.
fn forth(carried: &CarriedFlow) -> Carried {
    let ClientSocket { address, port } = carried.flow.client;
    match carried.onward {
        Onward::Translated { server, stand_in } => {
            between(stand_in.unwrap_or(SocketAddr::new(address, port)), server, carried)
        }
        Onward::AsSent => Carried { flags: carried_flag::AS_SENT, ..about(carried) },
    }
}

/// The name of a real server's packets, and what they leave with.
fn back(carried: &CarriedFlow) -> Option<(FlowKey, Carried)> {
    let Onward::Translated { server, stand_in: Some(stand_in) } = carried.onward else { return None };
    let FlowKey { protocol, client, service } = carried.flow;
    let name = FlowKey {
        protocol,
        client: ClientSocket { address: server.ip(), port: server.port() },
        service: ServiceSocket { address: stand_in.ip(), port: stand_in.port() },
    };
    let service = SocketAddr::new(service.address, service.port);
    let client = SocketAddr::new(client.address, client.port);
    Some((name, Carried { flags: carried_flag::REPLY, ..between(service, client, carried) }))
}

fn between(source: SocketAddr, destination: SocketAddr, carried: &CarriedFlow) -> Carried {
    Carried {
        source: mapped(source.ip()),
        destination: mapped(destination.ip()),
        ports: [source, destination].map(|end| end.port().to_be_bytes()),
        ..about(carried)
    }
}

/// What is for user space.
fn about(carried: &CarriedFlow) -> Carried {
    Carried { generation: carried.generation, real_server: carried.real_server.0, ..Carried::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::Protocol;

    fn carried(onward: Onward) -> CarriedFlow {
        CarriedFlow {
            flow: FlowKey {
                protocol: Protocol::Tcp,
                client: ClientSocket { address: [198, 51, 100, 7].into(), port: 4000 },
                service: ServiceSocket { address: [192, 0, 2, 1].into(), port: 80 },
            },
            real_server: NodeId(7),
            generation: 9,
            onward,
        }
    }

    fn translated(stand_in: Option<SocketAddr>) -> CarriedFlow {
        carried(Onward::Translated { server: SocketAddr::from(([192, 0, 2, 2], 8080)), stand_in })
    }

    #[test]
    fn a_flow_is_found_again_in_what_is_entered_of_it() {
        let stand_in = Some(SocketAddr::from(([192, 0, 2, 1], 61_000)));
        for flow in [carried(Onward::AsSent), translated(None), translated(stand_in)] {
            assert_eq!(forth(&flow).of_flow(&flow.flow), Some(flow));
        }
    }

    #[test]
    fn the_way_back_is_named_by_server_and_stand_in_and_leads_from_service_to_client() {
        let stand_in = SocketAddr::from(([192, 0, 2, 1], 61_000));
        let (name, back_to) = back(&translated(Some(stand_in))).unwrap();

        assert_eq!(name.to_string(), "tcp 192.0.2.2:8080 > 192.0.2.1:61000");
        assert_eq!(
            (back_to.source, back_to.destination),
            (mapped([192, 0, 2, 1].into()), mapped([198, 51, 100, 7].into()))
        );
        assert_eq!(back_to.ports, [80, 4000].map(u16::to_be_bytes));
        assert_eq!((back_to.flow(&name), back_to.of_flow(&name)), (translated(None).flow, None));
    }

    #[test]
    fn what_does_not_come_back_through_this_node_has_one_name() {
        assert_eq!([carried(Onward::AsSent), translated(None)].map(|flow| back(&flow)), [None, None]);
    }
}
