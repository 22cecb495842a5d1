//! Hearing who asks for IPv6 addresses that the host does not hold.
//!
//! Solicitations go to a group (RFC 4291, section 2.7.1) which nobody here has joined: a network card filters it, and a
//! switch may.

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, Ipv6Addr};

/// Membership in the solicited-node groups of some addresses, for as long as this lives.
pub(super) struct Memberships {
    /// Nothing is read from it: the kernel knows the groups of sockets only.
    _socket: Option<Socket>,
}

impl Memberships {
    /// Joins, on the interface with this index, the groups of those of `addresses` that are IPv6.
    pub(super) fn join<'a>(
        addresses: impl IntoIterator<Item = &'a IpAddr>,
        interface_index: u32,
    ) -> anyhow::Result<Self> {
        let mut groups: Vec<Ipv6Addr> = addresses.into_iter().filter_map(solicited_node).collect();
        groups.sort_unstable();
        groups.dedup();
        if groups.is_empty() {
            return Ok(Self { _socket: None });
        }
        let socket = Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), Some(Protocol::UDP))
            .context("opening a socket for neighbour solicitations")?;
        for group in groups {
            socket
                .join_multicast_v6(&group, interface_index)
                .with_context(|| format!("joining {group} to hear neighbour solicitations"))?;
        }
        Ok(Self { _socket: Some(socket) })
    }
}

/// The group in which an IPv6 address is asked for.
fn solicited_node(address: &IpAddr) -> Option<Ipv6Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [.., high, low] = address.segments();
    Some(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_asked_for_in_the_group_of_its_last_three_bytes() {
        let group = solicited_node(&"4037::1:800:200e:8c6c".parse().unwrap());
        // The example of RFC 4291, section 2.7.1.
        assert_eq!(group, Some("ff02::1:ff0e:8c6c".parse().unwrap()));
        assert_eq!(solicited_node(&"10.0.0.1".parse().unwrap()), None);
    }
}
