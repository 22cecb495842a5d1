//! What holds for every reply; also used by the fuzz target.

use dpr_rrdns::{
    AddressTable, Client, Now, Outcome, Responder, ServiceAddress, Settings, Transport, UDP_PAYLOAD_MAX,
    Zone, ZoneSettings, parse_name,
};
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::Name;
use std::str::FromStr as _;
use std::sync::Arc;

/// A server with two services and some records.
pub(crate) struct Subject(Responder);

impl Subject {
    /// With four addresses.
    pub(crate) fn new() -> Self {
        let apex = parse_name("example.org", None).unwrap();
        let name = |text| parse_name(text, Some(&apex)).unwrap();
        let mut settings = ZoneSettings::new(apex.clone());
        settings.name_servers = vec![(name("ns1"), vec!["192.0.2.11".parse().unwrap()])];
        settings.services = vec![(name("www"), 80), (apex.clone(), 80)];
        let records = ["home CNAME www", "far CNAME www.example.net.", "@ MX 10 home", "*.wild TXT \"any\""];
        settings.records = records.map(str::to_owned).into();
        let near = dpr_rrdns::Near {
            clients: "203.0.113.0/24".parse().unwrap(),
            addresses: "192.0.2.12/30".parse().unwrap(),
        };
        let options = Settings { near: vec![near], server_id: "n1".to_owned(), ..Settings::default() };
        let mut responder = Responder::new(Arc::new(Zone::new(settings).unwrap()), options, [7; 16]);
        let entry = |address: &str| {
            (80, ServiceAddress { address: address.parse().unwrap(), weight: 100, hot: false })
        };
        let addresses = ["192.0.2.11", "192.0.2.12", "192.0.2.13", "2001:db8::11"];
        responder.update(&AddressTable::new(addresses.map(entry)));
        Self(responder)
    }
}

/// Sends a query, and looks at the reply.
pub(crate) fn check(subject: &mut Subject, query: &[u8], transport: Transport, now: Now) {
    let client = Client { address: "198.51.100.7".parse().unwrap(), transport };
    let mut reply = Vec::new();
    let outcome = subject.0.answer(query, client, now, &mut reply);
    let is_silent = matches!(outcome, Outcome::Ignored | Outcome::Limited);
    assert_eq!(reply.is_empty(), is_silent, "{outcome:?}");
    if is_silent {
        return;
    }
    let message = Message::from_vec(&reply).unwrap_or_else(|error| panic!("{error}: {reply:?}"));
    assert_header(&message, query, outcome);
    assert_length(&reply, query, transport, &message);
    assert_content(&message);
}

fn assert_header(message: &Message, query: &[u8], outcome: Outcome) {
    let metadata = &message.metadata;
    assert_eq!(metadata.id.to_be_bytes(), query[..2]);
    assert_eq!(metadata.message_type, MessageType::Response);
    assert!(!metadata.recursion_available && !metadata.authentic_data);
    assert_eq!(metadata.recursion_desired, query[2] & 1 != 0);
    let is_truncated = matches!(outcome, Outcome::Truncated | Outcome::LimitedTruncated);
    assert_eq!(metadata.truncation, is_truncated);
    assert!(!is_truncated || message.answers.is_empty());
    assert!(matches!(outcome, Outcome::Answered) || message.answers.iter().all(is_alias), "{outcome:?}");
}

fn is_alias(record: &hickory_proto::rr::Record) -> bool {
    record.record_type() == hickory_proto::rr::RecordType::CNAME
}

/// Nobody without a cookie gets more than half as much again as it sent; no cookie is good here, as all are random.
fn assert_length(reply: &[u8], query: &[u8], transport: Transport, message: &Message) {
    if transport == Transport::Udp {
        assert!(reply.len() <= usize::from(UDP_PAYLOAD_MAX));
        assert!(reply.len() * 2 <= query.len() * 3, "{} bytes to {}: {message:?}", reply.len(), query.len());
    }
}

fn assert_content(message: &Message) {
    let apex = Name::from_str("example.org.").unwrap();
    let mut named = Vec::new();
    for record in &message.answers {
        assert!(apex.zone_of(&record.name), "{}", record.name);
        named.extend(record.data.ip_addr());
    }
    let count = named.len();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), count, "an address is named twice");
    // Negative answers, and only those, carry the SOA (RFC 2308).
    for record in &message.authorities {
        assert_eq!(record.name, apex);
        assert!(message.answers.iter().all(is_alias));
    }
}
