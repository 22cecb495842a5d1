//! Service addresses that several nodes claim for their own.
//!
//! Each of them then answers for the address and decides about its connections, so clients reach one or another of them as
//! switches and ARP caches have it, and connections break when that changes. Nothing but the configuration can mend it.

use dpr_load_gossip::Gossip;
use dpr_model::status::AddressClaim;
use dpr_model::{NodeId, Sharing, Timestamp};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What was said about it last.
#[derive(Debug, Default)]
pub(super) struct Claims {
    known: Vec<AddressClaim>,
}

/// Addresses that more than one living node is home to, in order, unless all of them share it; `own` are this node's.
pub(super) fn contested(
    node: NodeId,
    own: impl Iterator<Item = (IpAddr, Sharing)>,
    gossip: &Gossip,
    now: Timestamp,
) -> Vec<AddressClaim> {
    let of_peers = gossip.peers(now).filter(|view| view.alive).flat_map(|view| {
        let peer = view.report.node;
        view.report.services.iter().map(move |service| (service.socket.address, peer, service.sharing))
    });
    let mut homes_by_address: BTreeMap<IpAddr, BTreeMap<NodeId, Sharing>> = BTreeMap::new();
    for (address, home, sharing) in own.map(|(address, sharing)| (address, node, sharing)).chain(of_peers) {
        homes_by_address.entry(address).or_default().insert(home, sharing);
    }
    homes_by_address
        .into_iter()
        .filter(|(_, homes)| homes.len() > 1 && !are_shared(homes))
        .map(|(address, homes)| AddressClaim { address, homes: homes.into_keys().collect() })
        .collect()
}

fn are_shared(homes: &BTreeMap<NodeId, Sharing>) -> bool {
    let mut sharings = homes.values();
    let first = sharings.next();
    matches!(first, Some(Sharing::Shared(_))) && sharings.all(|sharing| Some(sharing) == first)
}

impl Claims {
    /// Logs what has become contested, and what no longer is.
    pub(super) fn note(&mut self, contested: Vec<AddressClaim>) {
        for claim in contested.iter().filter(|claim| !self.known.contains(claim)) {
            tracing::warn!(
                address = %claim.address, homes = ?claim.homes,
                "several nodes claim one service address; leave it in the configuration of one"
            );
        }
        let is_settled = |claim: &&AddressClaim| !contested.iter().any(|now| now.address == claim.address);
        for claim in self.known.iter().filter(is_settled) {
            tracing::info!(address = %claim.address, "one node claims the service address again");
        }
        self.known = contested;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_load_gossip::{Action, Config};
    use dpr_model::{Capacity, Incarnation, Ingress, LoadReport, Protocol, ServiceReport, ServiceSocket};

    const OURS: NodeId = NodeId(1);
    const THEIRS: NodeId = NodeId(2);
    const START: Timestamp = Timestamp::from_millis(1000);

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn gossip(node: NodeId) -> Gossip {
        Gossip::new(Config::new(node, Incarnation(1)), START)
    }

    /// Gossip of this node that has heard of a peer with the given service addresses.
    fn knowing_of(addresses: [(IpAddr, Sharing); 2]) -> Gossip {
        let service = |(address, sharing)| ServiceReport {
            sharing,
            ..ServiceReport::new(Protocol::Tcp, ServiceSocket { address, port: 80 })
        };
        let report = LoadReport {
            services: addresses.map(service).to_vec(),
            ..LoadReport::new(THEIRS, Incarnation(1), address(12), Capacity::new(100))
        };
        let (mut ours, mut theirs) = (gossip(OURS), gossip(THEIRS));
        theirs.set_report(&report).unwrap();
        theirs.send_now(START);
        while let Some(action) = theirs.poll_action() {
            if let Action::Send { bytes, .. } = action {
                // A copy of what came already is no news.
                let _ = ours.handle_datagram((address(12), 7777).into(), &bytes, START);
            }
        }
        ours
    }

    fn alone(last: u8) -> (IpAddr, Sharing) {
        (address(last), Sharing::Home)
    }

    #[test]
    fn an_address_of_one_node_is_not_contested_however_many_services_it_has() {
        let gossip = knowing_of([alone(12); 2]);

        assert_eq!(contested(OURS, [alone(11); 2].into_iter(), &gossip, START), []);
    }

    #[test]
    fn an_address_that_a_living_peer_claims_too_is_contested() {
        let gossip = knowing_of([alone(12), alone(99)]);
        let own = || [alone(11), alone(99)].into_iter();

        let expected = AddressClaim { address: address(99), homes: vec![OURS, THEIRS] };
        assert_eq!(contested(OURS, own(), &gossip, START), [expected]);
        let claims = &mut Claims::default();
        claims.note(contested(OURS, own(), &gossip, START));
        assert_eq!(claims.known.len(), 1);
        claims.note(vec![]);
        assert_eq!(claims.known, []);
    }

    #[test]
    fn an_address_is_contested_unless_all_share_it_and_in_the_same_way() {
        let shared = |ingress| (address(99), Sharing::Shared(ingress));
        let gossip = knowing_of([alone(12), shared(Ingress::ArpOwner)]);
        let contested_with = |own| contested(OURS, [alone(11), own].into_iter(), &gossip, START).len();

        assert_eq!(contested_with(shared(Ingress::ArpOwner)), 0);
        assert_eq!(contested_with(shared(Ingress::Routed)), 1);
        assert_eq!(contested_with(alone(99)), 1);
    }
}
