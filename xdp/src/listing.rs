//! Entries of the tables of connections as people are shown them.

use crate::abi::{Address, FlowEntry, FlowKey, Port, TICK_SHIFT};
use crate::error::XdpError;
use crate::mirror::Mirror;
use crate::tables::{Connections, Tables};
use dpr_model::status::Connection;
use dpr_model::{ClientSocket, FlowKey as Flow, Protocol, ServiceSocket};
use std::net::{IpAddr, Ipv4Addr};

/// By [`crate::abi::TcpState`], as `dpr_conntrack::TcpState` names them.
const STATES: [&str; crate::abi::TCP_STATES] = ["half-open", "established", "fin", "reset", "closed"];

impl Mirror {
    /// At most `limit` connections that are not over, those beyond the handshake first; `now` in ticks of the monotonic
    /// clock.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn connections(&self, tables: &Tables, limit: usize, now: u32) -> Result<Vec<Connection>, XdpError> {
        let mut listed = Vec::new();
        for table in Connections::ALL {
            let entries = tables.connections(table, limit)?.into_iter();
            listed.extend(entries.filter_map(|(flow, entry)| self.connection(&flow, &entry, now)));
        }
        listed.truncate(limit);
        Ok(listed)
    }

    /// `None` for what is over, and what no build of this crate writes.
    fn connection(&self, flow: &FlowKey, entry: &FlowEntry, now: u32) -> Option<Connection> {
        let left = u64::try_from(entry.ticks_left(now)).ok().filter(|left| *left > 0)?;
        let client = ClientSocket { address: address(flow.client), port: port(flow.client_port) };
        let service = ServiceSocket { address: address(flow.service), port: port(flow.service_port) };
        let is_of = |protocol: &Protocol| protocol.number() == flow.protocol;
        let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(is_of)?;
        Some(Connection {
            flow: Flow { protocol, client, service },
            state: (*STATES.get(usize::from(entry.state))?).to_owned(),
            real_server: self.node(entry.real_server)?,
            generation: entry.generation,
            // Fewer than 2^32 ticks of 2^20 ns.
            expires_in_s: (left << TICK_SHIFT).div_ceil(1_000_000_000) as u32,
        })
    }
}

fn address(octets: Address) -> IpAddr {
    Ipv4Addr::from(octets).into()
}

fn port(bytes: Port) -> u16 {
    u16::from_be_bytes(bytes)
}
