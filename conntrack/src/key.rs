//! A flow as 37 bytes that are compared and hashed as they are.

use dpr_model::{ClientSocket, FlowKey, Protocol, ServiceSocket};
use std::net::{IpAddr, Ipv6Addr};

/// Client address (16), service address (16), client port (2), service port (2), kind (1).
///
/// IPv4 addresses are stored as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2). The kind holds the protocol and which
/// addresses were IPv4, so that a flow comes back as it went in. Alignment 1 lets an entry fit 60 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key([u8; Key::LEN]);

impl Key {
    const LEN: usize = 37;
    const CLIENT: usize = 0;
    const SERVICE: usize = 16;
    const CLIENT_PORT: usize = 32;
    const SERVICE_PORT: usize = 34;
    const KIND: usize = 36;

    const UDP: u8 = 1;
    const CLIENT_IPV4: u8 = 2;
    const SERVICE_IPV4: u8 = 4;

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn flow(&self) -> FlowKey {
        let kind = self.0[Self::KIND];
        FlowKey {
            protocol: if kind & Self::UDP == 0 { Protocol::Tcp } else { Protocol::Udp },
            client: ClientSocket {
                address: self.address(Self::CLIENT, Self::CLIENT_IPV4),
                port: self.port(Self::CLIENT_PORT),
            },
            service: ServiceSocket {
                address: self.address(Self::SERVICE, Self::SERVICE_IPV4),
                port: self.port(Self::SERVICE_PORT),
            },
        }
    }

    fn address(&self, at: usize, ipv4: u8) -> IpAddr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.0[at..at + 16]);
        if self.0[Self::KIND] & ipv4 == 0 {
            return Ipv6Addr::from(octets).into();
        }
        let [.., a, b, c, d] = octets;
        IpAddr::from([a, b, c, d])
    }

    fn port(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }
}

impl From<&FlowKey> for Key {
    fn from(flow: &FlowKey) -> Self {
        let mut bytes = [0; Self::LEN];
        bytes[Self::CLIENT..Self::SERVICE].copy_from_slice(&mapped(flow.client.address));
        bytes[Self::SERVICE..Self::CLIENT_PORT].copy_from_slice(&mapped(flow.service.address));
        bytes[Self::CLIENT_PORT..Self::SERVICE_PORT].copy_from_slice(&flow.client.port.to_be_bytes());
        bytes[Self::SERVICE_PORT..Self::KIND].copy_from_slice(&flow.service.port.to_be_bytes());
        bytes[Self::KIND] = kind(flow);
        Self(bytes)
    }
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn kind(flow: &FlowKey) -> u8 {
    let protocol = match flow.protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => Key::UDP,
    };
    let client = if flow.client.address.is_ipv4() { Key::CLIENT_IPV4 } else { 0 };
    let service = if flow.service.address.is_ipv4() { Key::SERVICE_IPV4 } else { 0 };
    protocol | client | service
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
        let key = Key::from(&flow("192.0.2.1".parse().unwrap(), "2001:db8::2".parse().unwrap()));

        let mut expected = [0; 37];
        expected[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        expected[16..20].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        expected[31..].copy_from_slice(&[2, 0x12, 0x34, 0x56, 0x78, Key::CLIENT_IPV4]);
        assert_eq!(key.as_bytes(), expected);
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
