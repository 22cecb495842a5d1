//! Services of a report: how they are forwarded, delivered and shared, in a few bytes each.

use super::{SERVICES_V4, SERVICES_V6};
use crate::error::DatagramError;
use crate::message::SERVICES_MAX;
use crate::message::section::{entries, push_list};
use dpr_model::{
    DeliveryMode, ForwardingMethod, Ingress, PartitionBy, PortGroup, Protocol, ServiceReport, ServiceSocket,
    Sharing,
};
use dpr_wire::{Fields, concat};
use std::net::IpAddr;

/// Bytes of an entry that says nothing of sharing; one more says it.
const SERVICE_V4_LENGTH: usize = 8;
const SERVICE_V6_LENGTH: usize = 20;

/// Flag of a service: its server accepts connections.
const FLAG_HEALTHY: u8 = 1;
/// Three bits of a service's flags: its forwarding method.
const METHOD_SHIFT: u8 = 1;
const METHOD_MASK: u8 = 0b111;
/// Flag of a service: its packets are delivered without translation.
const FLAG_ALIAS: u8 = 1 << 4;

/// Lower half of the byte about sharing: who may own the slots.
const SHARING_MASK: u8 = 0b1111;
/// Upper half: what decides about a flow's slot.
const PARTITION_SHIFT: u8 = 4;

/// Appends both lists. Entries are longer than they always were only if some service needs it.
pub(super) fn push_services(bytes: &mut Vec<u8>, services: &[ServiceReport]) {
    if services.iter().all(|service| sharing_byte(service) == 0) {
        push_list(bytes, SERVICES_V4, services.iter().filter_map(v4_bytes));
        push_list(bytes, SERVICES_V6, services.iter().filter_map(v6_bytes));
        return;
    }
    let v4 = services.iter().filter_map(|service| Some((v4_bytes(service)?, sharing_byte(service))));
    let v6 = services.iter().filter_map(|service| Some((v6_bytes(service)?, sharing_byte(service))));
    push_list(
        bytes,
        SERVICES_V4,
        v4.map(|(entry, sharing)| -> [u8; SERVICE_V4_LENGTH + 1] { concat(&[&entry, &[sharing]]) }),
    );
    push_list(
        bytes,
        SERVICES_V6,
        v6.map(|(entry, sharing)| -> [u8; SERVICE_V6_LENGTH + 1] { concat(&[&entry, &[sharing]]) }),
    );
}

/// Reads services of IPv4.
pub(super) fn read_v4(content: &[u8], services: &mut Vec<ServiceReport>) -> Result<(), DatagramError> {
    if has_entries_longer_than(SERVICE_V4_LENGTH, content) {
        let list = entries::<{ SERVICE_V4_LENGTH + 1 }>(SERVICES_V4, content, SERVICES_MAX)?;
        services.extend(list.filter_map(|entry| service(Fields::new(entry), Fields::ipv4)));
    } else {
        let list = entries::<SERVICE_V4_LENGTH>(SERVICES_V4, content, SERVICES_MAX)?;
        services.extend(list.filter_map(|entry| service(Fields::new(entry), Fields::ipv4)));
    }
    Ok(())
}

/// Reads services of IPv6.
pub(super) fn read_v6(content: &[u8], services: &mut Vec<ServiceReport>) -> Result<(), DatagramError> {
    if has_entries_longer_than(SERVICE_V6_LENGTH, content) {
        let list = entries::<{ SERVICE_V6_LENGTH + 1 }>(SERVICES_V6, content, SERVICES_MAX)?;
        services.extend(list.filter_map(|entry| service(Fields::new(entry), Fields::ipv6)));
    } else {
        let list = entries::<SERVICE_V6_LENGTH>(SERVICES_V6, content, SERVICES_MAX)?;
        services.extend(list.filter_map(|entry| service(Fields::new(entry), Fields::ipv6)));
    }
    Ok(())
}

fn has_entries_longer_than(length: usize, content: &[u8]) -> bool {
    content.first().is_some_and(|entry_length| usize::from(*entry_length) > length)
}

/// A service; `None` for one of a protocol or with a sharing that only later versions know.
#[inline]
fn service<'a>(
    mut fields: Fields<'a>,
    address: impl Fn(&mut Fields<'a>) -> Option<IpAddr>,
) -> Option<ServiceReport> {
    let protocol = Protocol::from_number(fields.u8()?)?;
    let flags = fields.u8()?;
    let port = fields.u16()?;
    let socket = ServiceSocket { address: address(&mut fields)?, port };
    let (sharing, partition_by) = sharing_of(fields.u8().unwrap_or(0))?;
    Some(ServiceReport {
        protocol,
        socket,
        healthy: flags & FLAG_HEALTHY != 0,
        method: method_of(flags),
        delivery: if flags & FLAG_ALIAS != 0 { DeliveryMode::Alias } else { DeliveryMode::Translate },
        ports: PortGroup::NONE,
        sharing,
        partition_by,
    })
}

fn v4_bytes(service: &ServiceReport) -> Option<[u8; SERVICE_V4_LENGTH]> {
    let IpAddr::V4(address) = service.socket.address else { return None };
    Some(concat(&[&prefix(service), &address.octets()]))
}

fn v6_bytes(service: &ServiceReport) -> Option<[u8; SERVICE_V6_LENGTH]> {
    let IpAddr::V6(address) = service.socket.address else { return None };
    Some(concat(&[&prefix(service), &address.octets()]))
}

fn prefix(service: &ServiceReport) -> [u8; 4] {
    let healthy = if service.healthy { FLAG_HEALTHY } else { 0 };
    let alias = if service.delivery == DeliveryMode::Alias { FLAG_ALIAS } else { 0 };
    let flags = healthy | method_number(service.method) << METHOD_SHIFT | alias;
    concat(&[&[service.protocol.number(), flags], &service.socket.port.to_be_bytes()])
}

fn method_number(method: ForwardingMethod) -> u8 {
    match method {
        ForwardingMethod::Ipip => 0,
        ForwardingMethod::Gue => 1,
        ForwardingMethod::Nat => 2,
        ForwardingMethod::HalfNat => 3,
        ForwardingMethod::Dr => 4,
    }
}

/// A method of a later version is read as IP in IP: it says nothing about how packets arrive here.
fn method_of(flags: u8) -> ForwardingMethod {
    match flags >> METHOD_SHIFT & METHOD_MASK {
        1 => ForwardingMethod::Gue,
        2 => ForwardingMethod::Nat,
        3 => ForwardingMethod::HalfNat,
        4 => ForwardingMethod::Dr,
        _ => ForwardingMethod::Ipip,
    }
}

fn sharing_byte(service: &ServiceReport) -> u8 {
    let sharing = match service.sharing {
        Sharing::Home => 0,
        Sharing::Takeover => 1,
        Sharing::Shared(Ingress::SharedMac) => 2,
        Sharing::Shared(Ingress::ArpOwner) => 3,
        Sharing::Shared(Ingress::Routed) => 4,
    };
    sharing | (service.partition_by as u8) << PARTITION_SHIFT
}

fn sharing_of(byte: u8) -> Option<(Sharing, PartitionBy)> {
    let sharing = match byte & SHARING_MASK {
        0 => Sharing::Home,
        1 => Sharing::Takeover,
        2 => Sharing::Shared(Ingress::SharedMac),
        3 => Sharing::Shared(Ingress::ArpOwner),
        4 => Sharing::Shared(Ingress::Routed),
        _ => return None,
    };
    let partition_by = PartitionBy::ALL.get(usize::from(byte >> PARTITION_SHIFT))?;
    Some((sharing, *partition_by))
}
