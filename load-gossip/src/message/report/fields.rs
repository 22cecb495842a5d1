//! Reading a report out of its sections.

use super::{
    ADDRESS, CONTENT_VERSION, EXCLUSIONS, FLAG_ALIAS, FLAG_HEALTHY, INTERVAL, METRIC_LENGTH, METRICS, NAME,
    NAT_PORTS, NODE, RECEIVED, RECEIVED_LENGTH, SERVICE_V4_LENGTH, SERVICE_V6_LENGTH, SERVICES_V4,
    SERVICES_V6, is_name, is_node_address, method_of, state_of,
};
use crate::error::DatagramError;
use crate::message::exclusions::exclusions;
use crate::message::section::{Sections, entries};
use crate::message::{DATAGRAM_MAX, Datagram, Header, METRICS_MAX, SERVICES_MAX};
use dpr_model::{
    Capacity, DeliveryMode, Exclusion, Incarnation, LoadPermille, LoadReport, MapVersion, Metric,
    MetricSample, NodeId, NodeState, PortRange, Protocol, ReceivedFrom, ServiceReport, ServiceSocket, Weight,
};
use dpr_wire::Fields;
use std::net::IpAddr;
use std::time::Duration;

/// Reads the sections; the report's services of IPv4 come before those of IPv6.
pub(in crate::message) fn decode(header: Header, bytes: &[u8]) -> Result<Datagram, DatagramError> {
    let mut fields = ReportFields::default();
    for section in Sections::new(bytes) {
        let (section, content) = section?;
        fields.read(section, content)?;
    }
    let (interval, exclusions) = (fields.interval, std::mem::take(&mut fields.exclusions));
    let report = fields.into_report(&header)?;
    Ok(Datagram { header, interval, report, exclusions })
}

/// What was read so far.
#[derive(Default)]
struct ReportFields {
    /// One bit per known section type.
    read: u16,
    node: Option<NodeFields>,
    address: Option<IpAddr>,
    name: String,
    interval: Option<Duration>,
    metrics: Vec<MetricSample>,
    services_v4: Vec<ServiceReport>,
    services_v6: Vec<ServiceReport>,
    received: Vec<ReceivedFrom>,
    content_version: u64,
    nat_ports: Option<PortRange>,
    map_version: MapVersion,
    exclusions: Vec<Exclusion>,
}

struct NodeFields {
    state: NodeState,
    load: LoadPermille,
    capacity: Capacity,
    weight: Weight,
}

impl ReportFields {
    fn read(&mut self, section: u16, content: &[u8]) -> Result<(), DatagramError> {
        if !(NODE..=EXCLUSIONS).contains(&section) {
            return Ok(());
        }
        if self.read & 1 << section != 0 {
            return Err(DatagramError::RepeatedSection(section));
        }
        self.read |= 1 << section;
        let bad_length = DatagramError::BadSectionLength { section, length: content.len() };
        let mut fields = Fields::new(content);
        match section {
            NODE => self.node = Some(node_fields(&mut fields).ok_or(bad_length)?),
            ADDRESS => self.address = Some(node_address(content).ok_or(bad_length)??),
            NAME => self.name = name(content)?,
            INTERVAL => {
                let interval_ms = fields.u32().ok_or(bad_length)?;
                self.interval = Some(Duration::from_millis(interval_ms.into()));
            }
            METRICS => self.metrics = metrics(content)?,
            SERVICES_V4 => {
                self.services_v4 = services(section, content, SERVICE_V4_LENGTH, Fields::ipv4)?;
            }
            SERVICES_V6 => {
                self.services_v6 = services(section, content, SERVICE_V6_LENGTH, Fields::ipv6)?;
            }
            RECEIVED => self.received = received(content)?,
            CONTENT_VERSION => self.content_version = fields.u64().ok_or(bad_length)?,
            NAT_PORTS => self.nat_ports = Some(nat_ports(&mut fields).ok_or(bad_length)??),
            EXCLUSIONS => self.exclusions = exclusions(section, content)?,
            _ => self.map_version = map_version(&mut fields).ok_or(bad_length)?,
        }
        Ok(())
    }

    fn into_report(self, header: &Header) -> Result<LoadReport, DatagramError> {
        let node = self.node.ok_or(DatagramError::MissingSection(NODE))?;
        let address = self.address.ok_or(DatagramError::MissingSection(ADDRESS))?;
        let mut services = self.services_v4;
        services.extend(self.services_v6);
        Ok(LoadReport {
            node: header.sender,
            incarnation: header.incarnation,
            name: self.name,
            state: node.state,
            address,
            capacity: node.capacity,
            weight: node.weight,
            load: node.load,
            metrics: self.metrics,
            services,
            received: self.received,
            content_version: self.content_version,
            nat_ports: self.nat_ports,
            map_version: self.map_version,
        })
    }
}

fn node_fields(fields: &mut Fields<'_>) -> Option<NodeFields> {
    Some(NodeFields {
        state: state_of(fields.u8()?),
        load: LoadPermille(fields.u16()?),
        capacity: Capacity::new(fields.u32()?),
        weight: Weight(fields.u16()?),
    })
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

fn name(content: &[u8]) -> Result<String, DatagramError> {
    match std::str::from_utf8(content) {
        Ok(name) if is_name(name) => Ok(name.to_owned()),
        _ => Err(DatagramError::BadName { length: content.len() }),
    }
}

fn nat_ports(fields: &mut Fields<'_>) -> Option<Result<PortRange, DatagramError>> {
    let (first, last) = (fields.u16()?, fields.u16()?);
    Some(PortRange::new(first, last).ok_or(DatagramError::BadNatPorts { first, last }))
}

fn map_version(fields: &mut Fields<'_>) -> Option<MapVersion> {
    Some(MapVersion { term: fields.u64()?, epoch: fields.u64()?, coordinator: fields.u32()? })
}

/// Metrics of later versions are skipped.
fn metrics(content: &[u8]) -> Result<Vec<MetricSample>, DatagramError> {
    let list = entries(METRICS, content, METRIC_LENGTH, METRICS_MAX)?;
    Ok(known(list, |entry| {
        let metric = Metric::from_number(entry.u8()?)?;
        Some(MetricSample { metric, load: LoadPermille(entry.u16()?) })
    }))
}

/// Services of protocols that only later versions know are skipped.
fn services<'a>(
    section: u16,
    content: &'a [u8],
    entry_length: usize,
    address: fn(&mut Fields<'a>) -> Option<IpAddr>,
) -> Result<Vec<ServiceReport>, DatagramError> {
    let list = entries(section, content, entry_length, SERVICES_MAX)?;
    Ok(known(list, |entry| {
        let protocol = Protocol::from_number(entry.u8()?)?;
        let flags = entry.u8()?;
        let port = entry.u16()?;
        let socket = ServiceSocket { address: address(entry)?, port };
        let delivery = if flags & FLAG_ALIAS != 0 { DeliveryMode::Alias } else { DeliveryMode::Translate };
        let healthy = flags & FLAG_HEALTHY != 0;
        Some(ServiceReport { protocol, socket, healthy, method: method_of(flags), delivery })
    }))
}

fn received(content: &[u8]) -> Result<Vec<ReceivedFrom>, DatagramError> {
    let list = entries(RECEIVED, content, RECEIVED_LENGTH, DATAGRAM_MAX / RECEIVED_LENGTH)?;
    Ok(known(list, |entry| {
        Some(ReceivedFrom {
            director: NodeId(entry.u32()?),
            incarnation: Incarnation(entry.u64()?),
            connections: entry.u64()?,
        })
    }))
}

/// The entries that this version knows, in one allocation: nearly always that is all of them.
fn known<'a, T>(
    list: impl ExactSizeIterator<Item = Fields<'a>>,
    mut read: impl FnMut(&mut Fields<'a>) -> Option<T>,
) -> Vec<T> {
    let mut entries = Vec::with_capacity(list.len());
    entries.extend(list.filter_map(|mut entry| read(&mut entry)));
    entries
}
