//! Copies of connections at the nodes that would take over: what a director sends, and what its backups make of it.
//!
//! Each director keeps one [`Stream`] to each backup, which keeps a [`Replica`] of it. Connections that are older than
//! [`ANNOUNCED_AFTER`] and closings go out in numbered batches; what got lost is sent again, what cannot be sent again
//! is made good by a snapshot. So do clients that stay with their real server. Batches are applied in their order, and records name their connection's generation, so
//! that a late closing cannot end a later connection of the same sockets. Younger and lost ones are asked for
//! ([`Message::Query`]).
//!
//! Of what only a real server sees it tells the director ([`Message::Ended`]), who asks about the connections that it knows
//! ([`Message::Inquiry`]), also about silent ones.
//!
//! Memory and bandwidth are bounded: a stream that cannot keep up forgets its oldest batches, says how far behind it is
//! ([`Stream::behind`]), and catches up by a snapshot. The bytes are in `docs/wire-format.md`. This module refuses to
//! know who is whose backup, and who owns what: its callers do.

mod message;
mod record;
mod replica;
mod stream;
mod young;

pub use message::{KINDS_FROM, LIST_MAX, MESSAGE_MAX, Message, MessageError, QUERY_MAX, named_len};
pub use record::{ClientRecord, Copied, Record, RecordState};
pub use replica::Replica;
pub use stream::{Behind, SNAPSHOT_PAGE, Stream};
pub use young::Young;

use crate::Table;
use dpr_model::FlowKey;
use std::time::Duration;

/// Most connections to a web service end sooner, and are not worth two messages.
pub const ANNOUNCED_AFTER: Duration = Duration::from_millis(200);

/// What this node's table knows about a connection that another one asks for.
pub fn answer(table: &Table, flow: &FlowKey) -> Option<Record> {
    Record::in_answer(*flow, table.get(flow)?)
}
