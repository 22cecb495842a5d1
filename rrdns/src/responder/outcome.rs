//! What became of a query; counted by these words.

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    /// Records were given.
    Answered,
    /// The name exists, the type does not (RFC 2308 section 2.2).
    NoData,
    /// The service has no address that could be named (yet); resolvers ask another server.
    NoAddress,
    /// The name does not exist.
    NoSuchName,
    /// Only a cookie was asked for, and given.
    Cookie,
    /// Not this server's business: another zone, another class, a transfer.
    Refused,
    /// Nothing that a query may look like.
    Malformed,
    /// An operation other than a query.
    NotImplemented,
    /// A version of EDNS that does not exist yet.
    BadVersion,
    /// The answer did not fit, or would have been too long for a client without a cookie.
    Truncated,
    /// The client's network had too many answers already, and was asked to come by TCP.
    LimitedTruncated,
    /// The client's network had too many answers already, and got none.
    Limited,
    /// A response, or fewer bytes than a header has.
    Ignored,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Answered,
        Self::NoData,
        Self::NoAddress,
        Self::NoSuchName,
        Self::Cookie,
        Self::Refused,
        Self::Malformed,
        Self::NotImplemented,
        Self::BadVersion,
        Self::Truncated,
        Self::LimitedTruncated,
        Self::Limited,
        Self::Ignored,
    ];

    /// The word for it in status and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NoData => "no-data",
            Self::NoAddress => "no-address",
            Self::NoSuchName => "no-such-name",
            Self::Cookie => "cookie",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::NotImplemented => "not-implemented",
            Self::BadVersion => "bad-version",
            Self::Truncated => "truncated",
            Self::LimitedTruncated => "limited-truncated",
            Self::Limited => "limited",
            Self::Ignored => "ignored",
        }
    }
}
