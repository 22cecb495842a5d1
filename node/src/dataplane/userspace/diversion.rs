//! Taking the services' packets, and only those, away from the kernel.
//!
//! Packet sockets see a frame before the ingress hook drops it, so the data plane has it and the kernel does not.
//! The table belongs to this process: when it ends, however it ends, the kernel has its packets again.

use crate::config::Ipv4Prefix;
use crate::dataplane::Update;
use crate::dataplane::traces::NFT_TABLE;
use dpr_host::nft::{
    IngressChain, Lifetime, Match, NftError, Nftables, PayloadBase, PayloadField, Rule, Table, Verdict,
};
use dpr_rewrite::ipv4::DONT_FRAGMENT;
use dpr_rewrite::protocol;
use dpr_rewrite::tunnel::{HOPS_MAGIC, HOPS_MAGIC_MASK};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// Before the chains of firewalls, which have 0 by convention: they would see packets that are not the kernel's.
const PRIORITY: i32 = -500;

const ETHERTYPE_IPV4: u16 = 0x0800;

/// What is taken away.
pub(crate) struct Diversion {
    nftables: Nftables,
    table: Table,
    /// Rules that do not depend on the cluster.
    rules: Vec<Rule>,
    node_address: Ipv4Addr,
    /// Whose tunnels are taken away, in order.
    peers: Vec<Ipv4Addr>,
}

impl Diversion {
    /// Takes away what comes in on `interface` for `services`, and keeps strangers from reaching delivery addresses
    /// directly. Tunnels to `node_address` stay the kernel's until [`Self::take_tunnels_from`] names peers.
    pub(crate) fn begin(
        interface: &str,
        services: &[SocketAddrV4],
        node_address: Ipv4Addr,
        deliveries: Ipv4Prefix,
    ) -> Result<Self, NftError> {
        let mut rules = vec![Rule::drop_tcp_to_any(services.iter().copied())];
        rules.extend(services.iter().map(|service| errors_about(*service)));
        rules.push(anything_to(deliveries));
        let chain =
            IngressChain { interface: interface.to_owned(), priority: PRIORITY, rules: rules.clone() };
        let mut nftables = Nftables::open()?;
        let mut table = Table { name: NFT_TABLE.to_owned(), lifetime: Lifetime::Socket, chains: vec![chain] };
        match nftables.replace_table(&table) {
            Err(NftError::Netlink(error))
                if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) =>
            {
                tracing::warn!(
                    "this kernel (before 5.12) keeps the packet filter of a killed process: after a crash the \
                     services are unreachable until dpr starts again, or until: nft delete table netdev {NFT_TABLE}"
                );
                table.lifetime = Lifetime::Namespace;
                nftables.replace_table(&table)?;
            }
            result => result?,
        }
        Ok(Self { nftables, table, rules, node_address, peers: Vec::new() })
    }

    /// Takes away the tunnels of these peers, in order of address, and of nobody else.
    pub(crate) fn take_tunnels_from(&mut self, peers: Vec<Ipv4Addr>) -> Result<(), NftError> {
        if peers == self.peers {
            return Ok(());
        }
        let mut rules = self.rules.clone();
        if !peers.is_empty() {
            rules.push(tunnels(&peers, self.node_address));
        }
        for chain in &mut self.table.chains {
            chain.rules.clone_from(&rules);
        }
        self.nftables.replace_table(&self.table)?;
        self.peers = peers;
        Ok(())
    }

    /// Gives the packets back.
    pub(crate) fn end(mut self) -> Result<(), NftError> {
        self.nftables.delete_table(NFT_TABLE).map(drop)
    }
}

/// Where the tunnels of peers come from, in order.
pub(crate) fn peers_of(update: &Update) -> Vec<Ipv4Addr> {
    let mut addresses: Vec<Ipv4Addr> = update
        .peers
        .iter()
        .filter_map(|peer| match peer.candidate.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn ipv4(mut matches: Vec<Match>) -> Rule {
    matches.insert(0, Match::untagged_ethertype(ETHERTYPE_IPV4));
    Rule { matches, verdict: Verdict::Drop }
}

fn network(offset: u8, value: &[u8]) -> Match {
    Match::payload(PayloadBase::Network, offset, value)
}

/// Tunnels of peers that carry a hop budget; what else is IP-in-IP on this host stays the kernel's.
fn tunnels(peers: &[Ipv4Addr], node: Ipv4Addr) -> Rule {
    let id_and_flags = [HOPS_MAGIC.to_be_bytes(), DONT_FRAGMENT.to_be_bytes()].concat();
    let mask = [HOPS_MAGIC_MASK.to_be_bytes(), 0x7fff_u16.to_be_bytes()].concat();
    ipv4(vec![
        network(9, &[protocol::IPV4]),
        network(16, &node.octets()),
        Match::masked_payload(PayloadBase::Network, 4, &mask, &id_and_flags),
        Match::InSet {
            fields: vec![PayloadField::IPV4_SOURCE],
            members: peers.iter().map(|peer| peer.octets().to_vec()).collect(),
        },
    ])
}

/// ICMP errors about segments that the service sent; the quoted header has no options, as we send none.
fn errors_about(service: SocketAddrV4) -> Rule {
    let quoted = 8;
    let transport = |offset, value: &[u8]| Match::payload(PayloadBase::Transport, offset, value);
    ipv4(vec![
        network(9, &[protocol::ICMP]),
        network(16, &service.ip().octets()),
        transport(quoted, &[0x45]),
        transport(quoted + 9, &[protocol::TCP]),
        transport(quoted + 12, &service.ip().octets()),
        transport(quoted + 20, &service.port().to_be_bytes()),
    ])
}

fn anything_to(range: Ipv4Prefix) -> Rule {
    let mask = (u32::MAX << (32 - u32::from(range.length))).to_be_bytes();
    ipv4(vec![Match::masked_payload(PayloadBase::Network, 16, &mask, &range.address.octets())])
}
