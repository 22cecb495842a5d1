//! Resolvers between clients and the cluster's DNS: each remembers an address for its TTL and gives it to all its clients.

use super::arrivals::zipf;
use dpr_model::{Capacity, LoadPermille, Timestamp};
use dpr_rrdns::{Rotation, ServiceAddress};
use fastrand::Rng;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The resolvers of all clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resolvers {
    /// How many; clients are spread over them by the experiment's skew.
    pub count: u32,
    /// How long an answer is remembered; zero asks for every connection.
    pub ttl: Duration,
    /// The same for an answer that names a node above `maxload`.
    pub ttl_hot: Duration,
}

/// DNS of one run.
pub(super) struct Dns {
    resolvers: Resolvers,
    /// Cumulative shares of clients.
    shares: Vec<f64>,
    remembered: Vec<Option<(usize, Timestamp)>>,
    rotation: Rotation,
    answer: Vec<ServiceAddress>,
}

impl Dns {
    pub(super) fn new(resolvers: Resolvers, skew: f64, capacities: &[Capacity]) -> Self {
        let mut rotation = Rotation::default();
        let entry = |(node, capacity): (usize, &Capacity)| ServiceAddress {
            address: address_of(node),
            weight: capacity.get(),
            hot: false,
        };
        rotation.replace(capacities.iter().enumerate().map(entry).collect());
        let count = resolvers.count as usize;
        Self {
            resolvers,
            shares: zipf(count, skew),
            remembered: vec![None; count],
            rotation,
            answer: Vec::new(),
        }
    }

    /// The node that a new connection goes to; `load` says how loaded one is.
    pub(super) fn home(
        &mut self,
        maxload: LoadPermille,
        load: impl Fn(usize) -> LoadPermille,
        now: Timestamp,
        rng: &mut Rng,
    ) -> usize {
        let drawn = rng.f64();
        let resolver = self.shares.iter().position(|share| drawn < *share).unwrap_or(0);
        if let Some((node, until)) = self.remembered[resolver]
            && now < until
        {
            return node;
        }
        self.rotation.take(1, &mut self.answer);
        let node = self.answer.first().map_or(0, |entry| node_at(entry.address));
        let is_hot = load(node) >= maxload;
        let ttl = if is_hot { self.resolvers.ttl_hot } else { self.resolvers.ttl };
        self.remembered[resolver] = Some((node, now + ttl));
        node
    }
}

/// Addresses are only names here.
fn address_of(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(u32::try_from(node).unwrap_or(u32::MAX)))
}

fn node_at(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(address) => u32::from(address) as usize,
        IpAddr::V6(_) => 0,
    }
}
