//! Ports that services have beside their own.

use super::Content;
use crate::abi::{FurtherPorts, FurtherRange, SERVICES_MAX, mapped};
use dpr_director::View;
use std::collections::btree_map::Entry;

/// Adds the ranges of all services. Those of one that is left out are found and lead nowhere.
pub(super) fn add_further(content: &mut Content, view: &View<'_>) {
    for its in &view.further {
        let range = FurtherRange {
            first: its.ports.first(),
            last: its.ports.last(),
            port: its.service.port.to_be_bytes(),
            protocol: its.protocol.number(),
            zero: 0,
        };
        let has_room = content.further_ports.len() < SERVICES_MAX;
        let fits = match content.further_ports.entry(mapped(its.service.address)) {
            Entry::Occupied(mut ranges) => ranges.get_mut().add(range),
            Entry::Vacant(place) => has_room && place.insert(FurtherPorts::default()).add(range),
        };
        content.left_out += usize::from(!fits);
    }
}
