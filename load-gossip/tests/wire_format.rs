//! The wire format on literal bytes. Keys and tags were computed with other implementations of BLAKE3 and SipHash (OpenSSL's).

mod literal;

use dpr_load_gossip::message::{
    self, DATAGRAM_MAX, EncodedReport, Header, METRICS_MAX, NAME_MAX, SERVICES_MAX, Via,
};
use dpr_load_gossip::{DatagramError, Keyring, ReportError};
use dpr_model::{
    Capacity, DeliveryMode, ForwardingMethod, Incarnation, Ingress, LoadPermille, LoadReport, MapVersion,
    Metric, MetricSample, NodeId, NodeState, PartitionBy, PortRange, Protocol, ReceivedFrom, ServiceReport,
    ServiceSocket, Sharing, Weight,
};
use literal::{hex, keyring};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The shortest report: node, address, interval; no key.
const SMALL: &[&str] = &[
    "44505247 02 01 0002 004f 00000000", // magic, version, type, flags, length, key id
    "0a000001 0000000000000007 0000000000000009", // sender, incarnation, sequence
    "0001 0009 02 012c 000003e8 0064",   // node: state, load, capacity, weight
    "0002 0004 0a000001",                // address
    "0004 0004 00000064",                // interval, ms
    "00000000000000000000000000000000",  // tag
];

/// Every section, signed with the key 00 01 02 … 1f, multicast copy.
const FULL: &[&str] = &[
    "44505247 02 01 0003 00db d5721bc2",
    "0a000002 0000019200000001 0000000100000002",
    "0001 0009 03 ffff ffffffff 0032",
    "0005 0007 03 01 01f4 0a 05dc", // metrics
    "0002 0010 20010db8000000000000000000000002",
    "0004 0004 000000fa",
    "0003 0006 7a77c3b66c66",                                   // name
    "0009 0008 000000000000002a",                               // content version
    "000a 0004 ee48 f230",                                      // NAT ports
    "000b 0014 0000000000000001 0000000000000002 00000003",     // map version: term, epoch, coordinator
    "0006 0009 08 06 01 0050 c000020a",                         // services of IPv4
    "0007 0015 14 11 00 0035 20010db8000000000000000000000053", // services of IPv6
    "0008 0015 14 0a000001 0000000000000007 0000000000003039",  // acknowledgements
    "e98e5e607cfbb57def87dc7ef7f0dc9e",
];

fn small_header() -> Header {
    Header { via: Via::Unicast, sender: NodeId(0x0a00_0001), incarnation: Incarnation(7), sequence: 9 }
}

fn small_report() -> LoadReport {
    LoadReport {
        weight: Weight(100),
        load: LoadPermille(300),
        ..LoadReport::new(
            NodeId(0x0a00_0001),
            Incarnation(7),
            Ipv4Addr::new(10, 0, 0, 1).into(),
            Capacity::new(1000),
        )
    }
}

fn full_header() -> Header {
    Header {
        via: Via::Multicast,
        sender: NodeId(0x0a00_0002),
        incarnation: Incarnation(0x0192_0000_0001),
        sequence: 0x1_0000_0002,
    }
}

fn service(protocol: Protocol, address: &str, port: u16, healthy: bool) -> ServiceReport {
    let socket = ServiceSocket { address: address.parse().expect("an address"), port };
    ServiceReport { healthy, ..ServiceReport::new(protocol, socket) }
}

fn sample(metric: Metric, load: u16) -> MetricSample {
    MetricSample { metric, load: LoadPermille(load) }
}

fn full_report() -> LoadReport {
    LoadReport {
        name: "zwölf".to_owned(),
        state: NodeState::Draining,
        weight: Weight(50),
        load: LoadPermille(u16::MAX),
        metrics: vec![sample(Metric::Cpu, 500), sample(Metric::ServiceTime, 1500)],
        services: vec![
            service(Protocol::Tcp, "192.0.2.10", 80, true),
            service(Protocol::Udp, "2001:db8::53", 53, false),
        ],
        received: vec![ReceivedFrom {
            director: NodeId(0x0a00_0001),
            incarnation: Incarnation(7),
            connections: 12345,
        }],
        content_version: 42,
        nat_ports: PortRange::new(61000, 62000),
        map_version: MapVersion { term: 1, epoch: 2, coordinator: 3 },
        ..LoadReport::new(
            NodeId(0x0a00_0002),
            Incarnation(0x0192_0000_0001),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).into(),
            Capacity::new(u32::MAX),
        )
    }
}

/// An unsigned datagram of the given sections, its length filled in.
fn datagram_of(sections: &[&str]) -> Vec<u8> {
    let mut bytes = hex(&SMALL[..2]);
    bytes.extend(hex(sections));
    bytes.extend([0; 16]);
    let length = u16::try_from(bytes.len()).expect("short");
    bytes[8..10].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn decode_sections(sections: &[&str]) -> Result<LoadReport, DatagramError> {
    message::decode(&datagram_of(sections), &Keyring::unauthenticated()).map(|datagram| datagram.report)
}

const NODE: &str = SMALL[2];
const ADDRESS: &str = SMALL[3];

#[test]
fn the_shortest_report_is_these_bytes() {
    let report = EncodedReport::new(&small_report(), Duration::from_millis(100)).unwrap();

    let bytes = message::encode(&small_header(), &report, &[], &Keyring::unauthenticated());

    assert_eq!(bytes, hex(SMALL));
    let decoded = message::decode(&bytes, &Keyring::unauthenticated()).unwrap();
    assert_eq!((decoded.header, decoded.report), (small_header(), small_report()));
    assert_eq!(decoded.interval, Some(Duration::from_millis(100)));
}

#[test]
fn the_fullest_report_is_these_bytes() {
    let report = EncodedReport::new(&full_report(), Duration::from_millis(250)).unwrap();

    let bytes = message::encode(&full_header(), &report, &full_report().received, &keyring());

    assert_eq!(bytes, hex(FULL));
    let decoded = message::decode(&bytes, &keyring()).unwrap();
    assert_eq!((decoded.header, decoded.report), (full_header(), full_report()));
    assert_eq!(decoded.interval, Some(Duration::from_millis(250)));
}

#[test]
fn what_a_newer_node_adds_is_skipped() {
    let report = decode_sections(&[
        "0001 000a 02 012c 000003e8 0064 ff", // node with a new field
        ADDRESS,
        "0000 0000",                            // unknown section, empty
        "0005 000a 03 01 01f4 63 0001 0a 05dc", // unknown metric 99
        "0006 0015 0a 06 81 0050 c000020a 00 ee 84 01 0050 c000020a 00 ee", // longer entries, SCTP
        "ffff 0003 010203",                     // unknown section
    ]);

    let expected = LoadReport {
        metrics: vec![sample(Metric::Cpu, 500), sample(Metric::ServiceTime, 1500)],
        services: vec![service(Protocol::Tcp, "192.0.2.10", 80, true)],
        ..small_report()
    };
    assert_eq!(report, Ok(expected));
}

#[test]
fn a_service_says_how_it_is_forwarded_and_delivered_in_its_flags() {
    use ForwardingMethod::{Dr, Gue, HalfNat, Ipip, Nat};
    let flags = [("01", Ipip), ("03", Gue), ("05", Nat), ("07", HalfNat), ("09", Dr)];
    for (flags, method) in flags {
        let section = format!("0006 0009 08 06 {flags} 0050 c000020a");
        let report = decode_sections(&[NODE, ADDRESS, &section]).unwrap();
        let expected = ServiceReport { method, ..service(Protocol::Tcp, "192.0.2.10", 80, true) };
        assert_eq!(report.services, [expected]);
        let sent = EncodedReport::new(&report, Duration::from_millis(100)).unwrap();
        let bytes = message::encode(&small_header(), &sent, &[], &Keyring::unauthenticated());
        assert!(bytes.windows(13).any(|window| window == hex(&[&section])), "{method:?}");
    }
    let report = decode_sections(&[NODE, ADDRESS, "0006 0009 08 06 1b 0050 c000020a"]).unwrap();
    assert_eq!((report.services[0].method, report.services[0].delivery), (Ipip, DeliveryMode::Alias));
}

#[test]
fn further_ports_of_a_service_are_in_a_section_of_their_own() {
    let ftp = "0006 0009 08 06 01 0015 c000020a";
    let groups = "000d 002f 17 06 0015 00000000000000000000ffffc000020a 0014 0014 \
                  06 0015 00000000000000000000ffffc000020a c350 c35a";

    let report = decode_sections(&[NODE, ADDRESS, ftp, groups]).unwrap();

    let ranges: Vec<_> = report.services[0].ports.ranges().collect();
    assert_eq!(ranges, [PortRange::new(20, 20).unwrap(), PortRange::new(50_000, 50_010).unwrap()]);
    let sent = EncodedReport::new(&report, Duration::from_millis(100)).unwrap();
    let bytes = message::encode(&small_header(), &sent, &[], &Keyring::unauthenticated());
    assert!(bytes.windows(51).any(|window| window == hex(&[groups])));
    // Of a service that is not there, and of a protocol that nobody knows.
    let others = "000d 002f 17 06 0050 00000000000000000000ffffc000020a 0014 0014 \
                  09 0015 00000000000000000000ffffc000020a c350 c35a";
    let report = decode_sections(&[NODE, ADDRESS, ftp, others]).unwrap();
    assert_eq!(report.services, [service(Protocol::Tcp, "192.0.2.10", 21, true)]);
    let backwards = "000d 0018 17 06 0015 00000000000000000000ffffc000020a 0015 0014";
    assert_eq!(
        decode_sections(&[NODE, ADDRESS, ftp, backwards]),
        Err(DatagramError::BadPorts { first: 21, last: 20 })
    );
}

#[test]
fn a_service_that_is_shared_says_how_in_one_byte_more() {
    use Ingress::{ArpOwner, Routed, SharedMac};
    let sharings = [
        ("01", Sharing::Takeover, PartitionBy::SourceAddressAndPort),
        ("12", Sharing::Shared(SharedMac), PartitionBy::SourceAddress),
        ("33", Sharing::Shared(ArpOwner), PartitionBy::SourcePort),
        ("54", Sharing::Shared(Routed), PartitionBy::All),
    ];
    for (byte, sharing, partition_by) in sharings {
        let section = format!("0006 000a 09 06 01 0050 c000020a {byte}");
        let report = decode_sections(&[NODE, ADDRESS, &section]).unwrap();
        let expected =
            ServiceReport { sharing, partition_by, ..service(Protocol::Tcp, "192.0.2.10", 80, true) };
        assert_eq!(report.services, [expected]);
        let sent = EncodedReport::new(&report, Duration::from_millis(100)).unwrap();
        let bytes = message::encode(&small_header(), &sent, &[], &Keyring::unauthenticated());
        assert!(bytes.windows(14).any(|window| window == hex(&[&section])), "{sharing:?}");
    }
    for of_a_later_version in ["0f", "f0"] {
        let section = format!("0006 000a 09 06 01 0050 c000020a {of_a_later_version}");
        assert_eq!(decode_sections(&[NODE, ADDRESS, &section]), Ok(small_report()));
    }
}

#[test]
fn what_an_older_node_leaves_out_has_defaults() {
    let decoded = message::decode(&datagram_of(&[NODE, ADDRESS]), &Keyring::unauthenticated()).unwrap();

    assert_eq!((decoded.interval, decoded.report), (None, small_report()));
}

#[test]
fn a_state_of_a_later_version_is_not_chosen_for_new_connections() {
    let report = decode_sections(&["0001 0009 09 012c 000003e8 0064", ADDRESS]).unwrap();

    assert_eq!(report.state, NodeState::Draining);
}

#[test]
fn every_malformed_section_has_its_own_reason() {
    let cases: &[(&[&str], DatagramError)] = &[
        (&[NODE], DatagramError::MissingSection(2)),
        (&[ADDRESS], DatagramError::MissingSection(1)),
        (&[NODE, ADDRESS, NODE], DatagramError::RepeatedSection(1)),
        (&["0001 0008 02 012c 000003e8 00"], DatagramError::BadSectionLength { section: 1, length: 8 }),
        (&["0002 0005 0a00000100"], DatagramError::BadSectionLength { section: 2, length: 5 }),
        (&["0002 0004 00000000"], DatagramError::BadAddress("0.0.0.0".parse().unwrap())),
        (&["0002 0004 e0000001"], DatagramError::BadAddress("224.0.0.1".parse().unwrap())),
        (&["0003 0001 1b"], DatagramError::BadName { length: 1 }),
        (&["0003 0001 ff"], DatagramError::BadName { length: 1 }),
        (&["000a 0004 0000 0001"], DatagramError::BadPorts { first: 0, last: 1 }),
        (&["000a 0004 0002 0001"], DatagramError::BadPorts { first: 2, last: 1 }),
        (&["0008 0000"], DatagramError::BadSectionLength { section: 8, length: 0 }),
        (&["0005 0001 02"], DatagramError::BadSectionLength { section: 5, length: 1 }),
        (&["0009 0008 00"], DatagramError::TruncatedSection { section: 9, claimed: 8, available: 1 }),
        (&["0009 00"], DatagramError::TruncatedSection { section: 0, claimed: 0, available: 3 }),
    ];

    for (sections, expected) in cases {
        assert_eq!(decode_sections(sections), Err(*expected), "{sections:?}");
    }
}

#[test]
fn lists_and_names_have_limits_on_the_way_in() {
    let long_name = format!("0003 0040 {}", "61".repeat(NAME_MAX + 1));
    let many_metrics = format!("0005 0064 03 {}", "01 0001".repeat(METRICS_MAX + 1));
    let many_services = format!("0006 0209 08 {}", "06 00 0050 0a000001".repeat(SERVICES_MAX + 1));

    assert_eq!(decode_sections(&[&long_name]), Err(DatagramError::BadName { length: 64 }));
    assert_eq!(
        decode_sections(&[&many_metrics]),
        Err(DatagramError::TooManyEntries { section: 5, count: METRICS_MAX + 1 })
    );
    assert_eq!(
        decode_sections(&[&many_services]),
        Err(DatagramError::TooManyEntries { section: 6, count: SERVICES_MAX + 1 })
    );
}

#[test]
fn a_frame_that_is_not_ours_is_refused_before_anything_is_read() {
    let plain = Keyring::unauthenticated();
    let changed = |at: usize, byte: u8| {
        let mut bytes = hex(SMALL);
        bytes[at] = byte;
        message::decode(&bytes, &plain).unwrap_err()
    };

    assert_eq!(message::decode(&[0; 49], &plain), Err(DatagramError::TooShort { length: 49 }));
    assert_eq!(
        message::decode(&[0; DATAGRAM_MAX + 1], &plain),
        Err(DatagramError::TooLong { length: DATAGRAM_MAX + 1 })
    );
    assert_eq!(changed(0, b'X'), DatagramError::BadMagic(*b"XPRG"));
    assert_eq!(changed(4, 1), DatagramError::UnknownVersion(1));
    assert_eq!(changed(4, 3), DatagramError::UnknownVersion(3));
    assert_eq!(changed(5, 9), DatagramError::UnknownType(9));
    assert_eq!(changed(9, 0x50), DatagramError::LengthMismatch { claimed: 80, actual: 79 });
    assert_eq!(changed(78, 1), DatagramError::BadTag);
}

#[test]
fn acknowledgements_fill_the_datagram_and_never_overflow_it() {
    let mut own = small_report();
    let received: Vec<ReceivedFrom> = (0..100)
        .map(|id| ReceivedFrom { director: NodeId(id), incarnation: Incarnation(1), connections: 5 })
        .collect();
    own.services = vec![service(Protocol::Tcp, "192.0.2.10", 80, true); SERVICES_MAX];
    let report = EncodedReport::new(&own, Duration::from_millis(100)).unwrap();

    let bytes = message::encode(&small_header(), &report, &received, &keyring());

    assert!((DATAGRAM_MAX - 20..=DATAGRAM_MAX).contains(&bytes.len()));
    let decoded = message::decode(&bytes, &keyring()).unwrap();
    assert_eq!(decoded.report.received.len(), report.acknowledgements_max());
    assert_eq!(decoded.report.services, own.services);
}

#[test]
fn an_own_report_beyond_the_limits_cannot_be_sent() {
    let refusal = |change: &dyn Fn(&mut LoadReport)| {
        let mut report = small_report();
        change(&mut report);
        EncodedReport::new(&report, Duration::from_millis(100)).unwrap_err()
    };

    assert_eq!(refusal(&|r| r.name = "ä".repeat(32)), ReportError::Name { length: 64 });
    assert_eq!(refusal(&|r| r.name = "a\n".into()), ReportError::Name { length: 2 });
    let nowhere = "::".parse().unwrap();
    assert_eq!(refusal(&|r| r.address = nowhere), ReportError::Address(nowhere));
    let samples = vec![sample(Metric::Cpu, 1); METRICS_MAX + 1];
    assert_eq!(refusal(&|r| r.metrics = samples.clone()), ReportError::TooManyMetrics(METRICS_MAX + 1));
    let services = vec![service(Protocol::Tcp, "2001:db8::1", 80, true); SERVICES_MAX];
    assert_eq!(
        refusal(&|r| r.services = services.clone()),
        ReportError::TooLarge { bytes: 13 + 8 + 8 + 5 + 20 * SERVICES_MAX, max: 1185 }
    );
}
