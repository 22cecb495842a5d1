//! A flow as 37 bytes that are compared and hashed as they are.

use crate::hash::PairHash;
use dpr_model::{ClientSocket, FlowKey, Protocol, ServiceSocket};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Kind (1), client port (2), service port (2), client address, service address.
///
/// Addresses take 4 bytes each between IPv4 addresses, so that the other bytes are zero and need no hashing, and 16
/// otherwise: an IPv4 address is then stored as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2). The kind holds the protocol
/// and which addresses were IPv4, so that a flow comes back as it went in. Alignment 1 lets an entry fit 60 bytes.
#[derive(Clone, Copy, Debug, Eq)]
pub(crate) struct Key([u8; Key::LEN]);

impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let ((start, rest), (other_start, other_rest)) = (self.split(), other.split());
        // The kind is at the start, so both are IPv4 or neither is.
        start == other_start && (self.is_ipv4() || rest == other_rest)
    }
}

impl Key {
    /// No flow's.
    pub(crate) const ZERO: Self = Self([0; Self::LEN]);

    const LEN: usize = 37;
    /// With zeros behind the last field: four words of the hash.
    const LEN_IPV4: usize = 16;
    const KIND: usize = 0;
    const CLIENT_PORT: usize = 1;
    const SERVICE_PORT: usize = 3;
    const ADDRESSES: usize = 5;

    const UDP: u8 = 1;
    const CLIENT_IPV4: u8 = 2;
    const SERVICE_IPV4: u8 = 4;
    const BOTH_IPV4: u8 = Self::CLIENT_IPV4 | Self::SERVICE_IPV4;

    #[inline]
    pub(crate) fn hash(&self, hash: &PairHash) -> u32 {
        let (start, rest) = self.split();
        let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        let (start, _) = start.as_chunks::<4>();
        let [a, b, c, d] = std::array::from_fn(|nth| word(&start[nth]));
        if self.is_ipv4() {
            return hash.hash([a, b, c, d]);
        }
        let (rest, last) = rest.as_chunks::<4>();
        let [e, f, g, h, i] = std::array::from_fn(|nth| word(&rest[nth]));
        hash.hash([a, b, c, d, e, f, g, h, i, last.first().copied().unwrap_or_default().into()])
    }

    #[inline]
    fn is_ipv4(&self) -> bool {
        self.0[Self::KIND] & Self::BOTH_IPV4 == Self::BOTH_IPV4
    }

    /// What an IPv4 key consists of, and the rest, which is zero for one.
    #[inline]
    fn split(&self) -> (&[u8; Self::LEN_IPV4], &[u8]) {
        self.0.split_first_chunk().expect("a key is longer than an IPv4 key")
    }

    #[inline]
    pub(crate) fn protocol(&self) -> Protocol {
        if self.0[Self::KIND] & Self::UDP == 0 { Protocol::Tcp } else { Protocol::Udp }
    }

    pub(crate) fn flow(&self) -> FlowKey {
        let kind = self.0[Self::KIND];
        let (client, service) = if self.is_ipv4() {
            let at = Self::ADDRESSES;
            (Ipv4Addr::from(self.bytes(at)).into(), Ipv4Addr::from(self.bytes(at + 4)).into())
        } else {
            let at = Self::ADDRESSES;
            (self.address(at, kind & Self::CLIENT_IPV4), self.address(at + 16, kind & Self::SERVICE_IPV4))
        };
        FlowKey {
            protocol: self.protocol(),
            client: ClientSocket { address: client, port: u16::from_be_bytes(self.bytes(Self::CLIENT_PORT)) },
            service: ServiceSocket {
                address: service,
                port: u16::from_be_bytes(self.bytes(Self::SERVICE_PORT)),
            },
        }
    }

    fn address(&self, at: usize, is_ipv4: u8) -> IpAddr {
        let address = Ipv6Addr::from(self.bytes(at));
        if is_ipv4 == 0 { address.into() } else { address.to_canonical() }
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[at..at + N]);
        bytes
    }
}

impl From<&FlowKey> for Key {
    #[inline]
    fn from(flow: &FlowKey) -> Self {
        match (flow.client.address, flow.service.address) {
            (IpAddr::V4(client), IpAddr::V4(service)) => Self::between_ipv4(flow, client, service),
            (client, service) => Self::between(flow, client, service),
        }
    }
}

impl Key {
    /// Put together in registers: nearly every packet needs one.
    #[inline]
    fn between_ipv4(flow: &FlowKey, client: Ipv4Addr, service: Ipv4Addr) -> Self {
        let port = |port: u16| u128::from(u16::from_le_bytes(port.to_be_bytes()));
        let address = |address: Ipv4Addr| u128::from(u32::from_le_bytes(address.octets()));
        let start = u128::from(Self::BOTH_IPV4 | Self::protocol_bit(flow.protocol)) << (8 * Self::KIND)
            | port(flow.client.port) << (8 * Self::CLIENT_PORT)
            | port(flow.service.port) << (8 * Self::SERVICE_PORT)
            | address(client) << (8 * Self::ADDRESSES)
            | address(service) << (8 * (Self::ADDRESSES + 4));
        let mut bytes = [0; Self::LEN];
        bytes[..Self::LEN_IPV4].copy_from_slice(&start.to_le_bytes());
        Self(bytes)
    }

    #[inline(never)]
    fn between(flow: &FlowKey, client: IpAddr, service: IpAddr) -> Self {
        let mut bytes = [0; Self::LEN];
        let bit = |address: IpAddr, bit| if address.is_ipv4() { bit } else { 0 };
        bytes[Self::KIND] = Self::protocol_bit(flow.protocol)
            | bit(client, Self::CLIENT_IPV4)
            | bit(service, Self::SERVICE_IPV4);
        bytes[Self::CLIENT_PORT..Self::SERVICE_PORT].copy_from_slice(&flow.client.port.to_be_bytes());
        bytes[Self::SERVICE_PORT..Self::ADDRESSES].copy_from_slice(&flow.service.port.to_be_bytes());
        let addresses = &mut bytes[Self::ADDRESSES..];
        addresses[..16].copy_from_slice(&mapped(client));
        addresses[16..].copy_from_slice(&mapped(service));
        Self(bytes)
    }

    #[inline]
    fn protocol_bit(protocol: Protocol) -> u8 {
        match protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => Self::UDP,
        }
    }
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

        let mut expected = [0; 37];
        expected[..5].copy_from_slice(&[Key::CLIENT_IPV4, 0x12, 0x34, 0x56, 0x78]);
        expected[15..21].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        expected[21..25].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        expected[36] = 2;
        assert_eq!(mixed.0, expected);
        let mut expected = [0; 37];
        expected[..5].copy_from_slice(&[Key::BOTH_IPV4, 0x12, 0x34, 0x56, 0x78]);
        expected[5..13].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
        assert_eq!(ipv4.0, expected);
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
