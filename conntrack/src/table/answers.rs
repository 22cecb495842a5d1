//! What the table answers.

use crate::tcp_state::TcpState;
use dpr_model::NodeId;

/// What the table knows about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Nothing: decide, if it is a SYN.
    Unknown,
    /// The packet belongs to a connection in the table.
    Known {
        /// Node that terminates it.
        real_server: NodeId,
        /// State after this packet.
        state: TcpState,
        /// The packet is the connection's own SYN once more.
        retransmitted_syn: bool,
        /// This packet took the connection out of the half-open state.
        handshake_completed: bool,
    },
}

/// An entry for those who only look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryView {
    /// Node that terminates the connection.
    pub real_server: NodeId,
    /// State after the last packet.
    pub state: TcpState,
    /// The client's initial sequence number.
    pub generation: u32,
}

/// Why a connection could not be recorded; the director keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableFull {
    /// Every entry is in use, and none is half-open.
    #[error("all {capacity} entries of the connection-forwarding table are in use, none of them half-open")]
    Entries {
        /// Connections that the table can hold.
        capacity: usize,
    },
    /// Connections to 65,536 other real servers, counting restarts, are open.
    #[error("the connection-forwarding table has no number left for real server {node}")]
    RealServers {
        /// Who would have got the connection.
        node: NodeId,
    },
}
