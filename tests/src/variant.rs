//! Forwarding methods, IP versions and ways in that scenarios run in, and the record of which of them ran.

use crate::ingress::Ingress;
use dpr_host::is_initial_user_namespace;
use dpr_lab::{IpVersion, NodePlan, Plane};
use rustix::thread::{CapabilitySet, capabilities};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// A forwarding method with the IP versions of nodes and service, and where several nodes may own it, how packets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variant {
    /// Of the service, if several nodes may own its addresses.
    pub ingress: Option<Ingress>,
    /// Method, as the configuration names it.
    pub method: &'static str,
    /// Of the node addresses, and so of tunnels.
    pub nodes: IpVersion,
    /// Of the service address, and so of clients.
    pub service: IpVersion,
    /// Data plane of the nodes.
    pub plane: Plane,
}

impl Variant {
    /// What scenarios run in unless told otherwise.
    pub const ORDINARY: Self = Self::of("ipip", IpVersion::V4, IpVersion::V4);

    /// With the kernel's programs in the driver. Of the lab's only, which loses traffic then: a veth pair's other end, with GRO
    /// on, stops to take frames from a driver after a while (seen on Linux 6.18).
    pub const IN_THE_DRIVER: Self = Self { plane: Plane::XdpNative, ..Self::ORDINARY };

    /// What the kernel's programs do.
    pub const BY_PROGRAMS: [Self; 12] = [
        Self { plane: Plane::Xdp, ..Self::ORDINARY },
        Self { plane: Plane::Xdp, ..Self::of("ipip", IpVersion::V6, IpVersion::V6) },
        Self { plane: Plane::Xdp, ..Self::of("ipip", IpVersion::V6, IpVersion::V4) },
        Self { plane: Plane::Xdp, ..Self::of("ipip", IpVersion::V4, IpVersion::V6) },
        Self { plane: Plane::Xdp, ..Self::of("gue", IpVersion::V4, IpVersion::V4) },
        Self { plane: Plane::Xdp, ..Self::of("gue", IpVersion::V6, IpVersion::V6) },
        Self { plane: Plane::Xdp, ..Self::of("gue", IpVersion::V6, IpVersion::V4) },
        Self { plane: Plane::Xdp, ..Self::of("gue", IpVersion::V4, IpVersion::V6) },
        Self { plane: Plane::Xdp, ..Self::of("nat", IpVersion::V4, IpVersion::V4) },
        Self { plane: Plane::Xdp, ..Self::of("nat", IpVersion::V6, IpVersion::V6) },
        Self { plane: Plane::Xdp, ..Self::of("dr", IpVersion::V4, IpVersion::V4) },
        Self { plane: Plane::Xdp, ..Self::of("dr", IpVersion::V6, IpVersion::V6) },
    ];

    /// Every method in both IP versions, and tunnels of each version in the other, in user space.
    pub const ALL: [Self; 12] = [
        Self::ORDINARY,
        Self::of("ipip", IpVersion::V6, IpVersion::V6),
        Self::of("ipip", IpVersion::V6, IpVersion::V4),
        Self::of("ipip", IpVersion::V4, IpVersion::V6),
        Self::of("gue", IpVersion::V4, IpVersion::V4),
        Self::of("gue", IpVersion::V6, IpVersion::V6),
        Self::of("gue", IpVersion::V6, IpVersion::V4),
        Self::of("gue", IpVersion::V4, IpVersion::V6),
        Self::of("nat", IpVersion::V4, IpVersion::V4),
        Self::of("nat", IpVersion::V6, IpVersion::V6),
        Self::of("dr", IpVersion::V4, IpVersion::V4),
        Self::of("dr", IpVersion::V6, IpVersion::V6),
    ];

    /// Every kind of address that several nodes may own, in both IP versions and by both kinds of tunnel. What does not
    /// depend on the one or the other is not run by all combinations of them.
    pub const BY_INGRESS: [Self; 10] = [
        Self::owned(Ingress::ArpOwner, "ipip", IpVersion::V4),
        Self::owned(Ingress::ArpOwner, "gue", IpVersion::V6),
        Self::owned(Ingress::GroupMac, "gue", IpVersion::V4),
        Self::owned(Ingress::GroupMac, "ipip", IpVersion::V6),
        Self::owned(Ingress::OrdinaryMac, "ipip", IpVersion::V4),
        Self::owned(Ingress::OrdinaryMac, "gue", IpVersion::V6),
        Self::owned(Ingress::Routed, "gue", IpVersion::V4),
        Self::owned(Ingress::Routed, "ipip", IpVersion::V6),
        Self::owned(Ingress::Homes, "ipip", IpVersion::V4),
        Self::owned(Ingress::Homes, "ipip", IpVersion::V6),
    ];

    /// The same by the kernel's programs, with the other tunnel.
    pub const BY_INGRESS_AND_PROGRAMS: [Self; 10] = [
        Self { plane: Plane::Xdp, ..Self::owned(Ingress::ArpOwner, "gue", IpVersion::V4) },
        Self { plane: Plane::Xdp, ..Self::owned(Ingress::ArpOwner, "ipip", IpVersion::V6) },
        Self { plane: Plane::Xdp, ..Self::owned(Ingress::GroupMac, "ipip", IpVersion::V4) },
        Self { plane: Plane::Xdp, ..Self::owned(Ingress::GroupMac, "gue", IpVersion::V6) },
        Self { plane: Plane::Xdp, ..Self::owned(Ingress::OrdinaryMac, "gue", IpVersion::V4) },
        Self { plane: Plane::Xdp, ..Self::owned(Ingress::OrdinaryMac, "ipip", IpVersion::V6) },
        Self { plane: Plane::Xdp, ..Self::owned(Ingress::Routed, "ipip", IpVersion::V4) },
        Self { plane: Plane::Xdp, ..Self::owned(Ingress::Routed, "gue", IpVersion::V6) },
        Self { plane: Plane::Xdp, ..Self::owned(Ingress::Homes, "ipip", IpVersion::V4) },
        Self { plane: Plane::Xdp, ..Self::owned(Ingress::Homes, "gue", IpVersion::V6) },
    ];

    const fn owned(ingress: Ingress, method: &'static str, version: IpVersion) -> Self {
        Self { ingress: Some(ingress), ..Self::of(method, version, version) }
    }

    const fn of(method: &'static str, nodes: IpVersion, service: IpVersion) -> Self {
        Self { ingress: None, method, nodes, service, plane: Plane::Userspace }
    }

    /// Every variant that this user can run: programs need root, and no container.
    pub fn possible() -> impl Iterator<Item = Self> {
        let by_programs = Self::BY_PROGRAMS.into_iter().filter(|_| may_load_programs());
        Self::ALL.into_iter().chain(by_programs)
    }

    /// The same, of those with addresses that several nodes may own.
    pub fn possible_by_ingress() -> impl Iterator<Item = Self> {
        let by_programs = Self::BY_INGRESS_AND_PROGRAMS.into_iter().filter(|_| may_load_programs());
        Self::BY_INGRESS.into_iter().chain(by_programs)
    }

    /// Whether it is run without `DPR_LONG=1` too.
    pub fn is_ordinary(self) -> bool {
        (Self { plane: Plane::Userspace, ..self }) == Self::ORDINARY
    }

    /// A node's plan in this variant.
    pub fn plan(self, plan: NodePlan) -> NodePlan {
        let plan = match self.ingress {
            Some(ingress) => ingress.plan(plan),
            None => plan,
        };
        NodePlan {
            node_version: self.nodes,
            service_version: self.service,
            method: Some(self.method.to_owned()),
            plane: self.plane,
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
        if let Some(ingress) = self.ingress {
            write!(f, "{ingress} ")?;
        }
        write!(f, "{} {}", self.method, self.service.label())?;
        if self.nodes != self.service {
            write!(f, " in {}", self.nodes.label())?;
        }
        match self.plane {
            Plane::Userspace => Ok(()),
            Plane::Xdp => write!(f, " by xdp"),
            Plane::XdpNative => write!(f, " by xdp in the driver"),
        }
    }
}

/// Whether this user can have programs in the kernel: root can, without a container.
pub fn may_load_programs() -> bool {
    let needed = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
    is_initial_user_namespace().unwrap_or(false)
        && capabilities(None).is_ok_and(|own| own.effective.contains(needed))
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
        // Ways in and methods are different questions: a scenario is run by the ones or by the others.
        let of_kind = |variant: &&Variant| {
            let asks = |(other, name): &(Variant, String)| {
                name == scenario && other.ingress.is_some() == variant.ingress.is_some()
            };
            record.keys().any(asks)
        };
        for variant in variants.iter().filter(of_kind) {
            let word = match record.get(&(*variant, scenario.to_owned())) {
                Some(true) => "ok",
                Some(false) => "FAILED",
                None => "not run",
            };
            text.push_str(&format!("  {:<26} {word}\n", variant.to_string()));
        }
    }
    text
}
