//! A load report as sections and back.

mod fields;
mod port_groups;
mod services;

use super::brief::{self, Moment};
use super::exclusions::exclusion_bytes;
use super::section::{SECTION_HEADER_LENGTH, push_list, push_section};
use super::{DATAGRAM_MAX, DIRECTORS_MAX, HEADER_LENGTH, METRICS_MAX, NAME_MAX, SERVICES_MAX};
use crate::auth::TAG_LENGTH;
use crate::exclusions::EXCLUSIONS_PER_DATAGRAM;
use dpr_model::{
    Capacity, Exclusion, Incarnation, LoadReport, MapVersion, MetricSample, NodeId, NodeState, ReceivedFrom,
    Weight,
};
use dpr_wire::concat;
use services::push_services;
use std::net::IpAddr;
use std::time::Duration;

pub(super) use fields::decode;
pub use port_groups::PORT_RANGES_IN_ALL_MAX;

use port_groups::{Membership, PORT_GROUPS};

/// Section types.
const NODE: u16 = 1;
const ADDRESS: u16 = 2;
const NAME: u16 = 3;
const INTERVAL: u16 = 4;
const METRICS: u16 = 5;
const SERVICES_V4: u16 = 6;
const SERVICES_V6: u16 = 7;
const RECEIVED: u16 = 8;
const CONTENT_VERSION: u16 = 9;
const NAT_PORTS: u16 = 10;
const MAP_VERSION: u16 = 11;
pub(super) const EXCLUSIONS: u16 = 12;

/// Bytes of one list entry.
const METRIC_LENGTH: usize = 3;
const RECEIVED_LENGTH: usize = 20;

/// Acknowledgements that every datagram has room for, whatever else the report says.
const ACKNOWLEDGEMENTS_MIN: usize = 8;
/// Section header and entry length of the list of acknowledgements.
const RECEIVED_OVERHEAD: usize = SECTION_HEADER_LENGTH + 1;
/// Bytes for all sections.
const SECTIONS_MAX: usize = DATAGRAM_MAX - HEADER_LENGTH - TAG_LENGTH;
/// Bytes for all sections but the acknowledgements.
const REPORT_MAX: usize = SECTIONS_MAX - RECEIVED_OVERHEAD - ACKNOWLEDGEMENTS_MIN * RECEIVED_LENGTH;

/// A report that is known to fit into a datagram, encoded but for its acknowledgements.
#[derive(Clone, Debug)]
pub struct EncodedReport {
    moment: Moment,
    /// What hardly ever changes, and stands in one section with what does.
    size: (Capacity, Weight),
    /// The sections that differ from report to report.
    varying: Vec<u8>,
    /// All others.
    lasting: Vec<u8>,
    /// The section that says which addresses are kept out of DNS; empty if there is nothing to say.
    exclusions: Vec<u8>,
}

impl EncodedReport {
    /// Encodes all of `report` but `received`, which changes from datagram to datagram.
    pub fn new(report: &LoadReport, interval: Duration) -> Result<Self, ReportError> {
        check(report)?;
        let (mut varying, mut lasting) = (Vec::new(), Vec::new());
        push_section(&mut varying, NODE, &node_bytes(report));
        push_list(&mut varying, METRICS, report.metrics.iter().map(metric_bytes));
        push_lasting(&mut lasting, report, interval);
        push_services(&mut lasting, &report.services);
        push_list(&mut lasting, PORT_GROUPS, Membership::of(&report.services).map(Membership::bytes));
        let bytes = varying.len() + lasting.len();
        if bytes > REPORT_MAX {
            return Err(ReportError::TooLarge { bytes, max: REPORT_MAX });
        }
        let moment = Moment { state: report.state, load: report.load };
        let size = (report.capacity, report.weight);
        Ok(Self { moment, size, varying, lasting, exclusions: Vec::new() })
    }

    /// Whether a brief report says all that is new in this one, to whom `before` is known. Metrics do not count: they are
    /// for people, who can wait for the next full one.
    pub(crate) fn differs_briefly(&self, before: &Self) -> bool {
        (self.size, &self.lasting) == (before.size, &before.lasting)
    }

    /// Says from now on what operators decided about service addresses; at most [`EXCLUSIONS_PER_DATAGRAM`] of it.
    pub(crate) fn set_exclusions(&mut self, exclusions: &[Exclusion]) {
        self.exclusions.clear();
        let told = exclusions.iter().take(EXCLUSIONS_PER_DATAGRAM);
        push_list(&mut self.exclusions, EXCLUSIONS, told.map(exclusion_bytes));
    }

    /// Acknowledgements that fit beside it: at least 8, or 1 while it carries exclusions.
    pub fn acknowledgements_max(&self) -> usize {
        let used = RECEIVED_OVERHEAD + self.varying.len() + self.lasting.len() + self.exclusions.len();
        (SECTIONS_MAX - used) / RECEIVED_LENGTH
    }

    /// Acknowledgements that fit into a brief report.
    pub fn brief_acknowledgements_max(&self) -> usize {
        brief::acknowledgements_max(self.exclusions.len())
    }

    pub(super) fn write_to(&self, bytes: &mut Vec<u8>, received: &[ReceivedFrom]) {
        bytes.extend(&self.varying);
        bytes.extend(&self.lasting);
        bytes.extend(&self.exclusions);
        let fitting = received.iter().take(self.acknowledgements_max());
        push_list(bytes, RECEIVED, fitting.map(received_bytes));
    }

    pub(super) fn write_brief_to(&self, bytes: &mut Vec<u8>, received: &[ReceivedFrom]) {
        brief::push(bytes, self.moment, &self.exclusions, received);
    }
}

/// Why this node's own report cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It speaks for another node or life than the configuration.
    #[error("report of {node}, incarnation {}, is not this node's", incarnation.0)]
    NotOwn {
        /// Node of the report.
        node: NodeId,
        /// Incarnation of the report.
        incarnation: Incarnation,
    },
    /// The name is longer than [`NAME_MAX`] or has control characters.
    #[error("name of {length} bytes is longer than {NAME_MAX} or has control characters")]
    Name {
        /// Its bytes.
        length: usize,
    },
    /// No tunnel can end at the node address.
    #[error("{0} cannot be a node address")]
    Address(IpAddr),
    /// More metrics than [`METRICS_MAX`].
    #[error("{0} metrics are more than {METRICS_MAX}")]
    TooManyMetrics(usize),
    /// More services than [`SERVICES_MAX`].
    #[error("{0} services are more than {SERVICES_MAX}")]
    TooManyServices(usize),
    /// More port ranges than [`PORT_RANGES_IN_ALL_MAX`].
    #[error("{0} port ranges of services are more than {PORT_RANGES_IN_ALL_MAX}")]
    TooManyPortRanges(usize),
    /// More acknowledged directors than [`DIRECTORS_MAX`].
    #[error("{0} acknowledged directors are more than {DIRECTORS_MAX}")]
    TooManyDirectors(usize),
    /// Everything together does not fit into a datagram.
    #[error("{bytes} bytes of report are more than {max}")]
    TooLarge {
        /// Bytes of its sections.
        bytes: usize,
        /// Bytes that fit.
        max: usize,
    },
}

fn check(report: &LoadReport) -> Result<(), ReportError> {
    if !is_name(&report.name) {
        return Err(ReportError::Name { length: report.name.len() });
    }
    if !is_node_address(report.address) {
        return Err(ReportError::Address(report.address));
    }
    if report.metrics.len() > METRICS_MAX {
        return Err(ReportError::TooManyMetrics(report.metrics.len()));
    }
    if report.services.len() > SERVICES_MAX {
        return Err(ReportError::TooManyServices(report.services.len()));
    }
    let port_ranges = Membership::of(&report.services).count();
    if port_ranges > PORT_RANGES_IN_ALL_MAX {
        return Err(ReportError::TooManyPortRanges(port_ranges));
    }
    if report.received.len() > DIRECTORS_MAX {
        return Err(ReportError::TooManyDirectors(report.received.len()));
    }
    Ok(())
}

/// Control characters in a name would reach the terminals of those who look at it.
fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX && !name.chars().any(char::is_control)
}

fn is_node_address(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast
}

fn node_bytes(report: &LoadReport) -> [u8; 9] {
    concat(&[
        &[state_number(report.state)],
        &report.load.0.to_be_bytes(),
        &report.capacity.get().to_be_bytes(),
        &report.weight.0.to_be_bytes(),
    ])
}

fn push_lasting(sections: &mut Vec<u8>, report: &LoadReport, interval: Duration) {
    match report.address {
        IpAddr::V4(v4) => push_section(sections, ADDRESS, &v4.octets()),
        IpAddr::V6(v6) => push_section(sections, ADDRESS, &v6.octets()),
    }
    let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
    push_section(sections, INTERVAL, &interval_ms.to_be_bytes());
    if !report.name.is_empty() {
        push_section(sections, NAME, report.name.as_bytes());
    }
    if report.content_version != 0 {
        push_section(sections, CONTENT_VERSION, &report.content_version.to_be_bytes());
    }
    if let Some(ports) = report.nat_ports {
        let (first, last) = (ports.first().to_be_bytes(), ports.last().to_be_bytes());
        push_section(sections, NAT_PORTS, &concat::<4>(&[&first, &last]));
    }
    if report.map_version != MapVersion::default() {
        push_section(sections, MAP_VERSION, &map_version_bytes(report.map_version));
    }
}

pub(super) fn state_number(state: NodeState) -> u8 {
    match state {
        NodeState::Joining => 1,
        NodeState::Active => 2,
        NodeState::Draining => 3,
        NodeState::Leaving => 4,
    }
}

/// A state of a later version is read as draining: alive, and not chosen for what this version would send.
pub(super) fn state_of(number: u8) -> NodeState {
    match number {
        1 => NodeState::Joining,
        2 => NodeState::Active,
        4 => NodeState::Leaving,
        _ => NodeState::Draining,
    }
}

fn map_version_bytes(version: MapVersion) -> [u8; 20] {
    concat(&[&version.term.to_be_bytes(), &version.epoch.to_be_bytes(), &version.coordinator.to_be_bytes()])
}

fn metric_bytes(sample: &MetricSample) -> [u8; METRIC_LENGTH] {
    concat(&[&[sample.metric.number()], &sample.load.0.to_be_bytes()])
}

fn received_bytes(received: &ReceivedFrom) -> [u8; RECEIVED_LENGTH] {
    concat(&[
        &received.director.0.to_be_bytes(),
        &received.incarnation.0.to_be_bytes(),
        &received.connections.to_be_bytes(),
    ])
}
