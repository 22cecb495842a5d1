//! Why a connection or a request failed, in the words that tables and tests use.

use crate::pattern::Mismatch;
use std::io;

/// How a connection ended that should not have ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breakage {
    /// A RST answered the SYN.
    #[error("connection refused")]
    Refused,
    /// A RST came in an established connection.
    #[error("connection reset")]
    Reset,
    /// Nothing came in time.
    #[error("timed out")]
    TimedOut,
    /// ICMP or the own routing table says that there is no way.
    #[error("unreachable")]
    Unreachable,
    /// The other end closed before it had said everything.
    #[error("closed early")]
    ClosedEarly,
    /// DNS did not say where to connect.
    #[error("unresolved: {0}")]
    Unresolved(String),
    /// A byte was not the expected one.
    #[error("corrupt: {0}")]
    Corrupt(#[from] Mismatch),
    /// The other end broke the protocol.
    #[error("wrong content: {0}")]
    WrongContent(String),
    /// Anything else that the operating system said.
    #[error("{0}")]
    Other(String),
}

impl Breakage {
    /// One word for tables.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timeout",
            Self::Unreachable => "unreachable",
            Self::ClosedEarly => "closed-early",
            Self::Unresolved(_) => "unresolved",
            Self::Corrupt(_) => "corrupt",
            Self::WrongContent(_) => "wrong-content",
            Self::Other(_) => "other",
        }
    }
}

impl From<io::Error> for Breakage {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                Self::Reset
            }
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::UnexpectedEof => Self::ClosedEarly,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// The result of `work`, or [`Breakage::TimedOut`] when it takes longer than `limit`.
pub(crate) async fn within<T>(
    limit: std::time::Duration,
    work: impl Future<Output = Result<T, Breakage>>,
) -> Result<T, Breakage> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Breakage::TimedOut))
}
