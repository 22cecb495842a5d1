//! What is measured.

use super::path::{MAC, NODE, OTHER, SERVICE_PORT, over, port_of};
use dpr_director::PolicyKind;
use dpr_model::ForwardingMethod;
use dpr_rewrite::Version;
use dpr_xdp::Walk;
use std::fmt;

/// Numbers of flows; what a processor's caches hold, and what they do not.
pub(super) const FLOWS: [u32; 3] = [1, 1 << 16, 1 << 20];
/// Methods that fewer flows are measured by, and how many.
pub(super) const OTHER_METHODS: [ForwardingMethod; 2] = [ForwardingMethod::Gue, ForwardingMethod::Dr];
/// The same between nodes with addresses of IPv6.
pub(super) const FLOWS_BY_OTHERS: [u32; 2] = [1, 1 << 16];
/// The same of translated flows, of which a director has no more.
pub(super) const TRANSLATED_FLOWS: [u32; 3] = [1, 1 << 16, 1 << 18];
/// Established connections that there is room for: a power of two, as the buckets of the map.
pub(super) const TABLE: u32 = 2 * FLOWS[FLOWS.len() - 1];
/// Half-open connections that there is room for; the default of `conntrack.half-open-capacity`.
pub(super) const NEW_FLOWS_TABLE: u32 = 1 << 16;
/// Clients of new connections: more than packets of a run, so that none comes twice.
const NEW_CLIENTS: u32 = 1 << 24;
/// 11.0.0.0 and up for known flows, 100.0.0.0 and up for new ones.
const KNOWN_FROM: u32 = 0x0b00_0000;
const NEW_FROM: u32 = 0x6400_0000;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// One measurement of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    /// Of the packets.
    pub(super) version: Version,
    pub(super) kind: Kind,
}

/// What the packets are, and who sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A program that does nothing: what making packets costs.
    Empty,
    /// Parse and look up, so many flows.
    LookUp { flows: u32 },
    /// Forwarded by a tunnel or by the MAC address, so many flows.
    Known { method: ForwardingMethod, flows: u32 },
    /// Forwarded by `ipip` between nodes with addresses of IPv6, so many flows.
    KnownBetweenV6 { flows: u32 },
    /// Translated, so many flows.
    Translated { flows: u32 },
    /// Parse and insert into a full table, of as many entries as there are flows at most.
    Insert,
    /// A SYN of a new client, the table of half-open connections being full.
    New { policy: PolicyKind },
    /// A SYN of a new client, during a flood.
    Flood,
    /// To this node, and no service of it.
    OtherService,
    /// To somebody else.
    OtherHost,
}

impl Case {
    /// Every case.
    pub(super) fn all() -> Vec<Self> {
        let of = |version| move |kind| Self { version, kind };
        let over_ipv4 = Kind::over_ipv4().into_iter().map(of(Version::V4));
        over_ipv4.chain(Kind::over_ipv6().into_iter().map(of(Version::V6))).collect()
    }

    /// A program that does nothing, about the same packets.
    pub(super) fn empty(self) -> Self {
        Self { kind: Kind::Empty, ..self }
    }

    /// The packets that the case is measured with.
    pub(super) fn walk(self) -> Walk {
        let by_ipip = |flows| known_flows(self.version, ForwardingMethod::Ipip, flows);
        match self.kind {
            Kind::Empty => by_ipip(1),
            Kind::LookUp { flows } | Kind::KnownBetweenV6 { flows } => by_ipip(flows),
            Kind::Known { method, flows } => known_flows(self.version, method, flows),
            Kind::Translated { flows } => known_flows(self.version, ForwardingMethod::Nat, flows),
            Kind::Insert | Kind::New { .. } | Kind::Flood => {
                Walk { flows: NEW_CLIENTS, first_client: NEW_FROM, tcp_flags: SYN, ..by_ipip(1) }
            }
            Kind::OtherService => Walk { service_port: SERVICE_PORT - 1, ..by_ipip(1) },
            Kind::OtherHost => Walk { service: over(self.version, OTHER), ..by_ipip(1) },
        }
    }
}

impl Kind {
    fn over_ipv4() -> Vec<Self> {
        let mut kinds = vec![Self::Empty];
        kinds.extend(Self::by_ipip());
        for method in OTHER_METHODS {
            kinds.extend(FLOWS_BY_OTHERS.map(|flows| Self::Known { method, flows }));
        }
        kinds.extend(TRANSLATED_FLOWS.map(|flows| Self::Translated { flows }));
        kinds.push(Self::Insert);
        kinds.extend(PolicyKind::ALL.map(|policy| Self::New { policy }));
        kinds.extend([Self::Flood, Self::OtherService, Self::OtherHost]);
        kinds
    }

    /// Where it makes a difference.
    fn over_ipv6() -> Vec<Self> {
        let mut kinds = vec![Self::Empty];
        kinds.extend(Self::by_ipip());
        kinds.extend([Self::Insert, Self::New { policy: PolicyKind::LocalEstimates }]);
        kinds.extend([Self::OtherService, Self::OtherHost]);
        kinds
    }

    /// Beside the yardstick.
    fn by_ipip() -> impl Iterator<Item = Self> {
        let method = ForwardingMethod::Ipip;
        let beside = move |flows| [Self::LookUp { flows }, Self::Known { method, flows }];
        let between_v6 = FLOWS_BY_OTHERS.map(|flows| Self::KnownBetweenV6 { flows });
        FLOWS.into_iter().flat_map(beside).chain(between_v6)
    }
}

/// Packets of known flows.
pub(super) fn known_flows(version: Version, method: ForwardingMethod, flows: u32) -> Walk {
    Walk {
        flows,
        first_client: KNOWN_FROM,
        service: over(version, NODE),
        service_port: port_of(method),
        tcp_flags: ACK,
        mac: MAC,
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty program"),
            Self::LookUp { flows } => write!(f, "parse and look up, {flows} flows"),
            Self::Known { method, flows } => write!(f, "known flow, {}, {flows} flows", method.label()),
            Self::KnownBetweenV6 { flows } => write!(f, "known flow, ipip in IPv6, {flows} flows"),
            Self::Translated { flows } => write!(f, "known flow, nat, {flows} flows"),
            Self::Insert => f.write_str("parse and insert, table full"),
            Self::New { policy } => write!(f, "new flow, {}, table full", policy.label()),
            Self::Flood => f.write_str("new flow, in a flood of SYNs"),
            Self::OtherService => f.write_str("other traffic, same address"),
            Self::OtherHost => f.write_str("other traffic, other address"),
        }
    }
}
