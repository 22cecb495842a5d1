//! What directors and backups say to each other.

use crate::sync::record::{Copied, RECORD_MAX, Record};
use dpr_model::FlowKey;
use dpr_wire::Fields;
use std::net::IpAddr;

/// Longest message, bytes: it travels in a datagram of load gossip.
pub const MESSAGE_MAX: usize = 1300;
/// Most connections that one query asks for: their records fit one answer.
pub const QUERY_MAX: usize = (MESSAGE_MAX - 1) / RECORD_MAX;

/// Most bytes of all that a list names, each of [`named_len`].
pub const LIST_MAX: usize = MESSAGE_MAX - 1;

/// First byte of every message, at least: messages of agreement on ownership, which travel the same way, have smaller ones.
pub const KINDS_FROM: u8 = 16;

/// Kinds of messages.
const BATCH: u8 = KINDS_FROM;
const ACK: u8 = 17;
const QUERY: u8 = 18;
const ANSWER: u8 = 19;
const ENDED: u8 = 20;
const INQUIRY: u8 = 21;
const STANDING: u8 = 22;
const BEGUN: u8 = 23;

/// Flag of a batch: a snapshot ends with it.
const SNAPSHOT_ENDS: u8 = 1;
/// Flag of an acknowledgement: the copy is not whole.
const WANTS_SNAPSHOT: u8 = 1;

/// Offset of the oldest sequence in a batch, which is entered when it is sent.
const OLDEST_AT: usize = 10;
/// Bytes before the first record of a batch.
pub(crate) const BATCH_HEADER: usize = 26;
/// Offset of the first sequence of a snapshot.
const SNAPSHOT_AT: usize = 18;

/// A message of synchronisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Some connections and clients, as they changed.
    Batch {
        /// Count of batches in the stream, from 0.
        sequence: u64,
        /// The oldest batch that the sender can still send.
        oldest: u64,
        /// A snapshot ends here that began with this batch: whoever has all of them has a whole copy.
        snapshot_began: Option<u64>,
        /// In their order.
        records: Vec<Copied>,
    },
    /// What has come.
    Ack {
        /// All before it have come.
        next: u64,
        /// Which of the 64 after it have come, lowest first.
        present: u64,
        /// The copy is not whole.
        wants_snapshot: bool,
    },
    /// Asks for connections, at most [`QUERY_MAX`].
    Query(Vec<FlowKey>),
    /// Those of a query that the sender knows.
    Answer(Vec<Record>),
    /// Connections of which the sender, their real server, has no socket any more. Which ones of these sockets' they were it
    /// does not know: whoever knows some asks ([`Self::Inquiry`]).
    Ended(Vec<FlowKey>),
    /// Asks the real server of these connections whether it still has them.
    Inquiry(Vec<Record>),
    /// What became of those of an inquiry, each by its state.
    Standing(Vec<Record>),
    /// Handshakes that have begun in slots that the sender owned and the receiver owns now, at most [`QUERY_MAX`]. The state of
    /// these records says nothing.
    Begun(Vec<Record>),
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It ends before its fields do, or has a record that this version does not know.
    #[error("the message is cut off or of a later version")]
    Malformed,
    /// Of a later version of `dpr`, or not of synchronisation.
    #[error("message kind {0} is not known")]
    UnknownKind(u8),
}

impl MessageError {
    /// Counter label and log word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKind(_) => "unknown-kind",
        }
    }
}

impl Message {
    /// As bytes, at most [`MESSAGE_MAX`] if a list is no longer than [`QUERY_MAX`], or as long as [`LIST_MAX`] allows.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MESSAGE_MAX);
        match self {
            Self::Batch { sequence, oldest, snapshot_began, records } => {
                begin_batch(&mut bytes, *sequence);
                end_batch(&mut bytes, *snapshot_began);
                set_oldest(&mut bytes, *oldest);
                records.iter().for_each(|record| record.write_to(&mut bytes));
            }
            Self::Ack { next, present, wants_snapshot } => {
                bytes.extend([ACK, if *wants_snapshot { WANTS_SNAPSHOT } else { 0 }]);
                bytes.extend(next.to_be_bytes());
                bytes.extend(present.to_be_bytes());
            }
            Self::Query(flows) => write_flows(&mut bytes, QUERY, flows),
            Self::Answer(records) => write_records(&mut bytes, ANSWER, records),
            Self::Ended(flows) => write_flows(&mut bytes, ENDED, flows),
            Self::Inquiry(records) => write_records(&mut bytes, INQUIRY, records),
            Self::Standing(records) => write_records(&mut bytes, STANDING, records),
            Self::Begun(records) => write_records(&mut bytes, BEGUN, records),
        }
        bytes
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`MessageError`]; nothing of a message with an error is used.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut fields = Fields::new(bytes);
        let kind = fields.u8().ok_or(MessageError::Malformed)?;
        let message = match kind {
            BATCH => read_batch(&mut fields),
            ACK => read_ack(&mut fields),
            QUERY => read_flows(&mut fields).map(Self::Query),
            ANSWER => read_all(&mut fields, Record::read).map(Self::Answer),
            ENDED => read_flows(&mut fields).map(Self::Ended),
            INQUIRY => read_all(&mut fields, Record::read).map(Self::Inquiry),
            STANDING => read_all(&mut fields, Record::read).map(Self::Standing),
            BEGUN => read_all(&mut fields, Record::read).map(Self::Begun),
            kind => return Err(MessageError::UnknownKind(kind)),
        };
        message.ok_or(MessageError::Malformed)
    }
}

/// Bytes that a connection takes in a list, without translation.
pub fn named_len(flow: &FlowKey) -> usize {
    let socket = |address: IpAddr| if address.is_ipv4() { 6 } else { 18 };
    9 + socket(flow.client.address) + socket(flow.service.address)
}

/// Begins a batch; records follow.
pub(crate) fn begin_batch(bytes: &mut Vec<u8>, sequence: u64) {
    bytes.extend([BATCH, 0]);
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([0; 16]);
}

/// Says of a batch whether it ends a snapshot, and with which batch that began.
pub(crate) fn end_batch(bytes: &mut [u8], snapshot_began: Option<u64>) {
    bytes[1] = if snapshot_began.is_some() { SNAPSHOT_ENDS } else { 0 };
    bytes[SNAPSHOT_AT..BATCH_HEADER].copy_from_slice(&snapshot_began.unwrap_or(0).to_be_bytes());
}

/// Enters the oldest batch that can still be sent.
pub(crate) fn set_oldest(bytes: &mut [u8], oldest: u64) {
    bytes[OLDEST_AT..SNAPSHOT_AT].copy_from_slice(&oldest.to_be_bytes());
}

fn read_batch(fields: &mut Fields<'_>) -> Option<Message> {
    let (flags, sequence, oldest) = (fields.u8()?, fields.u64()?, fields.u64()?);
    let snapshot_began = Some(fields.u64()?).filter(|_| flags & SNAPSHOT_ENDS != 0);
    let records = read_all(fields, Copied::read)?;
    Some(Message::Batch { sequence, oldest, snapshot_began, records })
}

fn read_ack(fields: &mut Fields<'_>) -> Option<Message> {
    let wants_snapshot = fields.u8()? & WANTS_SNAPSHOT != 0;
    Some(Message::Ack { next: fields.u64()?, present: fields.u64()?, wants_snapshot })
}

fn write_flows(bytes: &mut Vec<u8>, kind: u8, flows: &[FlowKey]) {
    bytes.push(kind);
    flows.iter().for_each(|flow| Record::asking_for(*flow).write_to(bytes));
}

fn write_records(bytes: &mut Vec<u8>, kind: u8, records: &[Record]) {
    bytes.push(kind);
    records.iter().for_each(|record| record.write_to(bytes));
}

fn read_flows(fields: &mut Fields<'_>) -> Option<Vec<FlowKey>> {
    let records = read_all(fields, Record::read)?;
    Some(records.into_iter().map(|record| record.flow).collect())
}

fn read_all<T>(fields: &mut Fields<'_>, read: fn(&mut Fields<'_>) -> Option<T>) -> Option<Vec<T>> {
    let mut records = Vec::with_capacity(fields.rest().len() / 21);
    while !fields.rest().is_empty() {
        records.push(read(fields)?);
    }
    Some(records)
}
