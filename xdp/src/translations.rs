//! Flows that user space translates, as the programs carry them on.
//!
//! Each is known by two names: that of the client's packets, which is the flow's, and that of the real server's. With half NAT
//! replies have no address of this node, so that only the first is entered.

use crate::abi::{HOPS_MAX, Hop, Translation, mapped, unmapped};
use crate::error::XdpError;
use crate::tables::{Tables, of};
use dpr_director::TranslatedFlow;
use dpr_model::{ClientSocket, FlowKey, NodeId, ServiceSocket};
use std::net::{IpAddr, SocketAddr};

impl Tables {
    /// Lets the programs carry on a flow. `hops` are the numbers of the neighbours towards the real server and towards the client;
    /// `now` in ticks of the monotonic clock.
    ///
    /// # Errors
    /// There is no room: then all of its packets are handed up, as before.
    pub fn enter_translation(
        &mut self,
        translated: &TranslatedFlow,
        [to_server, to_client]: [u16; 2],
        now: u32,
    ) -> Result<(), XdpError> {
        let forth = Translation { seen: now, hop: to_server, ..forth(translated) };
        self.translations.insert(&translated.flow, &forth)?;
        let Some((name, back)) = back(translated) else { return Ok(()) };
        let entered = self.translations.insert(&name, &Translation { seen: now, hop: to_client, ..back });
        if entered.is_err() {
            self.translations.remove(&translated.flow)?;
        }
        entered
    }

    /// From now on every packet of a flow is handed up.
    ///
    /// # Errors
    /// The map cannot be written.
    pub(crate) fn remove_translation(&mut self, translated: &TranslatedFlow) -> Result<(), XdpError> {
        self.translations.remove(&translated.flow)?;
        back(translated).map_or(Ok(()), |(name, _)| self.translations.remove(&name))
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
    pub(crate) fn remove_translations(&mut self) -> Result<(), XdpError> {
        let all = self.translations.entries(usize::MAX)?;
        all.iter().try_for_each(|(name, _)| self.translations.remove(name))?;
        (0..HOPS_MAX as u16).try_for_each(|number| self.set_hop(number, &Hop::default()))
    }
}

impl Translation {
    /// The flow that this says how to translate, and that has the name; `None` for its way back.
    pub fn of_flow(&self, name: &FlowKey) -> Option<TranslatedFlow> {
        if self.is_reply() {
            return None;
        }
        let [source, server] = self.ends(name);
        let client = SocketAddr::new(name.client.address, name.client.port);
        Some(TranslatedFlow {
            flow: *name,
            real_server: NodeId(self.real_server),
            server,
            stand_in: (source != client).then_some(source),
            generation: self.generation,
        })
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
        self.is_reply != 0
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

/// What a client's packets leave with.
fn forth(translated: &TranslatedFlow) -> Translation {
    let ClientSocket { address, port } = translated.flow.client;
    let source = translated.stand_in.unwrap_or(SocketAddr::new(address, port));
    between(source, translated.server, translated)
}

/// The name of a real server's packets, and what they leave with.
fn back(translated: &TranslatedFlow) -> Option<(FlowKey, Translation)> {
    let (FlowKey { protocol, client, service }, server) = (translated.flow, translated.server);
    let stand_in = translated.stand_in?;
    let name = FlowKey {
        protocol,
        client: ClientSocket { address: server.ip(), port: server.port() },
        service: ServiceSocket { address: stand_in.ip(), port: stand_in.port() },
    };
    let service = SocketAddr::new(service.address, service.port);
    let client = SocketAddr::new(client.address, client.port);
    Some((name, Translation { is_reply: 1, ..between(service, client, translated) }))
}

fn between(source: SocketAddr, destination: SocketAddr, translated: &TranslatedFlow) -> Translation {
    Translation {
        source: mapped(source.ip()),
        destination: mapped(destination.ip()),
        ports: [source, destination].map(|end| end.port().to_be_bytes()),
        generation: translated.generation,
        real_server: translated.real_server.0,
        ..Translation::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::Protocol;

    fn translated(stand_in: Option<SocketAddr>) -> TranslatedFlow {
        TranslatedFlow {
            flow: FlowKey {
                protocol: Protocol::Tcp,
                client: ClientSocket { address: [198, 51, 100, 7].into(), port: 4000 },
                service: ServiceSocket { address: [192, 0, 2, 1].into(), port: 80 },
            },
            real_server: NodeId(7),
            server: SocketAddr::from(([192, 0, 2, 2], 8080)),
            stand_in,
            generation: 9,
        }
    }

    #[test]
    fn a_flow_is_found_again_in_what_is_entered_of_it() {
        for stand_in in [None, Some(SocketAddr::from(([192, 0, 2, 1], 61_000)))] {
            let translated = translated(stand_in);
            assert_eq!(forth(&translated).of_flow(&translated.flow), Some(translated));
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
        assert_eq!(back(&translated(None)), None, "replies have no address of this node");
    }
}
