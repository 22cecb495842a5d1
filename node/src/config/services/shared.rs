//! What a shared address needs, and what goes with none.

use super::Service;
use crate::config::finding::Finding;
use crate::config::keys::ServiceKeys;
use dpr_model::{DeliveryMode, ForwardingMethod, Ingress, MacAddress, Sharing};
use std::net::IpAddr;

/// The MAC address that all nodes have for a service address, if they have one.
pub(super) fn mac_of(service: &Service, keys: &ServiceKeys) -> Option<MacAddress> {
    let configured = keys.shared_mac.as_ref().map(|mac| mac.value.0);
    (service.sharing == Sharing::Shared(Ingress::SharedMac))
        .then(|| configured.unwrap_or_else(|| group_mac(service.address)))
}

/// What frames to a multicast group of the same last bits would go to (RFC 1112, section 6.4; RFC 2464, section 7): cards
/// and switches take it for one.
fn group_mac(address: IpAddr) -> MacAddress {
    match address {
        IpAddr::V4(v4) => {
            let [_, b, c, d] = v4.octets();
            MacAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            MacAddress([0x33, 0x33, a, b, c, d])
        }
    }
}

/// Objects to keys that contradict each other. `of_node` are the node address, if it is known, and whether nodes agree on
/// owners.
pub(super) fn refuse(
    service: &Service,
    keys: &ServiceKeys,
    of_node: (Option<IpAddr>, bool),
    findings: &mut Vec<Finding>,
) {
    let (node_address, is_agreed) = of_node;
    let Some(shared) = keys.shared.as_ref() else { return };
    let mut object = |at: &std::ops::Range<usize>, problem: &str, instead: &str| {
        findings.push(Finding::new(at.clone(), problem, instead));
    };
    if !shared.value {
        if let Some(ingress) = keys.ingress.as_ref().filter(|ingress| ingress.value != Ingress::ArpOwner) {
            object(&ingress.at, "`ingress` is for shared addresses", "add `shared = true`, or remove it");
        }
        if let Some(mac) = &keys.shared_mac {
            object(&mac.at, "`shared-mac` is for shared addresses", "add `shared = true`, or remove it");
        }
        return;
    }
    if !is_agreed {
        let problem = "nodes that share an address have to agree on who owns what";
        object(&shared.at, problem, "add `[ownership]` with `voters`");
    }
    if node_address == Some(service.address) {
        let problem = "the node address is this node's alone";
        object(&shared.at, problem, "give the service an `address` that no host holds");
    }
    if service.delivery == DeliveryMode::Alias {
        let problem = "hosts would answer for an alias by themselves";
        object(&shared.at, problem, "deliver a shared address by `translate`");
    }
    if matches!(service.method, ForwardingMethod::Dr | ForwardingMethod::Nat | ForwardingMethod::HalfNat) {
        let problem = "a shared address takes two hops, which only tunnels tell apart";
        object(&shared.at, problem, "use the method `ipip` or `gue`");
    }
    if let Some(mac) = keys.shared_mac.as_ref().filter(|_| service.shared_mac.is_none()) {
        let problem = "`shared-mac` is for the ingress of that name";
        object(&mac.at, problem, "write `ingress = \"shared-mac\"`, or remove it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_address_has_the_last_bits_of_its_service_address() {
        let mac = |address: &str| group_mac(address.parse().unwrap()).0;

        assert_eq!(mac("192.168.129.3"), [0x01, 0, 0x5e, 0x28, 0x81, 3]);
        assert_eq!(mac("2001:db8::1:203"), [0x33, 0x33, 0, 1, 2, 3]);
    }
}
