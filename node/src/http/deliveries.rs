//! Which service address a connection came for: the local address of its socket is a delivery address.

use crate::dataplane::DeliveryAddress;
use dpr_model::{NodeId, ServiceSocket};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Delivery address → service address and its home; an immutable snapshot that the event loop replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deliveries {
    service_by_delivery: BTreeMap<IpAddr, (IpAddr, NodeId)>,
}

impl Deliveries {
    /// A snapshot of what the data plane says.
    pub(crate) fn new(addresses: &[DeliveryAddress]) -> Self {
        let service_by_delivery =
            addresses.iter().map(|address| (address.delivery, (address.service, address.owner))).collect();
        Self { service_by_delivery }
    }

    /// The service socket that the client of a connection asked for, and the node that is home to it. A connection
    /// that did not come through the data plane asked for what its socket says, from `this` node.
    pub(crate) fn service_of(&self, local: SocketAddr, this: NodeId) -> (ServiceSocket, NodeId) {
        let address = local.ip().to_canonical();
        let (address, owner) = self.service_by_delivery.get(&address).copied().unwrap_or((address, this));
        (ServiceSocket { address, port: local.port() }, owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_address_leads_to_its_service_and_home() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let delivery = DeliveryAddress {
            delivery: address("169.254.64.2"),
            mode: dpr_model::DeliveryMode::Translate,
            service: address("192.0.2.12"),
            owner: NodeId(12),
        };
        let deliveries = Deliveries::new(&[delivery]);

        let through = deliveries.service_of("169.254.64.2:80".parse().unwrap(), NodeId(11));
        let direct = deliveries.service_of("127.0.0.1:80".parse().unwrap(), NodeId(11));

        assert_eq!(through, (ServiceSocket { address: address("192.0.2.12"), port: 80 }, NodeId(12)));
        assert_eq!(direct, (ServiceSocket { address: address("127.0.0.1"), port: 80 }, NodeId(11)));
    }
}
