//! The rotations: one for each port and address family, and one more for every rule of nearness.

use crate::near::Near;
use crate::rotation::Rotation;
use crate::table::{AddressTable, ServiceAddress};
use std::collections::BTreeMap;

/// Which rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Site {
    pub(crate) port: u16,
    pub(crate) family: Family,
}

/// Which kind of address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

/// All rotations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sites {
    by_site: BTreeMap<(Site, Option<usize>), Rotation>,
}

impl Sites {
    /// Takes over what can be named now.
    pub(crate) fn update(&mut self, table: &AddressTable, rules: &[Near]) {
        let mut rotations = BTreeMap::new();
        for (port, addresses) in table.ports() {
            for family in [Family::V4, Family::V6] {
                let is_wanted = |entry: &&ServiceAddress| entry.address.is_ipv4() == (family == Family::V4);
                let all: Vec<ServiceAddress> = addresses.iter().filter(is_wanted).copied().collect();
                let near = rules.iter().enumerate().map(|(position, rule)| {
                    let within = all.iter().filter(|entry| rule.addresses.contains(entry.address)).copied();
                    (Some(position), within.collect::<Vec<_>>())
                });
                let near: Vec<_> = near.collect();
                for (rule, addresses) in std::iter::once((None, all)).chain(near) {
                    let key = (Site { port, family }, rule);
                    let mut rotation = self.by_site.remove(&key).unwrap_or_default();
                    rotation.replace(addresses);
                    rotations.insert(key, rotation);
                }
            }
        }
        self.by_site = rotations;
    }

    /// Whether a port has an address of either family.
    pub(crate) fn has_any(&self, port: u16) -> bool {
        let families = [Family::V4, Family::V6].into_iter();
        families
            .filter_map(|family| self.by_site.get(&(Site { port, family }, None)))
            .any(|all| !all.is_empty())
    }

    /// The next answer for clients to whom `rule` applies; without addresses near them, that for everyone.
    pub(crate) fn take(
        &mut self,
        site: Site,
        rule: Option<usize>,
        count: usize,
        answer: &mut Vec<ServiceAddress>,
    ) {
        answer.clear();
        let near = rule.filter(|_| self.by_site.get(&(site, rule)).is_some_and(|near| !near.is_empty()));
        if let Some(rotation) = self.by_site.get_mut(&(site, near)) {
            rotation.take(count, answer);
        }
    }
}
