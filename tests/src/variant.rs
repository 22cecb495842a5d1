//! Forwarding methods and IP versions that scenarios run in, and the record of which of them ran.

use dpr_lab::{IpVersion, NodePlan};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// A forwarding method with the IP versions of nodes and service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variant {
    /// Method, as the configuration names it.
    pub method: &'static str,
    /// Of the node addresses, and so of tunnels.
    pub nodes: IpVersion,
    /// Of the service address, and so of clients.
    pub service: IpVersion,
}

impl Variant {
    /// What scenarios run in unless told otherwise.
    pub const ORDINARY: Self = Self { method: "ipip", nodes: IpVersion::V4, service: IpVersion::V4 };

    /// Every method in both IP versions, and tunnels of each version in the other.
    pub const ALL: [Self; 12] = [
        Self::ORDINARY,
        Self { method: "ipip", nodes: IpVersion::V6, service: IpVersion::V6 },
        Self { method: "ipip", nodes: IpVersion::V6, service: IpVersion::V4 },
        Self { method: "ipip", nodes: IpVersion::V4, service: IpVersion::V6 },
        Self { method: "gue", nodes: IpVersion::V4, service: IpVersion::V4 },
        Self { method: "gue", nodes: IpVersion::V6, service: IpVersion::V6 },
        Self { method: "gue", nodes: IpVersion::V6, service: IpVersion::V4 },
        Self { method: "gue", nodes: IpVersion::V4, service: IpVersion::V6 },
        Self { method: "nat", nodes: IpVersion::V4, service: IpVersion::V4 },
        Self { method: "nat", nodes: IpVersion::V6, service: IpVersion::V6 },
        Self { method: "dr", nodes: IpVersion::V4, service: IpVersion::V4 },
        Self { method: "dr", nodes: IpVersion::V6, service: IpVersion::V6 },
    ];

    /// A node's plan in this variant.
    pub fn plan(self, plan: NodePlan) -> NodePlan {
        NodePlan {
            node_version: self.nodes,
            service_version: self.service,
            method: Some(self.method.to_owned()),
            ..plan
        }
    }

    /// Whether packets travel in tunnels.
    pub fn tunnels(self) -> bool {
        matches!(self.method, "ipip" | "gue")
    }

    /// Whether real servers see the director as their client.
    pub fn hides_clients(self) -> bool {
        self.method == "nat"
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.service.label())?;
        if self.nodes == self.service { Ok(()) } else { write!(f, " in {}", self.nodes.label()) }
    }
}

/// Scenario and variant, and whether it was kept.
static RECORD: Mutex<BTreeMap<(Variant, String), bool>> = Mutex::new(BTreeMap::new());

/// Remembers how a scenario ended in a variant.
pub fn record(variant: Variant, scenario: &str, kept: bool) {
    RECORD.lock().unwrap_or_else(PoisonError::into_inner).insert((variant, scenario.to_owned()), kept);
}

/// What was recorded as a table, scenarios downwards; empty if nothing was.
pub fn table() -> String {
    let record = RECORD.lock().unwrap_or_else(PoisonError::into_inner);
    let scenarios: BTreeSet<&str> = record.keys().map(|(_, scenario)| scenario.as_str()).collect();
    let variants: BTreeSet<Variant> = record.keys().map(|(variant, _)| *variant).collect();
    let mut text = String::new();
    for scenario in scenarios {
        text.push_str(scenario);
        text.push('\n');
        for variant in &variants {
            let word = match record.get(&(*variant, scenario.to_owned())) {
                Some(true) => "ok",
                Some(false) => "FAILED",
                None => "not run",
            };
            text.push_str(&format!("  {:<18} {word}\n", variant.to_string()));
        }
    }
    text
}
