//! Services whose established connections go straight, as `bpf/straight.h` looks them up (`director/src/straight.rs`).

use super::{of, take};
use crate::abi::{
    Method, Policy, Port, SELF, STRAIGHT_BITS, Service, ServiceKey, StraightWay, Tenure, unmapped,
};
use crate::content::Content;
use crate::error::XdpError;
use aya::Ebpf;
use aya::maps::{Array, MapData};
use dpr_rewrite::protocol;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Ways by their place in the map.
pub(super) type Ways = BTreeMap<u32, StraightWay>;

/// Further ports that have ways: a sixteenth of the places. They are gone through at every update.
const STRAIGHT_FURTHER_MAX: usize = 1024;

/// The map, and what is in it.
pub(super) struct StraightWays {
    map: Array<MapData, StraightWay>,
    open: Ways,
}

impl StraightWays {
    /// Takes the map out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, XdpError> {
        Ok(Self { map: take(ebpf, "straight_ways")?, open: Ways::new() })
    }

    /// Reads what an earlier life of the daemon wrote.
    pub(super) fn read(&mut self) -> Result<(), XdpError> {
        self.open.clear();
        for place in 0..1 << STRAIGHT_BITS {
            let way = self.map.get(&place, 0).map_err(of("straight_ways"))?;
            if way.version != 0 {
                self.open.insert(place, way);
            }
        }
        Ok(())
    }

    /// Closes what is no longer among `wanted`. To be called before anything else is written.
    pub(super) fn close(&mut self, wanted: &Ways) -> Result<(), XdpError> {
        let is_over = |(place, way): &(&u32, &StraightWay)| wanted.get(place) != Some(way);
        let over: Vec<u32> = self.open.iter().filter(is_over).map(|(place, _)| *place).collect();
        for place in over {
            self.map.set(place, StraightWay::default(), 0).map_err(of("straight_ways"))?;
            self.open.remove(&place);
        }
        Ok(())
    }

    /// Opens what is wanted. To be called when everything else is written.
    pub(super) fn open(&mut self, wanted: Ways) -> Result<(), XdpError> {
        for (place, way) in wanted {
            if self.open.get(&place) != Some(&way) {
                self.map.set(place, way, 0).map_err(of("straight_ways"))?;
                self.open.insert(place, way);
            }
        }
        Ok(())
    }
}

/// What goes straight: of services with the same place the last one, and further ports only in places that are free, so many at
/// most.
pub(super) fn ways_of(content: &Content) -> Ways {
    let settings = &content.settings;
    // Without a table no connection is known, and one that is may have been translated by a peer.
    if settings.peers_translate != 0 || settings.policy == Policy::Stateless as u8 {
        return Ways::new();
    }
    let services = content.services.iter().filter(|(key, service)| goes_straight(key, service));
    let mut ways: Ways = services.map(|(key, _)| way_of(key)).collect();
    for key in further_keys(content).take(STRAIGHT_FURTHER_MAX) {
        let (place, way) = way_of(&key);
        ways.entry(place).or_insert(way);
    }
    ways
}

fn goes_straight(key: &ServiceKey, service: &Service) -> bool {
    // Entries of a home are of no term.
    let is_ours = service.owner == SELF && service.tenure == Tenure::Home as u8 && service.term == 0;
    let is_tunnelled = service.method == Method::Ipip as u8 && service.is_begun_above == 0;
    is_ours && is_tunnelled && key.protocol == protocol::TCP
}

/// Further ports that go straight, as if they were services.
fn further_keys(content: &Content) -> impl Iterator<Item = ServiceKey> {
    content.further_ports.iter().flat_map(move |(address, further)| {
        let key = |port: Port| ServiceKey { address: *address, port, protocol: protocol::TCP, zero: 0 };
        let goes_straight = move |named: ServiceKey| {
            content.services.get(&named).is_some_and(|service| goes_straight(&named, service))
        };
        let ranges = further
            .iter()
            .filter(move |range| range.protocol == protocol::TCP && goes_straight(key(range.port)));
        let ports = ranges.flat_map(|range| (range.first..=range.last).map(move |port| (port, range.port)));
        // Some may be other services' own.
        let is_its = move |(port, named): &(u16, Port)| {
            let is_first = further.named(protocol::TCP, *port) == Some(u16::from_be_bytes(*named));
            is_first && !content.services.contains_key(&key(port.to_be_bytes()))
        };
        ports.filter(is_its).map(move |(port, _)| key(port.to_be_bytes()))
    })
}

fn way_of(key: &ServiceKey) -> (u32, StraightWay) {
    let (place, version) = place_of(key);
    (place, StraightWay { address: key.address, port: key.port, version, zero: 0 })
}

/// Where a service is looked for, as a processor with the programs' byte order reads address and port; and the version of its address.
fn place_of(key: &ServiceKey) -> (u32, u8) {
    let port = u64::from(u16::from_ne_bytes(key.port));
    let (name, version) = match unmapped(key.address) {
        IpAddr::V4(address) => (u64::from(u32::from_ne_bytes(address.octets())) << 16 | port, 4),
        IpAddr::V6(address) => {
            let both = u128::from_ne_bytes(address.octets());
            ((both >> 64) as u64 ^ both as u64 ^ port, 6)
        }
    };
    ((name.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - STRAIGHT_BITS)) as u32, version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{FurtherPorts, FurtherRange, Settings, mapped};
    use std::net::Ipv6Addr;

    const OF_TCP: ServiceKey =
        ServiceKey { address: [0; 16], port: 80_u16.to_be_bytes(), protocol: protocol::TCP, zero: 0 };

    /// Ways in a world of one service, whose address is IPv4's if it is not given.
    fn ways(settings: Settings, key: ServiceKey, service: Service) -> usize {
        let unset = key.address == [0; 16];
        let key =
            ServiceKey { address: if unset { mapped([10, 0, 0, 1].into()) } else { key.address }, ..key };
        let content = Content { settings, services: BTreeMap::from([(key, service)]), ..Content::default() };
        ways_of(&content).len()
    }

    #[test]
    fn only_what_this_node_alone_decides_about_goes_straight() {
        let (settings, ours) = (Settings::default(), Service::default());
        let of_ipv6 = mapped(Ipv6Addr::LOCALHOST.into());
        for key in [OF_TCP, ServiceKey { address: of_ipv6, ..OF_TCP }] {
            assert_eq!(ways(settings, key, ours), 1, "{key:?}");
        }
        assert_eq!(ways(Settings { is_ipv6: 1, ..settings }, OF_TCP, ours), 1);

        let of_udp = ServiceKey { protocol: protocol::UDP, ..OF_TCP };
        assert_eq!(ways(settings, of_udp, ours), 0);
        for service in [
            Service { owner: SELF + 1, ..ours },
            Service { tenure: Tenure::Leased as u8, ..ours },
            Service { tenure: Tenure::Pending as u8, ..ours },
            Service { tenure: Tenure::BySlot as u8, ..ours },
            Service { method: Method::Gue as u8, ..ours },
            Service { method: Method::Dr as u8, ..ours },
            Service { is_begun_above: 1, ..ours },
        ] {
            assert_eq!(ways(settings, OF_TCP, service), 0, "{service:?}");
        }
        for settings in [
            Settings { peers_translate: 1, ..settings },
            Settings { policy: Policy::Stateless as u8, ..settings },
        ] {
            assert_eq!(ways(settings, OF_TCP, ours), 0, "{settings:?}");
        }
    }

    #[test]
    fn so_do_its_further_ports_up_to_a_bound() {
        let address = mapped([10, 0, 0, 1].into());
        let [web, other, away] = [80_u16, 8001, 443].map(u16::to_be_bytes);
        let key = |port: Port| ServiceKey { address, port, ..OF_TCP };
        let peers = Service { owner: SELF + 1, ..Service::default() };
        let above = Service { is_begun_above: 1, ..Service::default() };
        let ports_of = |ranges: &[(u16, u16, Port)]| {
            let mut further = FurtherPorts::default();
            for (first, last, port) in ranges.iter().copied() {
                assert!(further.add(FurtherRange { first, last, port, protocol: protocol::TCP, zero: 0 }));
            }
            let content = Content {
                services: BTreeMap::from([
                    (key(web), Service::default()),
                    (key(other), above),
                    (key(away), peers),
                ]),
                further_ports: BTreeMap::from([(address, further)]),
                ..Content::default()
            };
            let ways = ways_of(&content);
            let mut ports: Vec<u16> = ways.values().map(|way| u16::from_be_bytes(way.port)).collect();
            ports.sort_unstable();
            ports
        };

        // One of the first range is a service of its own, one of the last range is the first one's.
        assert_eq!(ports_of(&[(8000, 8002, web), (8002, 8003, away)]), [80, 8000, 8002]);
        assert_eq!(ports_of(&[(8002, 8003, away), (8000, 8002, web)]), [80, 8000]);
        let many = ports_of(&[(1024, 65_535, web)]);
        assert!(
            (STRAIGHT_FURTHER_MAX / 2..=STRAIGHT_FURTHER_MAX + 1).contains(&many.len()),
            "{}",
            many.len()
        );
    }
}
