//! Hearing who asks for IPv6 addresses that the host does not hold.
//!
//! Solicitations go to a group (RFC 4291, section 2.7.1) which nobody here has joined: a network card filters it, and a
//! switch may.

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

/// Membership in the solicited-node groups of some addresses, for as long as this lives.
pub(super) struct Memberships {
    interface_index: u32,
    groups: BTreeSet<Ipv6Addr>,
    /// Nothing is read from it: the kernel knows the groups of sockets only.
    socket: Option<Socket>,
}

impl Memberships {
    /// None yet, on the interface with this index.
    pub(super) fn on(interface_index: u32) -> Self {
        Self { interface_index, groups: BTreeSet::new(), socket: None }
    }

    /// Joins the groups of those of `addresses` that are IPv6, and no others.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn change_to(&mut self, addresses: &BTreeSet<IpAddr>) -> anyhow::Result<()> {
        let groups: BTreeSet<Ipv6Addr> = addresses.iter().filter_map(solicited_node).collect();
        if groups == self.groups {
            return Ok(());
        }
        // The former socket's memberships end after the new one's have begun.
        self.socket = Some(join(&groups, self.interface_index)?);
        self.groups = groups;
        Ok(())
    }
}

fn join(groups: &BTreeSet<Ipv6Addr>, interface_index: u32) -> anyhow::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), Some(Protocol::UDP))
        .context("opening a socket for neighbour solicitations")?;
    for group in groups {
        socket
            .join_multicast_v6(group, interface_index)
            .with_context(|| format!("joining {group} to hear neighbour solicitations"))?;
    }
    Ok(socket)
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
