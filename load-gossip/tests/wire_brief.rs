//! The wire format of brief reports on literal bytes. Tags were computed with another implementation of SipHash
//! (OpenSSL's).

mod literal;

use dpr_load_gossip::message::{self, EncodedReport, Header, Via};
use dpr_load_gossip::{DatagramError, Keyring};
use dpr_model::{Capacity, Incarnation, LoadPermille, LoadReport, NodeId, NodeState, ReceivedFrom};
use literal::{hex, keyring};
use std::net::Ipv6Addr;
use std::time::Duration;

/// A brief report with counts that do not fit into 32 bits, and one whose counts do; the same key.
const BRIEF_LONG: &[&str] = &[
    "44505247 02 03 0003 005a d5721bc2",
    "0a000002 0000019200000001 0000000100000002",
    "03 ffff", // state, load
    "000e 0021 10 0a000001 00000007 00003039 00000000 0a000003 01234567 00000001 00000001",
    "228117bfd37439421c03d11d42ab702e",
];
const BRIEF_SHORT: &[&str] = &[
    "44505247 02 03 0003 0052 d5721bc2",
    "0a000002 0000019200000001 0000000100000002",
    "03 ffff",
    "000e 0019 0c 0a000001 00000007 00003039 0a000003 01234567 ffffffff",
    "8c9b98a275e7eb1030ce50ba1145a7e5",
];

fn header() -> Header {
    Header {
        via: Via::Multicast,
        sender: NodeId(0x0a00_0002),
        incarnation: Incarnation(0x0192_0000_0001),
        sequence: 0x1_0000_0002,
    }
}

fn report() -> LoadReport {
    let Header { sender, incarnation, .. } = header();
    LoadReport {
        state: NodeState::Draining,
        load: LoadPermille(u16::MAX),
        ..LoadReport::new(sender, incarnation, Ipv6Addr::LOCALHOST.into(), Capacity::new(1))
    }
}

#[test]
fn a_brief_report_is_these_bytes_and_says_to_each_director_what_is_for_it() {
    let report = EncodedReport::new(&report(), Duration::from_millis(250)).unwrap();
    let other = Incarnation(0x89ab_cdef_0123_4567);
    for (bytes, count) in [(BRIEF_LONG, 0x1_0000_0001), (BRIEF_SHORT, 0xffff_ffff)] {
        let to_other = ReceivedFrom { director: NodeId(0x0a00_0003), incarnation: other, connections: count };
        let to_first =
            ReceivedFrom { director: NodeId(0x0a00_0001), incarnation: Incarnation(7), connections: 12345 };
        let received = [to_first, to_other];

        let written = message::encode_brief(&header(), &report, &received, &keyring());

        assert_eq!(written, hex(bytes));
        let read = |node, life| message::decode_brief(&written, &keyring(), NodeId(node), life).unwrap();
        let (from, brief) = read(0x0a00_0003, other);
        assert_eq!((from, brief.acknowledged), (header(), Some(count)));
        assert_eq!((brief.moment.state, brief.moment.load), (NodeState::Draining, LoadPermille(u16::MAX)));
        assert_eq!(read(0x0a00_0001, Incarnation(7)).1.acknowledged, Some(12345));
        assert_eq!(read(0x0a00_0001, Incarnation(8)).1.acknowledged, None);
    }
}

#[test]
fn what_is_malformed_in_a_brief_report_has_its_own_reason_and_what_is_new_is_skipped() {
    let read = |content: &str| {
        let content = hex(&[content]);
        let length = u8::try_from(34 + content.len() + 16).expect("short");
        let mut bytes = hex(&["44505247 02 03 0002 00", &format!("{length:02x}"), "00000000"]);
        bytes.extend(hex(&["0a000001 0000000000000007 0000000000000009"]));
        bytes.extend(content);
        bytes.extend([0; 16]);
        let read = message::decode_brief(&bytes, &Keyring::unauthenticated(), NodeId(1), Incarnation(2));
        read.map(|(_, brief)| (brief.moment.load.0, brief.acknowledged))
    };
    let truncated =
        |section, claimed, available| Err(DatagramError::TruncatedSection { section, claimed, available });

    assert_eq!(read("02 0007 000e 000f 0e 00000001 00000002 00000003 0000 00ff 0001 aa"), Ok((7, Some(3))));
    assert_eq!(read("02 00"), truncated(0, 3, 2));
    assert_eq!(read("02 0007 000e 0005 00"), truncated(14, 5, 1));
    assert_eq!(read("02 0007 000e 0001 0c 000e 0001 0c"), Err(DatagramError::RepeatedSection(14)));
    let bad_length = DatagramError::BadSectionLength { section: 14, length: 9 };
    assert_eq!(read("02 0007 000e 0009 08 00000001 00000002"), Err(bad_length));
    assert_eq!(message::decode(&hex(BRIEF_SHORT), &keyring()), Err(DatagramError::UnknownType(3)));
    let full = EncodedReport::new(&report(), Duration::from_millis(250)).unwrap();
    let full = message::encode(&header(), &full, &[], &keyring());
    let full = message::decode_brief(&full, &keyring(), NodeId(1), Incarnation(2));
    assert_eq!(full, Err(DatagramError::UnknownType(1)));
}
