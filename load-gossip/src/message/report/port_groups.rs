//! Further ports of services, as entries of a list that is apart from that of the services.

use crate::error::DatagramError;
use crate::message::section::entries;
use dpr_model::{PortRange, Protocol, ServiceReport, ServiceSocket};
use dpr_wire::{Fields, concat};
use std::net::{IpAddr, Ipv6Addr};

/// Section type.
pub(super) const PORT_GROUPS: u16 = 13;

/// Port ranges of all services of a report at most.
pub const PORT_RANGES_IN_ALL_MAX: usize = 16;

/// Bytes of one entry.
const ENTRY_LENGTH: usize = 23;

/// A range of ports and the service that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    protocol: Protocol,
    service: ServiceSocket,
    ports: PortRange,
}

impl Membership {
    /// All of a report.
    pub(super) fn of(services: &[ServiceReport]) -> impl Iterator<Item = Self> {
        services.iter().flat_map(|service| {
            let ServiceReport { protocol, socket, .. } = *service;
            service.ports.ranges().map(move |ports| Self { protocol, service: socket, ports })
        })
    }

    pub(super) fn bytes(self) -> [u8; ENTRY_LENGTH] {
        let address = match self.service.address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        concat(&[
            &[self.protocol.number()],
            &self.service.port.to_be_bytes(),
            &address.octets(),
            &self.ports.first().to_be_bytes(),
            &self.ports.last().to_be_bytes(),
        ])
    }

    /// An entry; of protocols that only later versions know there is none.
    fn read(fields: &mut Fields<'_>) -> Option<Result<Self, DatagramError>> {
        let protocol = Protocol::from_number(fields.u8()?)?;
        let port = fields.u16()?;
        let address = Ipv6Addr::from(fields.array::<16>()?).to_canonical();
        let (first, last) = (fields.u16()?, fields.u16()?);
        let service = ServiceSocket { address, port };
        let ports = PortRange::new(first, last).ok_or(DatagramError::BadPorts { first, last });
        Some(ports.map(|ports| Self { protocol, service, ports }))
    }

    /// Gives the range to its service; one that is not there, or has as many as it may have, does without.
    fn join(self, services: &mut [ServiceReport]) {
        // As addresses are written here, an IPv4 address cannot be told from its mapped form.
        let is_its = |service: &&mut ServiceReport| {
            let address = service.socket.address.to_canonical();
            (service.protocol, ServiceSocket { address, ..service.socket }) == (self.protocol, self.service)
        };
        if let Some(service) = services.iter_mut().find(is_its) {
            service.ports.add(self.ports);
        }
    }
}

/// Reads the section, and gives `services` their further ports.
pub(super) fn read_port_groups(content: &[u8], services: &mut [ServiceReport]) -> Result<(), DatagramError> {
    for entry in entries::<ENTRY_LENGTH>(PORT_GROUPS, content, PORT_RANGES_IN_ALL_MAX)? {
        if let Some(membership) = Membership::read(&mut Fields::new(entry)) {
            membership?.join(services);
        }
    }
    Ok(())
}
