//! What backups are told: connections, on the wire 21 bytes between IPv4 addresses, 27 with translation, 63 at most; and
//! clients that stay with their real server, 21 or 45 bytes.

use crate::clients::AGE_UNIT;
use crate::{EntryView, Segment, Stay, Table, TcpState};
use dpr_model::{ClientSocket, FlowKey, NodeId, Protocol, ServiceSocket, Timestamp};
use dpr_wire::Fields;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const UDP: u8 = 1;
const CLIENT_IPV6: u8 = 2;
const SERVICE_IPV6: u8 = 4;
const CLOSED: u8 = 8;
const TRANSLATED: u8 = 16;
const CLIENT: u8 = 32;
const KNOWN: u8 = UDP | CLIENT_IPV6 | SERVICE_IPV6 | CLOSED | TRANSLATED | CLIENT;

/// Longest record, bytes.
pub(crate) const RECORD_MAX: usize = 63;

/// What a record says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// Its handshake is over, and it is not.
    Established,
    /// It is over.
    Closed,
}

/// One connection, for a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub flow: FlowKey,
    /// The client's initial sequence number: tells it from others with the same sockets.
    pub generation: u32,
    /// Who has it.
    pub real_server: NodeId,
    /// Whether it is over.
    pub state: RecordState,
    /// As whom the real server sees its client, where full NAT changes that: of the service's IP version.
    pub stand_in: Option<SocketAddr>,
}

/// A client that stays with its real server, for a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRecord {
    /// Its name: a flow without a client port, to the port that the service is named by.
    pub client: FlowKey,
    /// Where it stays, on the wire for at most 49 days; it has established something.
    pub stay: Stay,
}

/// What a batch consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// A connection began, goes on, or ended.
    Connection(Record),
    /// A client stays where it is.
    Client(ClientRecord),
}

impl Copied {
    pub(crate) fn write_to(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Connection(record) => record.write_to(bytes),
            Self::Client(client) => {
                let Stay { server, age, left, .. } = client.stay;
                let left_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
                // A client has no port, so that there is room for its age.
                let age = u16::try_from(age.as_millis() / AGE_UNIT.as_millis()).unwrap_or(u16::MAX);
                let of_age = ClientSocket { port: age, ..client.client.client };
                write(bytes, CLIENT, &FlowKey { client: of_age, ..client.client }, left_ms, server);
            }
        }
    }

    /// As [`Record::read`].
    pub(crate) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let flags = fields.u8().filter(|flags| flags & !KNOWN == 0)?;
        let flow = read_flow(fields, flags)?;
        let (number, real_server) = (fields.u32()?, NodeId(fields.u32()?));
        if flags & CLIENT != 0 {
            let (age, left) = (AGE_UNIT * flow.client.port.into(), Duration::from_millis(number.into()));
            let client = FlowKey { client: ClientSocket { port: 0, ..flow.client }, ..flow };
            let stay = Stay { server: real_server, age, left, established: true };
            return Some(Self::Client(ClientRecord { client, stay }));
        }
        let stand_in = match flags & TRANSLATED {
            0 => None,
            _ => Some(SocketAddr::from(read_socket(fields, flow.service.address.is_ipv6())?)),
        };
        let state = if flags & CLOSED == 0 { RecordState::Established } else { RecordState::Closed };
        Some(Self::Connection(Record { flow, generation: number, real_server, state, stand_in }))
    }
}

impl Record {
    /// The record of an entry; `None` for one that is half-open: its client will ask again.
    ///
    /// What its client has ended is over, as when the end itself is told: a copy of it would outlast the entry by far, and be
    /// taken for the next connection with the same sockets. Whoever takes over asks, if it goes on after all.
    pub fn of(flow: FlowKey, entry: EntryView) -> Option<Self> {
        let state = match entry.state {
            TcpState::HalfOpen => return None,
            TcpState::Established => RecordState::Established,
            TcpState::Fin | TcpState::Reset | TcpState::Closed => RecordState::Closed,
        };
        Some(Self::new(flow, entry, state))
    }

    /// For whoever asks. A packet after the handshake made it ask, so what is half-open here is established by now; what is
    /// over need not be known.
    pub fn in_answer(flow: FlowKey, entry: EntryView) -> Option<Self> {
        let is_over = entry.state == TcpState::Closed;
        (!is_over).then(|| Self::new(flow, entry, RecordState::Established))
    }

    /// Of an entry; whether it is translated the table does not know.
    pub fn new(flow: FlowKey, entry: EntryView, state: RecordState) -> Self {
        let EntryView { generation, real_server, .. } = entry;
        Self { flow, generation, real_server, state, stand_in: None }
    }

    /// Stands for a flow of which only the name is known.
    pub fn asking_for(flow: FlowKey) -> Self {
        Self { flow, generation: 0, real_server: NodeId(0), state: RecordState::Established, stand_in: None }
    }

    pub(crate) fn write_to(&self, bytes: &mut Vec<u8>) {
        let closed = if self.state == RecordState::Closed { CLOSED } else { 0 };
        let translated = if self.stand_in.is_some() { TRANSLATED } else { 0 };
        write(bytes, closed | translated, &self.flow, self.generation, self.real_server);
        if let Some(stand_in) = self.stand_in {
            push_socket(bytes, stand_in.ip(), stand_in.port());
        }
    }

    /// Reads one record; `None` if the bytes end too early, are of a client, or have flags that this version does not know.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        match Copied::read(fields)? {
            Copied::Connection(record) => Some(record),
            Copied::Client(_) => None,
        }
    }

    /// Enters a handshake that has begun where another node decided, unless something is known of its flow already. A client
    /// that asks again gets the same answer.
    pub fn begin(&self, table: &mut Table, now: Timestamp) {
        let syn = Segment { syn: true, sequence: self.generation, ..Segment::default() };
        if table.get(&self.flow).is_none() {
            // Without room the client's next SYN is one like any other.
            let _ = table.insert_if_room(&self.flow, syn, self.real_server, now);
        }
    }

    /// Enters it into a backup's table. False if there is no room.
    ///
    /// `decides_itself` says that this node is the owner of the flow's slot by now: what it has seen for itself of
    /// another generation stands.
    pub fn apply(&self, table: &mut Table, decides_itself: bool, now: Timestamp) -> bool {
        if self.state == RecordState::Closed {
            table.close(&self.flow, self.generation, now);
            return true;
        }
        let ack = Segment::going_on(self.generation);
        match table.get(&self.flow) {
            Some(known) if known.generation == self.generation && known.real_server == self.real_server => {
                // It is still there: that keeps the copy alive.
                table.observe(&self.flow, ack, now);
                true
            }
            Some(_) if decides_itself => true,
            _ => table.insert_if_room(&self.flow, ack, self.real_server, now),
        }
    }
}

/// What connections and clients have in common; `number` is a generation or a time.
fn write(bytes: &mut Vec<u8>, flags: u8, flow: &FlowKey, number: u32, real_server: NodeId) {
    let FlowKey { protocol, client, service } = flow;
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    bytes.push(
        flags
            | flag(*protocol == Protocol::Udp, UDP)
            | flag(client.address.is_ipv6(), CLIENT_IPV6)
            | flag(service.address.is_ipv6(), SERVICE_IPV6),
    );
    push_socket(bytes, client.address, client.port);
    push_socket(bytes, service.address, service.port);
    bytes.extend(number.to_be_bytes());
    bytes.extend(real_server.0.to_be_bytes());
}

fn read_flow(fields: &mut Fields<'_>, flags: u8) -> Option<FlowKey> {
    let client = read_socket(fields, flags & CLIENT_IPV6 != 0)?;
    let service = read_socket(fields, flags & SERVICE_IPV6 != 0)?;
    Some(FlowKey {
        protocol: if flags & UDP == 0 { Protocol::Tcp } else { Protocol::Udp },
        client: ClientSocket { address: client.0, port: client.1 },
        service: ServiceSocket { address: service.0, port: service.1 },
    })
}

fn push_socket(bytes: &mut Vec<u8>, address: IpAddr, port: u16) {
    match address {
        IpAddr::V4(v4) => bytes.extend(v4.octets()),
        IpAddr::V6(v6) => bytes.extend(v6.octets()),
    }
    bytes.extend(port.to_be_bytes());
}

fn read_socket(fields: &mut Fields<'_>, is_ipv6: bool) -> Option<(IpAddr, u16)> {
    let address = if is_ipv6 { fields.ipv6()? } else { fields.ipv4()? };
    Some((address, fields.u16()?))
}
