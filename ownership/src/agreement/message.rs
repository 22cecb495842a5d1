//! What nodes say to each other to agree; `docs/wire-format.md` has it as tables of bytes.
//!
//! Every message is a set of facts that stay true, or are about a named map: it may come late, twice, or never, and an
//! old one can be repeated by a stranger, without harm.

use crate::encoding::{MAP_BYTES_MAX, MapHash, push_version, read_version};
use crate::map::VOTERS_MAX;
use dpr_model::{Incarnation, MapVersion, NodeId, Timestamp};
use dpr_wire::{Fields, concat};
use std::time::Duration;

/// Longest message, bytes: it travels in a datagram of load gossip.
pub const MESSAGE_MAX: usize = 1300;
/// Bytes of a map in one chunk.
pub(crate) const CHUNK_BYTES: usize = 1200;
/// Most chunks of a map.
pub(crate) const CHUNKS_MAX: usize = MAP_BYTES_MAX.div_ceil(CHUNK_BYTES);
/// Most promises in one statement; the rest go into further ones.
pub(crate) const PROMISES_MAX: usize = 50;

const STATEMENT: u8 = 1;
const REQUEST: u8 = 2;
const CHUNK: u8 = 3;

/// Flags of a statement.
const CLEARED: u8 = 1;
const ABLE: u8 = 2;
const HAS_VOTE: u8 = 4;
const HAS_NAMED: u8 = 8;
const ENTITLED: u8 = 16;
const COORDINATING: u8 = 32;
const HANDED: u8 = 64;
const CUT_OFF: u8 = 128;
/// Flags of a promise.
const SUSPECTED: u8 = 1;
const HEARD: u8 = 2;

const PROMISE_LENGTH: usize = 23;

/// A message between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Statement(Statement),
    Request(Request),
    Chunk(Chunk),
}

/// Where a node stands; several times a second, to all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    /// The sender's clock when it was sent.
    pub(crate) stamp: Timestamp,
    pub(crate) standing: Standing,
    /// Nodes that an operator has declared dead.
    pub(crate) forgotten: Vec<NodeId>,
    /// What a voter has heard; each at most once, perhaps not all.
    pub(crate) promises: Vec<Promise>,
}

/// The facts of a statement that replace what the sender said before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Latest election that the sender voted in.
    pub(crate) term: u64,
    /// For whom.
    pub(crate) vote: Option<NodeId>,
    /// Who should be coordinator in its view.
    pub(crate) names: Option<NodeId>,
    /// Its map.
    pub(crate) accepted: MapVersion,
    pub(crate) hash: MapHash,
    /// The map that its data plane acts by; nothing acts by an earlier one any more.
    pub(crate) acting: MapVersion,
    /// No promise that it made under an earlier map than `accepted` binds it any more.
    pub(crate) cleared: bool,
    /// It hears enough voters to coordinate.
    pub(crate) able: bool,
    /// A quorum has promised it something: it may act as an owner.
    pub(crate) entitled: bool,
    /// A quorum has elected it, and names it.
    pub(crate) coordinating: bool,
    /// Heirs of addresses, by its map, have copies of all that it has of those.
    pub(crate) handed: bool,
    /// Clients cannot reach it, by what it sees of their network.
    pub(crate) cut_off: bool,
}

/// What a voter has heard of a node, and for how long it will not consent to the node's death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) node: NodeId,
    pub(crate) suspected: bool,
    /// The life, the stamp and the term from that stamp on; `None` if nothing was heard yet.
    pub(crate) heard: Option<(Incarnation, Timestamp, Duration)>,
}

/// Asks for the missing chunks of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) version: MapVersion,
    /// Chunks that are there already, one bit each, lowest first.
    pub(crate) present: Vec<u8>,
}

/// A part of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) version: MapVersion,
    /// Of the whole map.
    pub(crate) hash: MapHash,
    pub(crate) map_length: u32,
    pub(crate) number: u16,
    pub(crate) bytes: Vec<u8>,
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It ends before its fields do.
    #[error("the message is cut off")]
    Truncated,
    /// Of a later version of `dpr`.
    #[error("message kind {0} is not known")]
    UnknownKind(u8),
    /// A list is longer than it may be.
    #[error("a list of {0} entries is too long")]
    TooManyEntries(usize),
    /// A chunk lies outside of the map that it says it is of.
    #[error("chunk {number} cannot be of a map of {map_length} bytes")]
    BadChunk {
        /// Which chunk.
        number: u16,
        /// Bytes of the map.
        map_length: u32,
    },
}

impl MessageError {
    /// Counter label and log word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::UnknownKind(_) => "unknown-kind",
            Self::TooManyEntries(_) => "too-many-entries",
            Self::BadChunk { .. } => "bad-chunk",
        }
    }
}

impl Message {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MESSAGE_MAX);
        match self {
            Self::Statement(statement) => push_statement(&mut bytes, statement),
            Self::Request(request) => {
                bytes.push(REQUEST);
                push_version(&mut bytes, request.version);
                bytes.push(u8::try_from(request.present.len()).expect("CHUNKS_MAX bits are few bytes"));
                bytes.extend(&request.present);
            }
            Self::Chunk(chunk) => {
                bytes.push(CHUNK);
                push_version(&mut bytes, chunk.version);
                bytes.extend(chunk.hash.0);
                bytes.extend(chunk.map_length.to_be_bytes());
                bytes.extend(chunk.number.to_be_bytes());
                bytes.extend(&chunk.bytes);
            }
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut fields = Fields::new(bytes);
        let kind = fields.u8().ok_or(MessageError::Truncated)?;
        match kind {
            STATEMENT => read_statement(&mut fields).map(Self::Statement),
            REQUEST => read_request(&mut fields).map(Self::Request),
            CHUNK => read_chunk(&mut fields).map(Self::Chunk),
            kind => Err(MessageError::UnknownKind(kind)),
        }
    }
}

fn push_statement(bytes: &mut Vec<u8>, statement: &Statement) {
    let Standing { term, vote, names, accepted, hash, acting, .. } = statement.standing;
    let Standing { cleared, able, entitled, coordinating, handed, cut_off, .. } = statement.standing;
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    bytes.push(STATEMENT);
    bytes.push(
        flag(cleared, CLEARED)
            | flag(able, ABLE)
            | flag(entitled, ENTITLED)
            | flag(coordinating, COORDINATING)
            | flag(handed, HANDED)
            | flag(cut_off, CUT_OFF)
            | flag(vote.is_some(), HAS_VOTE)
            | flag(names.is_some(), HAS_NAMED),
    );
    bytes.extend(statement.stamp.as_nanos().to_be_bytes());
    bytes.extend(term.to_be_bytes());
    bytes.extend(vote.unwrap_or(NodeId(0)).0.to_be_bytes());
    bytes.extend(names.unwrap_or(NodeId(0)).0.to_be_bytes());
    push_version(bytes, accepted);
    bytes.extend(hash.0);
    push_version(bytes, acting);
    bytes.push(u8::try_from(statement.forgotten.len()).expect("there are few voters"));
    bytes.extend(statement.forgotten.iter().flat_map(|node| node.0.to_be_bytes()));
    bytes.push(PROMISE_LENGTH as u8);
    bytes.extend(statement.promises.iter().flat_map(promise_bytes));
}

fn promise_bytes(promise: &Promise) -> [u8; PROMISE_LENGTH] {
    let suspected = if promise.suspected { SUSPECTED } else { 0 };
    let heard = if promise.heard.is_some() { HEARD } else { 0 };
    let (incarnation, stamp, term) = promise.heard.unwrap_or_default();
    let term_ms = u16::try_from(term.as_millis()).unwrap_or(u16::MAX);
    concat(&[
        &promise.node.0.to_be_bytes(),
        &[suspected | heard],
        &incarnation.0.to_be_bytes(),
        &stamp.as_nanos().to_be_bytes(),
        &term_ms.to_be_bytes(),
    ])
}

fn read_statement(fields: &mut Fields<'_>) -> Result<Statement, MessageError> {
    let (stamp, standing) = read_standing(fields).ok_or(MessageError::Truncated)?;
    let count = usize::from(fields.u8().ok_or(MessageError::Truncated)?);
    if count > VOTERS_MAX {
        return Err(MessageError::TooManyEntries(count));
    }
    let forgotten = (0..count).map(|_| fields.u32().map(NodeId)).collect::<Option<_>>();
    let length = usize::from(fields.u8().ok_or(MessageError::Truncated)?);
    let list = fields.rest();
    if length < PROMISE_LENGTH || list.len() % length != 0 {
        return Err(MessageError::Truncated);
    }
    if list.len() / length > PROMISES_MAX {
        return Err(MessageError::TooManyEntries(list.len() / length));
    }
    let promises = list.chunks_exact(length).map(|entry| read_promise(&mut Fields::new(entry)));
    Ok(Statement {
        stamp,
        standing,
        forgotten: forgotten.ok_or(MessageError::Truncated)?,
        promises: promises.collect::<Option<_>>().ok_or(MessageError::Truncated)?,
    })
}

fn read_standing(fields: &mut Fields<'_>) -> Option<(Timestamp, Standing)> {
    let flags = fields.u8()?;
    let stamp = Timestamp::from_nanos(fields.u64()?);
    let term = fields.u64()?;
    let (vote, names) = (NodeId(fields.u32()?), NodeId(fields.u32()?));
    let standing = Standing {
        term,
        vote: (flags & HAS_VOTE != 0).then_some(vote),
        names: (flags & HAS_NAMED != 0).then_some(names),
        accepted: read_version(fields)?,
        hash: MapHash(fields.array()?),
        acting: read_version(fields)?,
        cleared: flags & CLEARED != 0,
        able: flags & ABLE != 0,
        entitled: flags & ENTITLED != 0,
        coordinating: flags & COORDINATING != 0,
        handed: flags & HANDED != 0,
        cut_off: flags & CUT_OFF != 0,
    };
    Some((stamp, standing))
}

fn read_promise(fields: &mut Fields<'_>) -> Option<Promise> {
    let (node, flags) = (NodeId(fields.u32()?), fields.u8()?);
    let heard = (
        Incarnation(fields.u64()?),
        Timestamp::from_nanos(fields.u64()?),
        Duration::from_millis(fields.u16()?.into()),
    );
    let heard = (flags & HEARD != 0).then_some(heard);
    Some(Promise { node, suspected: flags & SUSPECTED != 0, heard })
}

fn read_request(fields: &mut Fields<'_>) -> Result<Request, MessageError> {
    let version = read_version(fields).ok_or(MessageError::Truncated)?;
    let length = usize::from(fields.u8().ok_or(MessageError::Truncated)?);
    if length > CHUNKS_MAX.div_ceil(8) {
        return Err(MessageError::TooManyEntries(length));
    }
    let present = fields.bytes(length).ok_or(MessageError::Truncated)?.to_vec();
    Ok(Request { version, present })
}

fn read_chunk(fields: &mut Fields<'_>) -> Result<Chunk, MessageError> {
    let version = read_version(fields).ok_or(MessageError::Truncated)?;
    let hash = MapHash(fields.array().ok_or(MessageError::Truncated)?);
    let map_length = fields.u32().ok_or(MessageError::Truncated)?;
    let number = fields.u16().ok_or(MessageError::Truncated)?;
    let bytes = fields.rest().to_vec();
    let begin = usize::from(number) * CHUNK_BYTES;
    let left = (map_length as usize).saturating_sub(begin);
    if map_length as usize > MAP_BYTES_MAX || left == 0 || bytes.len() != left.min(CHUNK_BYTES) {
        return Err(MessageError::BadChunk { number, map_length });
    }
    Ok(Chunk { version, hash, map_length, number, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn statement(promises: usize) -> Message {
        let version = MapVersion { term: 3, epoch: 4, coordinator: 5 };
        let heard = Some((Incarnation(6), Timestamp::from_millis(7), Duration::from_millis(450)));
        Message::Statement(Statement {
            stamp: Timestamp::from_millis(8),
            standing: Standing {
                term: 3,
                vote: Some(NodeId(0)),
                names: None,
                accepted: version,
                hash: MapHash([9; 16]),
                acting: MapVersion::default(),
                cleared: true,
                able: false,
                entitled: true,
                coordinating: false,
                handed: true,
                cut_off: true,
            },
            forgotten: (0..VOTERS_MAX as u32).map(NodeId).collect(),
            promises: vec![Promise { node: NodeId(5), suspected: false, heard }; promises],
        })
    }

    #[test]
    fn messages_come_back_as_they_were_and_fit_a_datagram() {
        let version = MapVersion { term: 1, epoch: 2, coordinator: 3 };
        let chunk = Chunk { version, hash: MapHash([7; 16]), map_length: 1203, number: 1, bytes: vec![1; 3] };
        let request = Request { version, present: vec![0xff; CHUNKS_MAX.div_ceil(8)] };
        let messages = [
            statement(0),
            statement(PROMISES_MAX),
            Message::Request(request),
            Message::Chunk(Chunk {
                map_length: 1200,
                number: 0,
                bytes: vec![1; CHUNK_BYTES],
                ..chunk.clone()
            }),
            Message::Chunk(chunk),
        ];

        for message in messages {
            let bytes = message.to_bytes();
            assert!(bytes.len() <= MESSAGE_MAX, "{} bytes", bytes.len());
            assert_eq!(Message::from_bytes(&bytes), Ok(message));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        let chunk = |number, map_length: u32, bytes: usize| {
            let version = MapVersion::default();
            let bytes = vec![0; bytes];
            let chunk = Chunk { version, hash: MapHash::default(), map_length, number, bytes };
            Message::from_bytes(&Message::Chunk(chunk).to_bytes())
        };

        assert_eq!(Message::from_bytes(&[]), Err(MessageError::Truncated));
        assert_eq!(Message::from_bytes(&[9]), Err(MessageError::UnknownKind(9)));
        assert_eq!(chunk(1, 1200, 0), Err(MessageError::BadChunk { number: 1, map_length: 1200 }));
        assert_eq!(chunk(0, 1200, 7), Err(MessageError::BadChunk { number: 0, map_length: 1200 }));
        assert_eq!(chunk(0, u32::MAX, 1200), Err(MessageError::BadChunk { number: 0, map_length: u32::MAX }));
        let many = statement(PROMISES_MAX + 1).to_bytes();
        assert_eq!(Message::from_bytes(&many), Err(MessageError::TooManyEntries(PROMISES_MAX + 1)));
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>, kind in 0..5_u8, at in 0..300_usize, byte: u8) {
            let _ = Message::from_bytes(&[[kind].as_slice(), &bytes].concat());
            let mut damaged = statement(9).to_bytes();
            if let Some(place) = damaged.get_mut(at) {
                *place = byte;
            }
            let _ = Message::from_bytes(&damaged);
            let _ = Message::from_bytes(&damaged[..at.min(damaged.len())]);
        }
    }
}
