//! One connection on the wire: 21 bytes between IPv4 addresses, 45 at most.

use crate::{EntryView, Segment, Table, TcpState};
use dpr_model::{ClientSocket, FlowKey, NodeId, Protocol, ServiceSocket, Timestamp};
use dpr_wire::Fields;
use std::net::IpAddr;

const UDP: u8 = 1;
const CLIENT_IPV6: u8 = 2;
const SERVICE_IPV6: u8 = 4;
const CLOSED: u8 = 8;
const KNOWN: u8 = UDP | CLIENT_IPV6 | SERVICE_IPV6 | CLOSED;

/// Longest record, bytes.
pub(crate) const RECORD_MAX: usize = 45;

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
}

impl Record {
    /// The record of an entry; `None` for one that is half-open: its client will ask again.
    pub fn of(flow: FlowKey, entry: EntryView) -> Option<Self> {
        let state = match entry.state {
            TcpState::HalfOpen => return None,
            TcpState::Established | TcpState::Fin | TcpState::Reset => RecordState::Established,
            TcpState::Closed => RecordState::Closed,
        };
        Some(Self { flow, generation: entry.generation, real_server: entry.real_server, state })
    }

    /// For whoever asks. A packet after the handshake made it ask, so what is half-open here is established by now; what is
    /// over need not be known.
    pub(crate) fn in_answer(flow: FlowKey, entry: EntryView) -> Option<Self> {
        let is_over = entry.state == TcpState::Closed;
        (!is_over).then_some(Self {
            flow,
            generation: entry.generation,
            real_server: entry.real_server,
            state: RecordState::Established,
        })
    }

    /// Stands for a flow of which only the name is known.
    pub(crate) fn asking_for(flow: FlowKey) -> Self {
        Self { flow, generation: 0, real_server: NodeId(0), state: RecordState::Established }
    }

    pub(crate) fn write_to(&self, bytes: &mut Vec<u8>) {
        let FlowKey { protocol, client, service } = self.flow;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        bytes.push(
            flag(protocol == Protocol::Udp, UDP)
                | flag(client.address.is_ipv6(), CLIENT_IPV6)
                | flag(service.address.is_ipv6(), SERVICE_IPV6)
                | flag(self.state == RecordState::Closed, CLOSED),
        );
        push_socket(bytes, client.address, client.port);
        push_socket(bytes, service.address, service.port);
        bytes.extend(self.generation.to_be_bytes());
        bytes.extend(self.real_server.0.to_be_bytes());
    }

    /// Reads one record; `None` if the bytes end too early or have flags that this version does not know.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let flags = fields.u8().filter(|flags| flags & !KNOWN == 0)?;
        let client = read_socket(fields, flags & CLIENT_IPV6 != 0)?;
        let service = read_socket(fields, flags & SERVICE_IPV6 != 0)?;
        Some(Self {
            flow: FlowKey {
                protocol: if flags & UDP == 0 { Protocol::Tcp } else { Protocol::Udp },
                client: ClientSocket { address: client.0, port: client.1 },
                service: ServiceSocket { address: service.0, port: service.1 },
            },
            generation: fields.u32()?,
            real_server: NodeId(fields.u32()?),
            state: if flags & CLOSED == 0 { RecordState::Established } else { RecordState::Closed },
        })
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
        let ack = Segment { ack: true, sequence: self.generation.wrapping_add(1), ..Segment::default() };
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
