//! A flow as 37 bytes that are compared and hashed as they are.

use crate::hash::PairHash;
use dpr_model::{ClientSocket, FlowKey, Protocol, ServiceSocket};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

/// Client and service address, client and service port, kind.
///
/// Addresses take 4 bytes each between IPv4 addresses, so that the others are zero and need no hashing, and 16
/// otherwise: an IPv4 address is then stored as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2). The kind holds the protocol
/// and which addresses were IPv4, so that a flow comes back as it went in. Alignment 1 lets an entry fit 60 bytes.
#[derive(Clone, Copy, Debug, Eq)]
pub(crate) struct Key {
    addresses: [u8; 32],
    ports: [u8; 4],
    kind: u8,
}

/// A flow between IPv4 addresses, as [`Key`] has it but for the zeros: nearly every packet needs one, and it stays in
/// registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ipv4Key {
    addresses: [u8; 8],
    ports: [u8; 4],
    kind: u8,
}

impl Ipv4Key {
    #[inline]
    pub(crate) fn new(protocol: Protocol, client: SocketAddrV4, service: SocketAddrV4) -> Self {
        let addresses = u64::from(client.ip().to_bits()) << 32 | u64::from(service.ip().to_bits());
        Self {
            addresses: addresses.to_be_bytes(),
            ports: ports(client.port(), service.port()),
            kind: Key::BOTH_IPV4 | Key::protocol_bit(protocol),
        }
    }

    #[inline]
    pub(crate) fn hash(&self, hash: &PairHash) -> u32 {
        let [client, service] = words(&self.addresses);
        hash.hash([u32::from_ne_bytes(self.ports), self.kind.into(), client, service])
    }
}

impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match self.ipv4() {
            Some(ipv4) => other.is(&ipv4),
            None => (self.kind, self.ports, self.addresses) == (other.kind, other.ports, other.addresses),
        }
    }
}

impl Key {
    /// No flow's.
    pub(crate) const ZERO: Self = Self { addresses: [0; 32], ports: [0; 4], kind: 0 };

    const UDP: u8 = 1;
    const CLIENT_IPV4: u8 = 2;
    const SERVICE_IPV4: u8 = 4;
    const BOTH_IPV4: u8 = Self::CLIENT_IPV4 | Self::SERVICE_IPV4;

    #[inline]
    pub(crate) fn hash(&self, hash: &PairHash) -> u32 {
        if let Some(ipv4) = self.ipv4() {
            return ipv4.hash(hash);
        }
        let [a, b, c, d, e, f, g, h] = words(&self.addresses);
        // Ports and kind come first, since they are in short keys as well.
        hash.hash([u32::from_ne_bytes(self.ports), self.kind.into(), a, b, c, d, e, f, g, h])
    }

    /// True for the key of that flow.
    #[inline]
    pub(crate) fn is(&self, flow: &Ipv4Key) -> bool {
        // The kind says that both addresses are IPv4, and the rest then is zero.
        self.addresses.starts_with(&flow.addresses) && self.ports == flow.ports && self.kind == flow.kind
    }

    #[inline]
    fn ipv4(&self) -> Option<Ipv4Key> {
        let addresses =
            self.addresses.first_chunk().filter(|_| self.kind & Self::BOTH_IPV4 == Self::BOTH_IPV4);
        addresses.map(|addresses| Ipv4Key { addresses: *addresses, ports: self.ports, kind: self.kind })
    }

    #[inline]
    pub(crate) fn protocol(&self) -> Protocol {
        if self.kind & Self::UDP == 0 { Protocol::Tcp } else { Protocol::Udp }
    }

    pub(crate) fn flow(&self) -> FlowKey {
        let (client, service) = match self.ipv4() {
            Some(Ipv4Key { addresses: [a, b, c, d, e, f, g, h], .. }) => {
                (Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into())
            }
            None => (self.address(0, Self::CLIENT_IPV4), self.address(16, Self::SERVICE_IPV4)),
        };
        let [client_high, client_low, service_high, service_low] = self.ports;
        FlowKey {
            protocol: self.protocol(),
            client: ClientSocket { address: client, port: u16::from_be_bytes([client_high, client_low]) },
            service: ServiceSocket {
                address: service,
                port: u16::from_be_bytes([service_high, service_low]),
            },
        }
    }

    fn address(&self, at: usize, ipv4_bit: u8) -> IpAddr {
        let octets: [u8; 16] = std::array::from_fn(|nth| self.addresses[at + nth]);
        let address = Ipv6Addr::from(octets);
        if self.kind & ipv4_bit == 0 { address.into() } else { address.to_canonical() }
    }

    #[inline]
    fn protocol_bit(protocol: Protocol) -> u8 {
        match protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => Self::UDP,
        }
    }

    #[inline(never)]
    fn between(flow: &FlowKey, client: IpAddr, service: IpAddr) -> Self {
        let bit = |address: IpAddr, bit| if address.is_ipv4() { bit } else { 0 };
        let mut addresses = [0; 32];
        addresses[..16].copy_from_slice(&mapped(client));
        addresses[16..].copy_from_slice(&mapped(service));
        Self {
            addresses,
            ports: ports(flow.client.port, flow.service.port),
            kind: Self::protocol_bit(flow.protocol)
                | bit(client, Self::CLIENT_IPV4)
                | bit(service, Self::SERVICE_IPV4),
        }
    }
}

impl From<&FlowKey> for Key {
    #[inline]
    fn from(flow: &FlowKey) -> Self {
        match (flow.client.address, flow.service.address) {
            (IpAddr::V4(client), IpAddr::V4(service)) => {
                let client = SocketAddrV4::new(client, flow.client.port);
                let service = SocketAddrV4::new(service, flow.service.port);
                Ipv4Key::new(flow.protocol, client, service).into()
            }
            (client, service) => Self::between(flow, client, service),
        }
    }
}

impl From<Ipv4Key> for Key {
    #[inline]
    fn from(flow: Ipv4Key) -> Self {
        let mut addresses = [0; 32];
        addresses[..8].copy_from_slice(&flow.addresses);
        Self { addresses, ports: flow.ports, kind: flow.kind }
    }
}

#[inline]
fn ports(client: u16, service: u16) -> [u8; 4] {
    (u32::from(client) << 16 | u32::from(service)).to_be_bytes()
}

/// As they lie in memory; N is a quarter of the bytes.
#[inline]
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let (words, _) = bytes.as_chunks();
    std::array::from_fn(|nth| u32::from_ne_bytes(words[nth]))
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flow(client: IpAddr, service: IpAddr) -> FlowKey {
        FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address: client, port: 0x1234 },
            service: ServiceSocket { address: service, port: 0x5678 },
        }
    }

    #[test]
    fn a_flow_has_its_fields_at_fixed_places() {
        let mixed = Key::from(&flow("192.0.2.1".parse().unwrap(), "2001:db8::2".parse().unwrap()));
        let ipv4 = Key::from(&flow("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()));

        let ports = [0x12, 0x34, 0x56, 0x78];
        let mut addresses = [0; 32];
        addresses[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        addresses[16..20].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        addresses[31] = 2;
        assert_eq!((mixed.addresses, mixed.ports, mixed.kind), (addresses, ports, Key::CLIENT_IPV4));
        let mut addresses = [0; 32];
        addresses[..8].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
        assert_eq!((ipv4.addresses, ipv4.ports, ipv4.kind), (addresses, ports, Key::BOTH_IPV4));
    }

    #[test]
    fn an_ipv4_address_and_its_mapped_form_are_different_flows() {
        let service = "2001:db8::2".parse().unwrap();
        let ipv4 = Key::from(&flow("192.0.2.1".parse().unwrap(), service));
        let mapped = Key::from(&flow("::ffff:192.0.2.1".parse().unwrap(), service));

        assert_ne!(ipv4, mapped);
    }

    proptest! {
        #[test]
        fn every_flow_comes_back_as_it_went_in(
            client: IpAddr,
            service: IpAddr,
            ports: (u16, u16),
            udp: bool,
        ) {
            let flow = FlowKey {
                protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                client: ClientSocket { address: client, port: ports.0 },
                service: ServiceSocket { address: service, port: ports.1 },
            };

            prop_assert_eq!(Key::from(&flow).flow(), flow);
        }
    }
}
