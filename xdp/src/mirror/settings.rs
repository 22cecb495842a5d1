//! What holds for every packet.

use super::Host;
use crate::abi::{Address, AddressV4, Policy, Router, Settings, TICK_SHIFT, mapped};
use dpr_director::{DeliveryRange, PolicyKind, View};
use dpr_model::MacAddress;
use dpr_ownership::SlotCount;
use dpr_rewrite::Version;
use std::time::Duration;

pub(super) fn settings_of(view: &View<'_>, host: &Host<'_>) -> Settings {
    let lease_ns = u64::try_from(view.lease.as_nanos()).unwrap_or(0);
    let timeouts = &host.timeouts;
    let patience = [timeouts.syn, timeouts.established, timeouts.fin, timeouts.close, timeouts.close];
    let (network, mask) = range_of(view.delivery_ranges.of(Version::V4));
    let (delivery_network_v6, delivery_mask_v6) = range_of(view.delivery_ranges.of(Version::V6));
    let [router, router_v6] = host.routers.map(router_of);
    let lease_until_ns = host.boot_time_ns.saturating_add(lease_ns);
    let right = view.acts_until.filter(|until| *until >= host.now).map(|until| until.since(host.now));
    let right_ns = right.map(|right| u64::try_from(right.as_nanos()).unwrap_or(u64::MAX));
    let owns_until_ns = right_ns.map_or(0, |right_ns| host.boot_time_ns.saturating_add(right_ns));
    Settings {
        lease_until_ns,
        owns_until_ns: owns_until_ns.min(lease_until_ns),
        address: mapped(view.address),
        delivery_network: last_word(network),
        delivery_mask: last_word(mask),
        delivery_network_v6,
        delivery_mask_v6,
        timeout: patience.map(ticks),
        maxload: view.maxload.0,
        mac: host.mac.0,
        policy: policy_of(view.policy) as u8,
        frozen: u8::from(view.frozen),
        bank: 0,
        is_ipv6: u8::from(view.address.is_ipv6()),
        router,
        router_v6,
        timeout_udp: ticks(timeouts.udp),
        flow_seed: host.flow_seed,
        flood_from: 0,
        slot_shift: view.slots.as_ref().map_or(0, |slots| slot_shift(slots.count)),
        peers_translate: u32::from(!view.translators.is_empty()),
        has_further_ports: u32::from(!view.further.is_empty()),
    }
}

/// A slot is the highest bits of a hash.
fn slot_shift(count: SlotCount) -> u32 {
    u64::BITS - count.get().trailing_zeros()
}

fn router_of(mac: Option<MacAddress>) -> Router {
    Router { mac: mac.unwrap_or_default().0, is_known: u8::from(mac.is_some()), zero: 0 }
}

/// A network and its mask.
fn range_of(range: DeliveryRange) -> (Address, Address) {
    let prefix_len = u32::from(range.prefix_len()) + if range.network().is_ipv4() { 96 } else { 0 };
    // A prefix of 8 to 126 bits.
    (mapped(range.network()), (u128::MAX << (128 - prefix_len)).to_be_bytes())
}

/// Of an address of IPv4, the address.
fn last_word([.., a, b, c, d]: Address) -> AddressV4 {
    [a, b, c, d]
}

fn policy_of(kind: PolicyKind) -> Policy {
    match kind {
        PolicyKind::LocalEstimates => Policy::LocalEstimates,
        PolicyKind::Lightest => Policy::Lightest,
        PolicyKind::Inverse => Policy::Inverse,
        PolicyKind::RoundRobin => Policy::RoundRobin,
        PolicyKind::Stateless => Policy::Stateless,
    }
}

/// A timeout in ticks; at most half of what a deadline can tell from the past.
pub(crate) fn ticks(timeout: Duration) -> u32 {
    let ticks = timeout.as_nanos() >> TICK_SHIFT;
    u32::try_from(ticks).unwrap_or(u32::MAX).clamp(1, u32::MAX / 4)
}
