//! Whose an address is: one node's, one node's while it lives, or everybody's.

/// Who may own the slots of a service address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Sharing {
    /// Only the node that reports it, which needs nobody's leave.
    #[default]
    Home,
    /// The node that reports it, while the ownership map says that it is there; otherwise all others, by slot.
    Takeover,
    /// All members, by slot. Every node that carries the address reports it.
    Shared(Ingress),
}

/// How packets for a shared address reach the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Ingress {
    /// All nodes have one MAC address, see every packet, and drop what they do not own.
    SharedMac,
    /// One node answers ARP and neighbour solicitations, and hands packets to their owners.
    ArpOwner,
    /// A router spreads packets over the nodes; whoever gets one hands it to its owner.
    Routed,
}

/// What of a flow decides about its slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum PartitionBy {
    /// The client's address and port.
    #[default]
    SourceAddressAndPort,
    /// The client's address: all connections of a client have the same owner.
    SourceAddress,
    /// The service address: each address is owned as a whole.
    DestinationAddress,
    /// The client's port.
    SourcePort,
    /// The service port: each service is owned as a whole.
    DestinationPort,
    /// Both addresses and both ports.
    All,
}

impl Ingress {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::SharedMac, Self::ArpOwner, Self::Routed];

    /// The word for it in configuration and status.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SharedMac => "shared-mac",
            Self::ArpOwner => "arp-owner",
            Self::Routed => "routed",
        }
    }
}

impl PartitionBy {
    /// Every choice, in the order of their numbers in load reports.
    pub const ALL: [Self; 6] = [
        Self::SourceAddressAndPort,
        Self::SourceAddress,
        Self::DestinationAddress,
        Self::SourcePort,
        Self::DestinationPort,
        Self::All,
    ];

    /// The word for it in configuration and status.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SourceAddress => "source-address",
            Self::DestinationAddress => "destination-address",
            Self::SourcePort => "source-port",
            Self::DestinationPort => "destination-port",
            Self::SourceAddressAndPort => "source-address-and-port",
            Self::All => "all",
        }
    }
}
