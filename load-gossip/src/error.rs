//! Every reason for which a datagram is refused: error type, counter label and log word in one.

use crate::auth::KeyId;
use dpr_model::Incarnation;
use std::net::IpAddr;

/// Why a datagram was refused. Anybody can send anything, so none of these is a fault of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It ends before header and tag do.
    #[error("{length} bytes are too short for header and tag")]
    TooShort {
        /// Bytes received.
        length: usize,
    },
    /// It is longer than [`crate::message::DATAGRAM_MAX`].
    #[error("{length} bytes are more than a datagram may have")]
    TooLong {
        /// Bytes received.
        length: usize,
    },
    /// It is not gossip of `dpr`.
    #[error("magic bytes {0:02x?} are not `DPRG`")]
    BadMagic([u8; 4]),
    /// An incompatible version of the format.
    #[error("format version {0} is unknown")]
    UnknownVersion(u8),
    /// The length in the header is not the length of the datagram.
    #[error("header claims {claimed} bytes, datagram has {actual}")]
    LengthMismatch {
        /// Bytes that the header claims.
        claimed: u16,
        /// Bytes received.
        actual: usize,
    },
    /// It carries no key although this node has one.
    #[error("not authenticated, and this node demands it")]
    Unauthenticated,
    /// It was signed with a key that this node does not have.
    #[error("signed with unknown key {0}")]
    UnknownKey(KeyId),
    /// The authentication tag is wrong: forged, damaged, or not zero without a key.
    #[error("authentication tag is wrong")]
    BadTag,
    /// A message type that this version does not know.
    #[error("message type {0} is unknown")]
    UnknownType(u8),
    /// A section reaches beyond the end.
    #[error("section {section} has {available} bytes and claims {claimed}")]
    TruncatedSection {
        /// Section type; 0 if even that is cut off.
        section: u16,
        /// Bytes that it claims.
        claimed: u16,
        /// Bytes that are left.
        available: usize,
    },
    /// Nobody can have decided that about a service address.
    #[error("an exclusion from beyond the year 10,000")]
    BadExclusion,
    /// A section is there twice.
    #[error("section {0} is repeated")]
    RepeatedSection(u16),
    /// A required section is absent.
    #[error("section {0} is missing")]
    MissingSection(u16),
    /// A section is too short for its fields, or its list does not divide into entries.
    #[error("section {section} cannot have {length} bytes")]
    BadSectionLength {
        /// Section type.
        section: u16,
        /// Its bytes.
        length: usize,
    },
    /// A list is longer than its limit.
    #[error("section {section} has {count} entries")]
    TooManyEntries {
        /// Section type.
        section: u16,
        /// Entries claimed.
        count: usize,
    },
    /// The name is too long, not UTF-8, or has control characters.
    #[error("name of {length} bytes is too long or not printable UTF-8")]
    BadName {
        /// Its bytes.
        length: usize,
    },
    /// No tunnel can end at the node address.
    #[error("{0} cannot be a node address")]
    BadAddress(IpAddr),
    /// The port range is empty or starts at 0.
    #[error("{first} to {last} is not a range of ports")]
    BadPorts {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// From an earlier life of its sender.
    #[error("incarnation {} is older than {}", incarnation.0, known.0)]
    StaleIncarnation {
        /// Incarnation of the datagram.
        incarnation: Incarnation,
        /// Newest incarnation known of that node.
        known: Incarnation,
    },
    /// Older than the replay window reaches.
    #[error("sequence {sequence} is too old, {newest} was seen")]
    TooOld {
        /// Sequence of the datagram.
        sequence: u64,
        /// Newest sequence known.
        newest: u64,
    },
    /// Seen before: replayed, or delivered twice because two groups share a wire.
    #[error("sequence {sequence} was seen before")]
    Replayed {
        /// Sequence of the datagram.
        sequence: u64,
    },
    /// A brief report of a node, or of a life of it, that has not said yet who it is.
    #[error("a brief report of a node that has not sent a full one")]
    NotIntroduced,
    /// Another node uses this node's id.
    #[error("{address} uses this node's id, incarnation {}", incarnation.0)]
    IdConflict {
        /// Node address of the other one.
        address: IpAddr,
        /// Its incarnation.
        incarnation: Incarnation,
    },
    /// A new node, and the table is full.
    #[error("the table already has {limit} peers")]
    TableFull {
        /// Peers that fit.
        limit: usize,
    },
}

impl DatagramError {
    /// Every label, so that counters can start at zero instead of being absent.
    pub const LABELS: [&'static str; 24] = [
        "too-short",
        "too-long",
        "bad-magic",
        "unknown-version",
        "length-mismatch",
        "unauthenticated",
        "unknown-key",
        "bad-tag",
        "unknown-type",
        "truncated-section",
        "repeated-section",
        "missing-section",
        "bad-section-length",
        "too-many-entries",
        "bad-name",
        "bad-address",
        "bad-ports",
        "bad-exclusion",
        "stale-incarnation",
        "too-old",
        "replayed",
        "not-introduced",
        "id-conflict",
        "table-full",
    ];

    /// Counter label and log word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooShort { .. } => "too-short",
            Self::TooLong { .. } => "too-long",
            Self::BadMagic(_) => "bad-magic",
            Self::UnknownVersion(_) => "unknown-version",
            Self::LengthMismatch { .. } => "length-mismatch",
            Self::Unauthenticated => "unauthenticated",
            Self::UnknownKey(_) => "unknown-key",
            Self::BadTag => "bad-tag",
            Self::UnknownType(_) => "unknown-type",
            Self::TruncatedSection { .. } => "truncated-section",
            Self::RepeatedSection(_) => "repeated-section",
            Self::MissingSection(_) => "missing-section",
            Self::BadSectionLength { .. } => "bad-section-length",
            Self::TooManyEntries { .. } => "too-many-entries",
            Self::BadName { .. } => "bad-name",
            Self::BadAddress(_) => "bad-address",
            Self::BadPorts { .. } => "bad-ports",
            Self::BadExclusion => "bad-exclusion",
            Self::StaleIncarnation { .. } => "stale-incarnation",
            Self::TooOld { .. } => "too-old",
            Self::Replayed { .. } => "replayed",
            Self::NotIntroduced => "not-introduced",
            Self::IdConflict { .. } => "id-conflict",
            Self::TableFull { .. } => "table-full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    #[test]
    fn every_reason_has_a_label_of_its_own_that_is_listed() {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let incarnation = Incarnation(1);
        let all = [
            DatagramError::TooShort { length: 0 },
            DatagramError::TooLong { length: 0 },
            DatagramError::BadMagic([0; 4]),
            DatagramError::UnknownVersion(0),
            DatagramError::LengthMismatch { claimed: 0, actual: 0 },
            DatagramError::Unauthenticated,
            DatagramError::UnknownKey(KeyId::NONE),
            DatagramError::BadTag,
            DatagramError::UnknownType(0),
            DatagramError::TruncatedSection { section: 0, claimed: 0, available: 0 },
            DatagramError::RepeatedSection(0),
            DatagramError::MissingSection(0),
            DatagramError::BadSectionLength { section: 0, length: 0 },
            DatagramError::TooManyEntries { section: 0, count: 0 },
            DatagramError::BadName { length: 0 },
            DatagramError::BadAddress(address),
            DatagramError::BadPorts { first: 0, last: 0 },
            DatagramError::BadExclusion,
            DatagramError::StaleIncarnation { incarnation, known: incarnation },
            DatagramError::TooOld { sequence: 0, newest: 0 },
            DatagramError::Replayed { sequence: 0 },
            DatagramError::NotIntroduced,
            DatagramError::IdConflict { address, incarnation },
            DatagramError::TableFull { limit: 0 },
        ];

        assert_eq!(all.map(DatagramError::label), DatagramError::LABELS);
        assert_eq!(BTreeSet::from(DatagramError::LABELS).len(), all.len());
    }
}
