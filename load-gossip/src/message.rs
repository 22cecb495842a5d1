//! The wire format of load reports; `docs/wire-format.md` has it as tables of bytes.
//!
//! A fixed header, length-prefixed sections, an authentication tag; integers are big-endian. Unknown
//! sections, unknown metrics and bytes beyond a section's known fields are skipped, so that old and new
//! nodes understand each other. Decoding is total: any bytes give a datagram or a [`DatagramError`].
//! This module does not judge freshness; replay protection does.

mod brief;
mod exclusions;
mod report;
mod section;

pub use brief::{Brief, Moment};
pub use report::{EncodedReport, PORT_RANGES_IN_ALL_MAX, ReportError};

use crate::auth::{KeyId, Keyring, TAG_LENGTH};
use crate::error::DatagramError;
use dpr_model::{Capacity, Exclusion, Incarnation, LoadReport, MapVersion, NodeId, NodeState, ReceivedFrom};
use dpr_wire::Fields;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Longest datagram, bytes of UDP payload: fits an Ethernet frame with room for a tunnel around it.
pub const DATAGRAM_MAX: usize = 1400;
/// Longest message that a datagram carries for others, bytes.
pub const CARGO_BYTES_MAX: usize = DATAGRAM_MAX - HEADER_LENGTH - TAG_LENGTH;
/// Bytes before the first section.
pub const HEADER_LENGTH: usize = 34;
/// Longest name of a node, bytes.
pub const NAME_MAX: usize = 63;
/// Most metrics of a report.
pub const METRICS_MAX: usize = 32;
/// Most services of a report; that many of IPv4, but only 40 to 50 of IPv6, fit beside everything else.
pub const SERVICES_MAX: usize = 64;
/// Most directors that a report may acknowledge; they take turns in its datagrams.
pub const DIRECTORS_MAX: usize = 8192;

const MAGIC: [u8; 4] = *b"DPRG";
const VERSION: u8 = 2;
const TYPE_LOAD_REPORT: u8 = 1;
const TYPE_CARGO: u8 = 2;
const TYPE_BRIEF_REPORT: u8 = 3;
const FLAG_MULTICAST: u16 = 1;
/// The sender understands brief reports.
const FLAG_READS_BRIEF: u16 = 1 << 1;

/// By which way a copy of a report was sent; the sender says so in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// To a multicast group.
    Multicast,
    /// To one peer.
    Unicast,
}

/// Who sent what, and which copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Multicast or unicast copy.
    pub via: Via,
    /// Who speaks.
    pub sender: NodeId,
    /// In which life.
    pub incarnation: Incarnation,
    /// Count of reports in this life, from 1; cargo is counted by itself.
    pub sequence: u64,
}

/// A datagram that is authentic and well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent what.
    pub header: Header,
    /// Interval at which the sender reports; `None` if it does not say.
    pub interval: Option<Duration>,
    /// The report, with those acknowledgements whose turn it was.
    pub report: LoadReport,
    /// What operators decided about service addresses; those whose turn it was.
    pub exclusions: Vec<Exclusion>,
}

impl Datagram {
    /// What [`Opened::read_into`] fills.
    pub(crate) fn blank() -> Self {
        Self {
            header: Header {
                via: Via::Unicast,
                sender: NodeId(0),
                incarnation: Incarnation::default(),
                sequence: 0,
            },
            interval: None,
            report: LoadReport {
                state: NodeState::Joining,
                ..LoadReport::new(
                    NodeId(0),
                    Incarnation::default(),
                    Ipv4Addr::UNSPECIFIED.into(),
                    Capacity::new(0),
                )
            },
            exclusions: Vec::new(),
        }
    }

    /// Makes it one of which nothing is known but its header. Memory stays, and so do fields that every report has.
    fn begin(&mut self, header: Header) {
        self.header = header;
        self.interval = None;
        self.exclusions.clear();
        let report = &mut self.report;
        report.node = header.sender;
        report.incarnation = header.incarnation;
        report.name.clear();
        report.metrics.clear();
        report.services.clear();
        report.received.clear();
        report.content_version = 0;
        report.nat_ports = None;
        report.map_version = MapVersion::default();
    }

    /// How many connections of `node` in its life `incarnation` the sender says that it received, if it says so here.
    pub(crate) fn acknowledged(&self, node: NodeId, incarnation: Incarnation) -> Option<u64> {
        let own = self
            .report
            .received
            .iter()
            .filter(|count| (count.director, count.incarnation) == (node, incarnation));
        own.map(|count| count.connections).max()
    }
}

/// What is between header and tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageType {
    Report,
    /// A message of others.
    Cargo,
    BriefReport,
}

/// A datagram whose frame and tag were checked, and nothing else yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened<'a> {
    pub(crate) header: Header,
    pub(crate) message_type: MessageType,
    /// The sender understands brief reports.
    pub(crate) reads_brief: bool,
    pub(crate) content: &'a [u8],
}

impl Opened<'_> {
    /// Reads the report that it is; what is in `datagram` after an error means nothing. Its memory is used again: whoever
    /// reads many reports allocates for the first.
    pub(crate) fn read_into(&self, datagram: &mut Datagram) -> Result<(), DatagramError> {
        report::decode(self.header, self.content, datagram)
    }

    /// Reads the brief report that it is, as one that came to `node` in its life `incarnation`.
    pub(crate) fn read_brief(&self, node: NodeId, incarnation: Incarnation) -> Result<Brief, DatagramError> {
        brief::read(self.content, node, incarnation)
    }
}

/// Builds a datagram; acknowledgements beyond [`EncodedReport::acknowledgements_max`] are left out.
pub fn encode(
    header: &Header,
    report: &EncodedReport,
    received: &[ReceivedFrom],
    keyring: &Keyring,
) -> Vec<u8> {
    seal(header, MessageType::Report, keyring, |bytes| report.write_to(bytes, received))
}

/// Builds a brief report; acknowledgements beyond [`EncodedReport::brief_acknowledgements_max`] are left out.
pub fn encode_brief(
    header: &Header,
    report: &EncodedReport,
    received: &[ReceivedFrom],
    keyring: &Keyring,
) -> Vec<u8> {
    seal(header, MessageType::BriefReport, keyring, |bytes| report.write_brief_to(bytes, received))
}

/// Builds a datagram that carries a message of others, at most [`CARGO_BYTES_MAX`] long.
pub(crate) fn encode_cargo(header: &Header, cargo: &[u8], keyring: &Keyring) -> Vec<u8> {
    seal(header, MessageType::Cargo, keyring, |bytes| bytes.extend(cargo))
}

/// Checks and reads a report: first its frame, then its tag, only then what is in it.
pub fn decode(bytes: &[u8], keyring: &Keyring) -> Result<Datagram, DatagramError> {
    let opened = open(bytes, keyring)?;
    if opened.message_type != MessageType::Report {
        return Err(DatagramError::UnknownType(opened.message_type.number()));
    }
    let mut datagram = Datagram::blank();
    opened.read_into(&mut datagram)?;
    Ok(datagram)
}

/// Checks and reads a brief report that came to `node` in its life `incarnation`.
pub fn decode_brief(
    bytes: &[u8],
    keyring: &Keyring,
    node: NodeId,
    incarnation: Incarnation,
) -> Result<(Header, Brief), DatagramError> {
    let opened = open(bytes, keyring)?;
    if opened.message_type != MessageType::BriefReport {
        return Err(DatagramError::UnknownType(opened.message_type.number()));
    }
    Ok((opened.header, opened.read_brief(node, incarnation)?))
}

/// Checks a datagram's frame, then its tag, then whether its type is known.
pub(crate) fn open<'a>(bytes: &'a [u8], keyring: &Keyring) -> Result<Opened<'a>, DatagramError> {
    let length = bytes.len();
    if length > DATAGRAM_MAX {
        return Err(DatagramError::TooLong { length });
    }
    let too_short = DatagramError::TooShort { length };
    let (signed, tag) = bytes.split_last_chunk::<TAG_LENGTH>().ok_or(too_short)?;
    let (header_bytes, content) = signed.split_first_chunk::<HEADER_LENGTH>().ok_or(too_short)?;
    let raw = RawHeader::read(header_bytes).ok_or(too_short)?;
    raw.check(length)?;
    keyring.verify(raw.key, signed, tag)?;
    Ok(Opened {
        header: raw.header(),
        message_type: MessageType::of(raw.message_type)?,
        reads_brief: raw.flags & FLAG_READS_BRIEF != 0,
        content,
    })
}

/// Header, content, length, tag.
fn seal(
    header: &Header,
    message_type: MessageType,
    keyring: &Keyring,
    write_content: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    let via = match header.via {
        Via::Multicast => FLAG_MULTICAST,
        Via::Unicast => 0,
    };
    let reads_brief = match message_type {
        MessageType::Report | MessageType::BriefReport => FLAG_READS_BRIEF,
        MessageType::Cargo => 0,
    };
    let mut bytes = Vec::with_capacity(DATAGRAM_MAX);
    bytes.extend(MAGIC);
    bytes.extend([VERSION, message_type.number()]);
    bytes.extend((via | reads_brief).to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend(keyring.signing_id().0);
    bytes.extend(header.sender.0.to_be_bytes());
    bytes.extend(header.incarnation.0.to_be_bytes());
    bytes.extend(header.sequence.to_be_bytes());
    write_content(&mut bytes);

    let length = u16::try_from(bytes.len() + TAG_LENGTH).expect("content is bounded by DATAGRAM_MAX");
    bytes[LENGTH_AT..LENGTH_AT + 2].copy_from_slice(&length.to_be_bytes());
    let tag = keyring.sign(&bytes);
    bytes.extend(tag);
    bytes
}

impl MessageType {
    fn of(number: u8) -> Result<Self, DatagramError> {
        match number {
            TYPE_LOAD_REPORT => Ok(Self::Report),
            TYPE_CARGO => Ok(Self::Cargo),
            TYPE_BRIEF_REPORT => Ok(Self::BriefReport),
            _ => Err(DatagramError::UnknownType(number)),
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Report => TYPE_LOAD_REPORT,
            Self::Cargo => TYPE_CARGO,
            Self::BriefReport => TYPE_BRIEF_REPORT,
        }
    }
}

/// Offset of the total length.
const LENGTH_AT: usize = 8;

/// The header's fields in their order on the wire.
struct RawHeader {
    magic: [u8; 4],
    version: u8,
    message_type: u8,
    flags: u16,
    length: u16,
    key: KeyId,
    sender: u32,
    incarnation: u64,
    sequence: u64,
}

impl RawHeader {
    fn read(bytes: &[u8; HEADER_LENGTH]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        Some(Self {
            magic: fields.array()?,
            version: fields.u8()?,
            message_type: fields.u8()?,
            flags: fields.u16()?,
            length: fields.u16()?,
            key: KeyId(fields.array()?),
            sender: fields.u32()?,
            incarnation: fields.u64()?,
            sequence: fields.u64()?,
        })
    }

    fn check(&self, actual: usize) -> Result<(), DatagramError> {
        if self.magic != MAGIC {
            return Err(DatagramError::BadMagic(self.magic));
        }
        if self.version != VERSION {
            return Err(DatagramError::UnknownVersion(self.version));
        }
        if usize::from(self.length) != actual {
            return Err(DatagramError::LengthMismatch { claimed: self.length, actual });
        }
        Ok(())
    }

    fn header(&self) -> Header {
        Header {
            via: if self.flags & FLAG_MULTICAST == 0 { Via::Unicast } else { Via::Multicast },
            sender: NodeId(self.sender),
            incarnation: Incarnation(self.incarnation),
            sequence: self.sequence,
        }
    }
}
