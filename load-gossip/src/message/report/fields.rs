//! Reading a report out of its sections.

use super::port_groups::read_port_groups;
use super::services::{read_v4, read_v6};
use super::{
    ADDRESS, CONTENT_VERSION, EXCLUSIONS, INTERVAL, METRIC_LENGTH, METRICS, NAME, NAT_PORTS, NODE,
    PORT_GROUPS, RECEIVED, RECEIVED_LENGTH, SERVICES_V4, SERVICES_V6, is_name, is_node_address, state_of,
};
use crate::error::DatagramError;
use crate::message::exclusions::read_exclusions;
use crate::message::section::{Sections, entries};
use crate::message::{DATAGRAM_MAX, Datagram, Header, METRICS_MAX};
use dpr_model::{
    Capacity, Incarnation, LoadPermille, LoadReport, MapVersion, Metric, MetricSample, NodeId, PortRange,
    ReceivedFrom, Weight,
};
use dpr_wire::Fields;
use std::net::IpAddr;
use std::time::Duration;

/// Reads the sections into `datagram`, whose memory is used again; what is in it after an error means nothing. The
/// report's services of IPv4 come before those of IPv6.
pub(in crate::message) fn decode(
    header: Header,
    bytes: &[u8],
    datagram: &mut Datagram,
) -> Result<(), DatagramError> {
    datagram.begin(header);
    // One bit per known section type.
    let mut read: u16 = 0;
    let mut port_groups = None;
    for section in Sections::new(bytes) {
        let (section, content) = section?;
        if !(NODE..=PORT_GROUPS).contains(&section) {
            continue;
        }
        if read & 1 << section != 0 {
            return Err(DatagramError::RepeatedSection(section));
        }
        read |= 1 << section;
        match section {
            // The services that it is about may come after it.
            PORT_GROUPS => port_groups = Some(content),
            _ => read_section(section, content, datagram)?,
        }
    }
    if let Some(content) = port_groups {
        read_port_groups(content, &mut datagram.report.services)?;
    }
    let missing = [NODE, ADDRESS].into_iter().find(|section| read & 1 << section == 0);
    missing.map_or(Ok(()), |section| Err(DatagramError::MissingSection(section)))
}

#[inline]
fn read_section(section: u16, content: &[u8], datagram: &mut Datagram) -> Result<(), DatagramError> {
    let bad_length = DatagramError::BadSectionLength { section, length: content.len() };
    let mut fields = Fields::new(content);
    let report = &mut datagram.report;
    match section {
        NODE => read_node(&mut fields, report).ok_or(bad_length)?,
        ADDRESS => report.address = node_address(content).ok_or(bad_length)??,
        NAME => report.name.push_str(name(content)?),
        INTERVAL => {
            let interval_ms = fields.u32().ok_or(bad_length)?;
            datagram.interval = Some(Duration::from_millis(interval_ms.into()));
        }
        METRICS => read_metrics(content, &mut report.metrics)?,
        SERVICES_V4 => {
            let of_v6 = report.services.len();
            read_v4(content, &mut report.services)?;
            report.services.rotate_left(of_v6);
        }
        SERVICES_V6 => read_v6(content, &mut report.services)?,
        RECEIVED => read_received(content, &mut report.received)?,
        CONTENT_VERSION => report.content_version = fields.u64().ok_or(bad_length)?,
        NAT_PORTS => report.nat_ports = Some(nat_ports(&mut fields).ok_or(bad_length)??),
        EXCLUSIONS => read_exclusions(section, content, &mut datagram.exclusions)?,
        _ => report.map_version = map_version(&mut fields).ok_or(bad_length)?,
    }
    Ok(())
}

fn read_node(fields: &mut Fields<'_>, report: &mut LoadReport) -> Option<()> {
    report.state = state_of(fields.u8()?);
    report.load = LoadPermille(fields.u16()?);
    report.capacity = Capacity::new(fields.u32()?);
    report.weight = Weight(fields.u16()?);
    Some(())
}

/// The family follows from the length, so this section cannot grow.
fn node_address(content: &[u8]) -> Option<Result<IpAddr, DatagramError>> {
    let mut fields = Fields::new(content);
    let address = match content.len() {
        4 => fields.ipv4()?,
        16 => fields.ipv6()?,
        _ => return None,
    };
    Some(if is_node_address(address) { Ok(address) } else { Err(DatagramError::BadAddress(address)) })
}

fn name(content: &[u8]) -> Result<&str, DatagramError> {
    match std::str::from_utf8(content) {
        Ok(name) if is_name(name) => Ok(name),
        _ => Err(DatagramError::BadName { length: content.len() }),
    }
}

fn nat_ports(fields: &mut Fields<'_>) -> Option<Result<PortRange, DatagramError>> {
    let (first, last) = (fields.u16()?, fields.u16()?);
    Some(PortRange::new(first, last).ok_or(DatagramError::BadPorts { first, last }))
}

fn map_version(fields: &mut Fields<'_>) -> Option<MapVersion> {
    Some(MapVersion { term: fields.u64()?, epoch: fields.u64()?, coordinator: fields.u32()? })
}

/// Metrics of later versions are skipped.
fn read_metrics(content: &[u8], metrics: &mut Vec<MetricSample>) -> Result<(), DatagramError> {
    let list = entries::<METRIC_LENGTH>(METRICS, content, METRICS_MAX)?;
    metrics.extend(list.filter_map(|[number, high, low]| {
        let load = LoadPermille(u16::from_be_bytes([*high, *low]));
        Some(MetricSample { metric: Metric::from_number(*number)?, load })
    }));
    Ok(())
}

fn read_received(content: &[u8], received: &mut Vec<ReceivedFrom>) -> Result<(), DatagramError> {
    let list = entries::<RECEIVED_LENGTH>(RECEIVED, content, DATAGRAM_MAX / RECEIVED_LENGTH)?;
    received.extend(list.filter_map(|entry| {
        let mut fields = Fields::new(entry);
        Some(ReceivedFrom {
            director: NodeId(fields.u32()?),
            incarnation: Incarnation(fields.u64()?),
            connections: fields.u64()?,
        })
    }));
    Ok(())
}
