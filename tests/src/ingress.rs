//! How packets for addresses that several nodes may own reach them.

use dpr_lab::NodePlan;
use std::fmt;

/// A kind of address that several nodes may own, and the way its packets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ingress {
    /// One address of all, for which one of them answers.
    ArpOwner,
    /// One address of all, at a MAC address of a multicast group: all see all packets.
    GroupMac,
    /// One address of all, at a MAC address that the switch has never learnt: all see all packets.
    OrdinaryMac,
    /// One address of all, which clients' routers spread over those that announce it.
    Routed,
    /// An address of each, which others take over.
    Homes,
}

impl Ingress {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::ArpOwner, Self::GroupMac, Self::OrdinaryMac, Self::Routed, Self::Homes];

    /// Whether all nodes have one address.
    pub fn is_shared(self) -> bool {
        self != Self::Homes
    }

    /// A node's plan with such an address, which no host holds.
    pub fn plan(self, plan: NodePlan) -> NodePlan {
        let shared = |kind, mac| NodePlan { shared: Some(kind), shared_mac: mac, ..plan.clone() };
        match self {
            Self::ArpOwner => shared("arp-owner", None),
            Self::GroupMac => shared("shared-mac", None),
            Self::OrdinaryMac => shared("shared-mac", Some("02:00:5e:00:00:63")),
            Self::Routed => shared("routed", None),
            Self::Homes => NodePlan { separate_service_address: true, ..plan },
        }
    }
}

impl fmt::Display for Ingress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ArpOwner => "arp-owner",
            Self::GroupMac => "group-mac",
            Self::OrdinaryMac => "ordinary-mac",
            Self::Routed => "routed",
            Self::Homes => "homes",
        })
    }
}
