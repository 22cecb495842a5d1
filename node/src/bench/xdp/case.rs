//! What is measured.

use super::path::{MAC, NODE, OTHER, SERVICE_PORT, port_of};
use dpr_director::PolicyKind;
use dpr_model::ForwardingMethod;
use dpr_xdp::Walk;
use std::fmt;

/// Numbers of flows; what a processor's caches hold, and what they do not.
pub(super) const FLOWS: [u32; 3] = [1, 1 << 16, 1 << 20];
/// Methods that fewer flows are measured by, and how many.
pub(super) const OTHER_METHODS: [ForwardingMethod; 2] = [ForwardingMethod::Gue, ForwardingMethod::Dr];
pub(super) const FLOWS_BY_OTHERS: [u32; 2] = [1, 1 << 16];
/// The same of translated flows, of which a director has no more.
pub(super) const TRANSLATED_FLOWS: [u32; 3] = [1, 1 << 16, 1 << 18];
/// Established connections that there is room for: a power of two, as the buckets of the map.
pub(super) const TABLE: u32 = 2 * FLOWS[FLOWS.len() - 1];
/// Half-open connections that there is room for; the default of `conntrack.half-open-capacity`.
pub(super) const NEW_FLOWS_TABLE: u32 = 1 << 16;
/// Clients of new connections: more than packets of a run, so that none comes twice.
const NEW_CLIENTS: u32 = 1 << 24;
/// 10.0.0.0 and up for known flows, 100.0.0.0 and up for new ones.
const KNOWN_FROM: u32 = 0x0b00_0000;
const NEW_FROM: u32 = 0x6400_0000;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// One measurement of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// A program that does nothing: what making packets costs.
    Empty,
    /// Parse and look up, so many flows.
    LookUp { flows: u32 },
    /// Forwarded by a tunnel or by the MAC address, so many flows.
    Known { method: ForwardingMethod, flows: u32 },
    /// Translated, so many flows.
    Translated { flows: u32 },
    /// Parse and insert into a full table.
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
    /// Every case; the first is [`Case::Empty`].
    pub(super) fn all() -> Vec<Self> {
        let mut cases = vec![Self::Empty];
        let by_ipip = |flows| Self::Known { method: ForwardingMethod::Ipip, flows };
        cases.extend(FLOWS.into_iter().flat_map(|flows| [Self::LookUp { flows }, by_ipip(flows)]));
        for method in OTHER_METHODS {
            cases.extend(FLOWS_BY_OTHERS.map(|flows| Self::Known { method, flows }));
        }
        cases.extend(TRANSLATED_FLOWS.map(|flows| Self::Translated { flows }));
        cases.push(Self::Insert);
        cases.extend(PolicyKind::ALL.map(|policy| Self::New { policy }));
        cases.extend([Self::Flood, Self::OtherService, Self::OtherHost]);
        cases
    }

    /// Packets of known flows by `ipip`.
    pub(super) fn known_flows(flows: u32) -> Walk {
        Self::known_flows_by(ForwardingMethod::Ipip, flows)
    }

    /// Packets of known flows.
    pub(super) fn known_flows_by(method: ForwardingMethod, flows: u32) -> Walk {
        Walk {
            flows,
            first_client: KNOWN_FROM,
            service: NODE.octets(),
            service_port: port_of(method),
            tcp_flags: ACK,
            mac: MAC,
        }
    }

    /// Packets of translated flows.
    pub(super) fn translated_flows(flows: u32) -> Walk {
        Self::known_flows_by(ForwardingMethod::Nat, flows)
    }

    /// The packets that the case is measured with.
    pub(super) fn walk(self) -> Walk {
        let known = Self::known_flows(1);
        match self {
            Self::Empty => known,
            Self::LookUp { flows } => Self::known_flows(flows),
            Self::Known { method, flows } => Self::known_flows_by(method, flows),
            Self::Translated { flows } => Self::translated_flows(flows),
            Self::Insert | Self::New { .. } | Self::Flood => {
                Walk { flows: NEW_CLIENTS, first_client: NEW_FROM, tcp_flags: SYN, ..known }
            }
            Self::OtherService => Walk { service_port: SERVICE_PORT - 1, ..known },
            Self::OtherHost => Walk { service: OTHER.octets(), ..known },
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty program"),
            Self::LookUp { flows } => write!(f, "parse and look up, {flows} flows"),
            Self::Known { method, flows } => write!(f, "known flow, {}, {flows} flows", method.label()),
            Self::Translated { flows } => write!(f, "known flow, nat, {flows} flows"),
            Self::Insert => f.write_str("parse and insert, table full"),
            Self::New { policy } => write!(f, "new flow, {}, table full", policy.label()),
            Self::Flood => f.write_str("new flow, in a flood of SYNs"),
            Self::OtherService => f.write_str("other traffic, same address"),
            Self::OtherHost => f.write_str("other traffic, other address"),
        }
    }
}
