//! How a connection's packets get to their real server, and to the server process on it.

/// How a director hands a connection's packets to its real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum ForwardingMethod {
    /// IP in IP (RFC 2003, RFC 2473, RFC 4213).
    #[default]
    Ipip,
    /// Generic UDP encapsulation (draft-ietf-intarea-gue-09).
    Gue,
    /// Full network address translation: the real server sees the director as its client. Only this method reaches
    /// servers without `dpr`, and it is always the last hop.
    Nat,
    /// Half network address translation: the real server sees the client, and its replies have to be routed through
    /// the director. For servers without `dpr` only: a peer would answer the client by itself.
    HalfNat,
    /// Direct routing: only the MAC address changes. Always the last hop.
    Dr,
}

impl ForwardingMethod {
    /// The word for it in status and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Nat => "nat",
            Self::HalfNat => "half-nat",
            Self::Dr => "dr",
        }
    }

    /// The tunnel in which a packet goes when it needs one: this method's own, or IP in IP where the method has none
    /// and a packet is handed to its owner.
    pub const fn encapsulation(self) -> Encapsulation {
        match self {
            Self::Gue => Encapsulation::Gue,
            Self::Ipip | Self::Nat | Self::HalfNat | Self::Dr => Encapsulation::Ipip,
        }
    }
}

/// What is between the outer IP header of a tunnel and the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encapsulation {
    /// Nothing.
    Ipip,
    /// UDP and GUE header.
    Gue,
}

/// How packets for a service address reach the server process on a real server that runs `dpr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum DeliveryMode {
    /// The destination becomes the service address's delivery address, and the source on the way back.
    #[default]
    Translate,
    /// Nothing changes: the real server has the service address itself, as with LVS.
    Alias,
}

impl DeliveryMode {
    /// The word for it in configuration, status and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Translate => "translate",
            Self::Alias => "alias",
        }
    }
}
