//! Brief reports: what differs from report to report, between two full ones.
//!
//! State and load, then sections. What a brief report does not say is as the sender's last full one said it; so it
//! introduces nobody.

use super::exclusions::read_exclusions;
use super::report::{EXCLUSIONS, state_number, state_of};
use super::section::{SECTION_HEADER_LENGTH, Sections, entries, push_list};
use super::{DATAGRAM_MAX, HEADER_LENGTH};
use crate::auth::TAG_LENGTH;
use crate::error::DatagramError;
use dpr_model::{Exclusion, Incarnation, LoadPermille, NodeId, NodeState, ReceivedFrom};
use dpr_wire::{Fields, concat};

/// Section type: acknowledgements, shorter than those of full reports.
const RECEIVED: u16 = 14;

/// Bytes of state and load.
const MOMENT_LENGTH: usize = 3;
/// Bytes of an acknowledgement whose count fits into 32 bits: director, lower half of its incarnation, count.
const RECEIVED_LENGTH: usize = 12;
/// The same with the upper half of the count.
const RECEIVED_LENGTH_MAX: usize = 16;

/// What of a node differs from report to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What it is doing.
    pub state: NodeState,
    /// How loaded it is.
    pub load: LoadPermille,
}

/// A brief report as one of its receivers reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brief {
    /// State and load.
    pub moment: Moment,
    /// How many connections of the receiver's present life the sender says that it received; `None` if it does not say.
    pub acknowledged: Option<u64>,
    /// What operators decided about service addresses; those whose turn it was.
    pub exclusions: Vec<Exclusion>,
}

/// Acknowledgements that fit beside a section of exclusions, `exclusions_length` bytes long.
pub(crate) fn acknowledgements_max(exclusions_length: usize) -> usize {
    let overhead = HEADER_LENGTH + MOMENT_LENGTH + SECTION_HEADER_LENGTH + 1 + TAG_LENGTH;
    (DATAGRAM_MAX - overhead - exclusions_length) / RECEIVED_LENGTH_MAX
}

/// Appends a brief report; `exclusions` is a whole section or nothing.
pub(super) fn push(bytes: &mut Vec<u8>, moment: Moment, exclusions: &[u8], received: &[ReceivedFrom]) {
    bytes.push(state_number(moment.state));
    bytes.extend(moment.load.0.to_be_bytes());
    bytes.extend(exclusions);
    let fitting = received.iter().take(acknowledgements_max(exclusions.len()));
    if fitting.clone().all(|count| u32::try_from(count.connections).is_ok()) {
        push_list(bytes, RECEIVED, fitting.map(short_bytes));
    } else {
        push_list(bytes, RECEIVED, fitting.map(long_bytes));
    }
}

/// Reads the content of a brief report for the node that it came to.
pub(super) fn read(content: &[u8], node: NodeId, incarnation: Incarnation) -> Result<Brief, DatagramError> {
    let mut fields = Fields::new(content);
    let moment = moment(&mut fields).ok_or(DatagramError::TruncatedSection {
        section: 0,
        claimed: MOMENT_LENGTH as u16,
        available: content.len(),
    })?;
    let mut brief = Brief { moment, acknowledged: None, exclusions: Vec::new() };
    let (mut received, mut exclusions) = (None, None);
    for section in Sections::new(fields.rest()) {
        let (section, content) = section?;
        let known = match section {
            RECEIVED => &mut received,
            EXCLUSIONS => &mut exclusions,
            _ => continue,
        };
        if known.replace(content).is_some() {
            return Err(DatagramError::RepeatedSection(section));
        }
    }
    if let Some(content) = received {
        brief.acknowledged = acknowledgement(content, &director_bytes(node, incarnation))?;
    }
    if let Some(content) = exclusions {
        read_exclusions(EXCLUSIONS, content, &mut brief.exclusions)?;
    }
    Ok(brief)
}

fn moment(fields: &mut Fields<'_>) -> Option<Moment> {
    Some(Moment { state: state_of(fields.u8()?), load: LoadPermille(fields.u16()?) })
}

/// What a list of acknowledgements says to one director; the others' are not looked at.
fn acknowledgement(content: &[u8], director: &[u8; 8]) -> Result<Option<u64>, DatagramError> {
    let has_long_entries = content.first().is_some_and(|length| usize::from(*length) >= RECEIVED_LENGTH_MAX);
    if has_long_entries {
        let list = entries::<RECEIVED_LENGTH_MAX>(RECEIVED, content, DATAGRAM_MAX / RECEIVED_LENGTH)?;
        Ok(list.filter_map(|entry| count_for(director, entry)).max())
    } else {
        let list = entries::<RECEIVED_LENGTH>(RECEIVED, content, DATAGRAM_MAX / RECEIVED_LENGTH)?;
        Ok(list.filter_map(|entry| count_for(director, entry)).max())
    }
}

/// The count of an entry, if it is about `director`.
#[inline]
fn count_for(director: &[u8; 8], entry: &[u8]) -> Option<u64> {
    let mut fields = Fields::new(entry);
    if fields.array::<8>()? != *director {
        return None;
    }
    let low = fields.u32()?;
    let high = fields.u32().unwrap_or(0);
    Some(u64::from(high) << 32 | u64::from(low))
}

/// A director's life, as entries name it: its lives are milliseconds apart, so that the lower half of its incarnation
/// names the same one again after 49 days at the earliest.
fn director_bytes(node: NodeId, incarnation: Incarnation) -> [u8; 8] {
    concat(&[&node.0.to_be_bytes(), &incarnation.0.to_be_bytes()[4..]])
}

fn short_bytes(received: &ReceivedFrom) -> [u8; RECEIVED_LENGTH] {
    let director = director_bytes(received.director, received.incarnation);
    concat(&[&director, &received.connections.to_be_bytes()[4..]])
}

fn long_bytes(received: &ReceivedFrom) -> [u8; RECEIVED_LENGTH_MAX] {
    concat(&[&short_bytes(received), &received.connections.to_be_bytes()[..4]])
}
