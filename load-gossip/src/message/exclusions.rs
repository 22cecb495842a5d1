//! What operators decided about service addresses, as entries of a list.

use super::section::entries;
use crate::error::DatagramError;
use crate::exclusions::{DECIDED_MS_MAX, EXCLUSIONS_MAX};
use dpr_model::{Exclusion, NodeId};
use dpr_wire::{Fields, concat};
use std::net::{IpAddr, Ipv6Addr};

/// Bytes of one entry.
const EXCLUSION_LENGTH: usize = 29;

/// Flag: the address is out.
const FLAG_EXCLUDED: u8 = 1;

pub(super) fn exclusion_bytes(exclusion: &Exclusion) -> [u8; EXCLUSION_LENGTH] {
    let address = match exclusion.address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    concat(&[
        &address.octets(),
        &[if exclusion.excluded { FLAG_EXCLUDED } else { 0 }],
        &exclusion.decided_ms.to_be_bytes(),
        &exclusion.by.0.to_be_bytes(),
    ])
}

/// Appends what the section says to `exclusions`.
pub(super) fn read_exclusions(
    section: u16,
    content: &[u8],
    exclusions: &mut Vec<Exclusion>,
) -> Result<(), DatagramError> {
    for entry in entries::<EXCLUSION_LENGTH>(section, content, EXCLUSIONS_MAX)? {
        exclusions.push(exclusion(&mut Fields::new(entry)).ok_or(DatagramError::BadExclusion)?);
    }
    Ok(())
}

fn exclusion(fields: &mut Fields<'_>) -> Option<Exclusion> {
    let address = Ipv6Addr::from(fields.array::<16>()?).to_canonical();
    let excluded = fields.u8()? & FLAG_EXCLUDED != 0;
    let decided_ms = fields.u64().filter(|decided_ms| *decided_ms < DECIDED_MS_MAX)?;
    Some(Exclusion { address, excluded, decided_ms, by: NodeId(fields.u32()?) })
}
