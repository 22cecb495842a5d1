//! Clients that come and go by themselves.

use crate::client::Plan;
use crate::names::{client_address, flow};
use dpr_model::{ClientSocket, FlowKey, NodeId};
use dpr_rewrite::Version;
use fastrand::Rng;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// First address of clients that answer (TEST-NET-2, RFC 5737).
const CLIENTS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// Addresses that nobody has (TEST-NET-3, RFC 5737): what is sent there is lost.
pub(crate) const NOBODY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 0);

/// Who comes how often, and what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Mean time between two new connections.
    pub gap_mean: Duration,
    /// Connections that go to node A, permille; the others go anywhere.
    pub skew_permille: u16,
    /// Requests of a connection, 1 to this.
    pub requests_max: u32,
    /// Time between answer and request, up to this.
    pub think_max: Duration,
    /// Client addresses, 1 to 250. Few of them use their ports again soon.
    pub clients: u8,
    /// Ports that each of them uses; at least 1.
    pub ports: u16,
}

impl Default for Workload {
    /// 100 connections a second, half of them to node A, each for a second or two.
    fn default() -> Self {
        Self {
            gap_mean: Duration::from_millis(10),
            skew_permille: 500,
            requests_max: 5,
            think_max: Duration::from_millis(500),
            clients: 20,
            ports: 5000,
        }
    }
}

impl Workload {
    /// Time until the next connection: even between nothing and twice the mean.
    pub(crate) fn gap(&self, rng: &mut Rng) -> Duration {
        let twice_ns = u64::try_from(self.gap_mean.as_nanos() * 2).unwrap_or(u64::MAX);
        Duration::from_nanos(rng.u64(..=twice_ns.max(1)))
    }

    /// The next connection: its sockets, who is home to the service address, what its client does.
    pub(crate) fn connection(
        &self,
        nodes: &[NodeId],
        version: Version,
        rng: &mut Rng,
    ) -> (FlowKey, NodeId, Plan) {
        let to_first = rng.u16(..1000) < self.skew_permille;
        let home = if to_first { nodes[0] } else { nodes[rng.usize(..nodes.len())] };
        let address = u32::from(CLIENTS) + u32::from(rng.u8(..self.clients.clamp(1, 250)));
        let client = ClientSocket {
            address: client_address(Ipv4Addr::from(address), version),
            port: 1024 + rng.u16(..self.ports.clamp(1, 60_000)),
        };
        let think_max_us = u64::try_from(self.think_max.as_micros()).unwrap_or(u64::MAX);
        let plan = Plan {
            requests: rng.u32(1..=self.requests_max.max(1)),
            think: Duration::from_micros(rng.u64(..=think_max_us)),
            request_len: if rng.bool() { 1460 } else { rng.usize(1..200) },
            server_closes: rng.bool(),
        };
        (flow(client, home), home, plan)
    }
}

/// A client socket that does not exist, for a flood of SYNs.
pub(crate) fn nobody(version: Version, rng: &mut Rng) -> ClientSocket {
    let address = Ipv4Addr::from(u32::from(NOBODY) + u32::from(rng.u8(..)));
    ClientSocket { address: client_address(address, version), port: rng.u16(1024..) }
}

/// True for addresses of [`nobody`].
pub(crate) fn is_nobody(address: IpAddr) -> bool {
    let first = client_address(NOBODY, Version::of(address));
    let network = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) >> 8,
        IpAddr::V6(v6) => u128::from(v6) >> 8,
    };
    network(address) == network(first)
}
