//! Services whose established connections go straight, as `bpf/straight.h` looks them up (`director/src/straight.rs`).

use super::{of, take};
use crate::abi::{Method, Policy, SELF, STRAIGHT_BITS, ServiceKey, StraightWay, Tenure, unmapped};
use crate::content::Content;
use crate::error::XdpError;
use aya::Ebpf;
use aya::maps::{Array, MapData};
use dpr_rewrite::protocol;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Ways by their place in the map.
pub(super) type Ways = BTreeMap<u32, StraightWay>;

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

/// What goes straight. Of services with the same place the last one does.
pub(super) fn ways_of(content: &Content) -> Ways {
    let settings = &content.settings;
    // Without a table no connection is known, and one that is may have been translated by a peer.
    if settings.peers_translate != 0 || settings.policy == Policy::Stateless as u8 {
        return Ways::new();
    }
    let mut ways = Ways::new();
    for (key, service) in &content.services {
        // Entries of a home are of no term.
        let is_ours = service.owner == SELF && service.tenure == Tenure::Home as u8 && service.term == 0;
        let is_tunnelled = service.method == Method::Ipip as u8 && service.is_begun_above == 0;
        if is_ours && is_tunnelled && key.protocol == protocol::TCP {
            let (place, version) = place_of(key);
            ways.insert(place, StraightWay { address: key.address, port: key.port, version, zero: 0 });
        }
    }
    ways
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
    use crate::abi::{Service, Settings, mapped};
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
}
