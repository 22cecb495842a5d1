//! One zone with something of everything, queries as bytes, and replies as another implementation reads them.

use dpr_model::Timestamp;
use dpr_rrdns::{
    AddressTable, Client, Name, Now, Outcome, Responder, ServiceAddress, Settings, Transport, Zone,
    ZoneSettings, parse_name,
};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use std::sync::Arc;

/// Where everybody asks from.
pub(crate) const CLIENT: &str = "198.51.100.7";
/// Seconds since 1970.
pub(crate) const UNIX_S: u32 = 1_700_000_000;

fn apex() -> Name {
    parse_name("example.org", None).unwrap()
}

fn name(text: &str) -> Name {
    parse_name(text, Some(&apex())).unwrap()
}

/// Records that the operator wrote.
pub(crate) const RECORDS: [&str; 13] = [
    "@ 300 MX 10 mail.example.net.",
    "@ 300 TXT \"v=spf1 -all\"",
    "home CNAME www",
    "far CNAME www.example.net.",
    "gone CNAME nothing",
    "a.deep.name TXT \"found\"",
    "*.wild 300 TXT \"any\"",
    "real.wild 300 A 192.0.2.99",
    "host 300 A 192.0.2.91",
    "host 200 A 192.0.2.92",
    "host 400 A 192.0.2.91",
    "host 900 TXT \"a machine\"",
    "unknown TYPE65280 \\# 3 abcdef",
];

pub(crate) fn zone() -> Zone {
    let mut settings = ZoneSettings::new(apex());
    settings.name_servers = vec![
        (name("ns1"), vec!["192.0.2.11".parse().unwrap(), "2001:db8::11".parse().unwrap()]),
        (name("ns2"), vec!["192.0.2.12".parse().unwrap()]),
    ];
    settings.services = vec![(name("www"), 80), (name("api"), 8080), (name("idle"), 81)];
    settings.records = RECORDS.map(str::to_owned).into();
    Zone::new(settings).unwrap()
}

/// Four addresses of IPv4 and one of IPv6 for port 80, one for port 8080.
pub(crate) fn table() -> AddressTable {
    let entry = |port: u16, address: &str| {
        (port, ServiceAddress { address: address.parse().unwrap(), weight: 100, hot: false })
    };
    AddressTable::new([
        entry(80, "192.0.2.11"),
        entry(80, "192.0.2.12"),
        entry(80, "192.0.2.13"),
        entry(80, "192.0.2.14"),
        entry(80, "2001:db8::11"),
        entry(8080, "192.0.2.11"),
    ])
}

/// A server and the client that asks it.
pub(crate) struct Bench {
    responder: Responder,
    pub(crate) transport: Transport,
    pub(crate) now: Now,
    pub(crate) outcome: Outcome,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let mut responder = Responder::new(Arc::new(zone()), settings, [7; 16]);
        responder.update(&table());
        let now = Now { monotonic: Timestamp::from_millis(1000), unix_s: UNIX_S };
        Self { responder, transport: Transport::Udp, now, outcome: Outcome::Ignored }
    }

    pub(crate) fn over_tcp(mut self) -> Self {
        self.transport = Transport::Tcp;
        self
    }

    pub(crate) fn update(&mut self, table: &AddressTable) {
        self.responder.update(table);
    }

    /// The reply's bytes; empty if there is none.
    pub(crate) fn send(&mut self, query: &[u8]) -> Vec<u8> {
        self.send_from(CLIENT, query)
    }

    pub(crate) fn send_from(&mut self, address: &str, query: &[u8]) -> Vec<u8> {
        let client = Client { address: address.parse().unwrap(), transport: self.transport };
        let mut reply = Vec::new();
        self.outcome = self.responder.answer(query, client, self.now, &mut reply);
        reply
    }

    /// The reply as hickory reads it.
    pub(crate) fn ask(&mut self, query: &Query) -> Message {
        let reply = self.send(&query.bytes());
        Message::from_vec(&reply).unwrap_or_else(|error| panic!("{error}: {reply:?}"))
    }
}

/// A query, field by field.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) name: String,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) edns: Option<Opt>,
}

/// An OPT record, field by field.
#[derive(Clone)]
pub(crate) struct Opt {
    pub(crate) payload: u16,
    pub(crate) version: u8,
    pub(crate) flags: u16,
    pub(crate) options: Vec<(u16, Vec<u8>)>,
}

/// A query for a type of a name relative to the zone, without EDNS.
pub(crate) fn query(name: &str, rtype: RecordType) -> Query {
    let name = match name {
        "@" => "example.org".to_owned(),
        absolute if absolute.ends_with('.') => absolute.trim_end_matches('.').to_owned(),
        relative => format!("{relative}.example.org"),
    };
    Query { id: 0x1234, flags: 0x0100, name, rtype: rtype.into(), class: 1, edns: None }
}

impl Query {
    /// With EDNS, so that large answers fit.
    pub(crate) fn edns(mut self) -> Self {
        self.edns = Some(Opt { payload: 1232, version: 0, flags: 0, options: vec![] });
        self
    }

    /// With an option.
    pub(crate) fn option(mut self, code: u16, data: &[u8]) -> Self {
        if self.edns.is_none() {
            self = self.edns();
        }
        self.edns.as_mut().unwrap().options.push((code, data.to_vec()));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for field in [self.id, self.flags, 1, 0, 0, u16::from(self.edns.is_some())] {
            bytes.extend(field.to_be_bytes());
        }
        for label in self.name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(self.rtype.to_be_bytes());
        bytes.extend(self.class.to_be_bytes());
        if let Some(opt) = &self.edns {
            bytes.extend(opt.bytes());
        }
        bytes
    }
}

impl Opt {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut data = Vec::new();
        for (code, option) in &self.options {
            data.extend(code.to_be_bytes());
            data.extend(u16::try_from(option.len()).unwrap().to_be_bytes());
            data.extend(option);
        }
        let mut bytes = vec![0, 0, 41];
        bytes.extend(self.payload.to_be_bytes());
        bytes.extend([0, self.version]);
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
        bytes
    }
}

/// The data of every option of a code in a reply.
pub(crate) fn option_of(reply: &[u8], code: u16) -> Option<Vec<u8>> {
    // The OPT record is the last one, and options come last in it: look for it from its fixed beginning.
    let at = reply.windows(5).rposition(|window| window == [0, 0, 41, 0x04, 0xd0])?;
    let mut options = reply.get(at + 11..)?;
    while let Some(([c0, c1, l0, l1], rest)) = options.split_first_chunk::<4>() {
        let (data, rest) = rest.split_at_checked(u16::from_be_bytes([*l0, *l1]).into())?;
        if u16::from_be_bytes([*c0, *c1]) == code {
            return Some(data.to_vec());
        }
        options = rest;
    }
    None
}

/// Addresses of an answer in their order.
pub(crate) fn addresses(reply: &Message) -> Vec<String> {
    let address =
        |record: &hickory_proto::rr::Record| record.data.ip_addr().map(|address| address.to_string());
    reply.answers.iter().filter_map(address).collect()
}
