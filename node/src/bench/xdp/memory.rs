//! What an entry of an established connection takes in the kernel.

use super::path::Path;
use anyhow::Context as _;
use dpr_xdp::{Connections, Walk};
use std::fs;

/// Memory of both tables of established connections by their entries, bytes, and fills the one over IPv6; `None` where the kernel does
/// not say. Both have room for `table` entries.
///
/// Over IPv4 all of it is taken at once, and the kernel says how much. Over IPv6 that is so of the buckets. Entries are taken as they
/// come, and what the kernel says of them is their own length; they lie in pieces of slabs that are longer (128 bytes for 112), each
/// with a note about whom it is charged to. So the slabs themselves are asked.
pub(super) fn bytes_per_entry(path: &mut Path, walk: &Walk, table: u32) -> anyhow::Result<[Option<u64>; 2]> {
    let [over_ipv4, buckets] = path.tables.memory_bytes(Connections::Flows)?;
    let before = slabs()?;
    path.fill(walk)?;
    let entries = slabs()?.saturating_sub(before);
    let over_ipv6 = buckets.map(|bytes| bytes / u64::from(table) + entries / u64::from(walk.flows));
    Ok([over_ipv4.map(|bytes| bytes / u64::from(table)), over_ipv6])
}

/// Bytes of the kernel's slabs that it cannot take back; what others do meanwhile is among them.
fn slabs() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("SUnreclaim:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("/proc/meminfo does not say how large slabs are")? * 1024)
}
