//! Properties of the wire format: whatever is encoded comes back, whatever comes in is survived.

use dpr_load_gossip::message::{self, EncodedReport, Header, Via};
use dpr_load_gossip::{Config, Gossip, Key, Keyring};
use dpr_model::{
    Capacity, DeliveryMode, ForwardingMethod, Incarnation, Ingress, LoadPermille, LoadReport, MapVersion,
    Metric, MetricSample, NodeId, NodeState, PartitionBy, PortGroup, PortRange, Protocol, ReceivedFrom,
    ServiceReport, ServiceSocket, Sharing, Timestamp, Weight,
};
use proptest::prelude::*;
use std::net::IpAddr;
use std::time::Duration;

fn keyring() -> Keyring {
    Keyring::new(Key::new(&[7; 32]), None)
}

fn headers() -> impl Strategy<Value = Header> {
    (any::<bool>(), any::<u32>(), any::<u64>(), any::<u64>()).prop_map(
        |(multicast, sender, life, sequence)| Header {
            via: if multicast { Via::Multicast } else { Via::Unicast },
            sender: NodeId(sender),
            incarnation: Incarnation(life),
            sequence,
        },
    )
}

fn node_addresses() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>().prop_filter("tunnels can end there", |address| {
        !address.is_multicast() && !address.is_unspecified() && *address != IpAddr::from([255; 4])
    })
}

fn port_groups() -> impl Strategy<Value = PortGroup> {
    prop::collection::vec((1..=u16::MAX, any::<u16>()), 0..=2).prop_map(|ranges| {
        let mut group = PortGroup::NONE;
        for range in ranges.into_iter().filter_map(|(first, last)| PortRange::new(first, first.max(last))) {
            group.add(range);
        }
        group
    })
}

fn services() -> impl Strategy<Value = Vec<ServiceReport>> {
    use ForwardingMethod::{Dr, Gue, HalfNat, Ipip, Nat};
    use Ingress::{ArpOwner, Routed};
    use Sharing::{Shared, Takeover};
    let methods = prop::sample::select(&[Ipip, Gue, Nat, HalfNat, Dr][..]);
    let sharings = prop::sample::select(&[Sharing::Home, Takeover, Shared(ArpOwner), Shared(Routed)][..]);
    let partitions = prop::sample::select(&PartitionBy::ALL[..]);
    let shared = (sharings, partitions);
    let service = (any::<(bool, IpAddr, u16, bool, bool)>(), methods, port_groups(), shared).prop_map(
        |((tcp, address, port, healthy, alias), method, ports, (sharing, partition_by))| ServiceReport {
            protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
            socket: ServiceSocket { address, port },
            healthy,
            method,
            delivery: if alias { DeliveryMode::Alias } else { DeliveryMode::Translate },
            ports,
            sharing,
            partition_by,
        },
    );
    prop::collection::vec(service, 0..30).prop_map(|mut services| {
        // As many as a report has room for.
        services.iter_mut().skip(8).for_each(|service| service.ports = PortGroup::NONE);
        services.sort_by_key(|service| service.socket.address.is_ipv6());
        services
    })
}

fn metrics() -> impl Strategy<Value = Vec<MetricSample>> {
    let sample = (prop::sample::select(&Metric::ALL[..]), any::<u16>())
        .prop_map(|(metric, load)| MetricSample { metric, load: LoadPermille(load) });
    prop::collection::vec(sample, 0..=32)
}

fn received() -> impl Strategy<Value = Vec<ReceivedFrom>> {
    let count = (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(director, life, connections)| {
        ReceivedFrom { director: NodeId(director), incarnation: Incarnation(life), connections }
    });
    prop::collection::vec(count, 0..=8)
}

prop_compose! {
    fn reports()(
        header in headers(),
        name in "[a-zä0-9.-]{0,31}",
        state in prop::sample::select(
            &[NodeState::Joining, NodeState::Active, NodeState::Draining, NodeState::Leaving][..],
        ),
        address in node_addresses(),
        (capacity, weight, load) in any::<(u32, u16, u16)>(),
        (metrics, services, received) in (metrics(), services(), received()),
        (content_version, term, epoch, coordinator) in any::<(u64, u64, u64, u32)>(),
        nat_ports in any::<(u16, u16)>().prop_map(|(first, last)| PortRange::new(first, last)),
    ) -> (Header, LoadReport) {
        let report = LoadReport {
            node: header.sender,
            incarnation: header.incarnation,
            name,
            state,
            address,
            capacity: Capacity::new(capacity),
            weight: Weight(weight),
            load: LoadPermille(load),
            metrics,
            services,
            received,
            content_version,
            nat_ports,
            map_version: MapVersion { term, epoch, coordinator },
        };
        (header, report)
    }
}

fn encode(header: &Header, report: &LoadReport, keyring: &Keyring) -> Vec<u8> {
    let encoded = EncodedReport::new(report, Duration::from_millis(100)).expect("the report is in bounds");
    message::encode(header, &encoded, &report.received, keyring)
}

proptest! {
    #[test]
    fn what_is_encoded_comes_back((header, report) in reports(), keyed in any::<bool>()) {
        let keyring = if keyed { keyring() } else { Keyring::unauthenticated() };

        let bytes = encode(&header, &report, &keyring);

        prop_assert!(bytes.len() <= message::DATAGRAM_MAX);
        let decoded = message::decode(&bytes, &keyring).unwrap();
        prop_assert_eq!((decoded.header, decoded.report), (header, report));
    }

    #[test]
    fn what_is_said_briefly_comes_back((header, report) in reports(), to in any::<prop::sample::Index>()) {
        let encoded = EncodedReport::new(&report, Duration::from_millis(100)).unwrap();

        let bytes = message::encode_brief(&header, &encoded, &report.received, &keyring());

        let none = ReceivedFrom { director: NodeId(0), incarnation: Incarnation(0), connections: 0 };
        let reader = if report.received.is_empty() { none } else { *to.get(&report.received) };
        let acknowledged = report.received.iter().find(|count| count.director == reader.director);
        let (read_header, brief) =
            message::decode_brief(&bytes, &keyring(), reader.director, reader.incarnation).unwrap();
        prop_assert_eq!(read_header, header);
        prop_assert_eq!((brief.moment.state, brief.moment.load), (report.state, report.load));
        prop_assert_eq!(brief.acknowledged, acknowledged.map(|count| count.connections));
    }

    #[test]
    fn a_flipped_bit_is_refused_when_there_is_a_key((header, report) in reports(), position in any::<usize>()) {
        let mut bytes = encode(&header, &report, &keyring());
        let bit = position % (bytes.len() * 8);

        bytes[bit / 8] ^= 1 << (bit % 8);

        prop_assert!(message::decode(&bytes, &keyring()).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        let mut gossip = Gossip::new(Config::new(NodeId(1), Incarnation(1)), Timestamp::default());
        let from = "192.0.2.1:7946".parse().unwrap();

        prop_assert!(gossip.handle_datagram(from, &bytes, Timestamp::default()).is_err());
    }

    #[test]
    fn damaged_datagrams_without_a_key_are_survived(
        (header, report) in reports(),
        damage in prop::collection::vec((34_usize..1400, any::<u8>()), 1..8),
        cut in 0_usize..200,
    ) {
        let mut bytes = encode(&header, &report, &Keyring::unauthenticated());
        let sections_end = bytes.len() - 16;
        for (at, byte) in damage {
            bytes[34 + at % (sections_end - 34)] = byte;
        }
        bytes.drain(sections_end - cut.min(sections_end - 34)..sections_end);
        let length = u16::try_from(bytes.len()).unwrap();
        bytes[8..10].copy_from_slice(&length.to_be_bytes());
        let mut gossip = Gossip::new(Config::new(NodeId(1), Incarnation(1)), Timestamp::default());

        let before = gossip.counters();
        let result = gossip.handle_datagram("192.0.2.1:7946".parse().unwrap(), &bytes, Timestamp::default());

        let after = gossip.counters();
        let rejected = |counters: &dpr_model::status::GossipCounters| counters.rejected.values().sum::<u64>();
        prop_assert_eq!(rejected(&after) - rejected(&before), u64::from(result.is_err()));
    }
}
