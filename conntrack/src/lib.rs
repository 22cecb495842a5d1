//! The connection-forwarding table: which real server has a connection.
//!
//! The director asks [`Table::observe`] about every packet that a client sends to a service, and after its decision
//! on a new connection records it with [`Table::insert`]. The event loop calls [`Table::expire`] about once a second.
//!
//! What the table promises:
//!
//! * 64 bytes per connection, index included, allocated at the start; nothing is rehashed or moved later
//!   (`docs/decisions/0001-conntrack-index.md`). Beside that there are 8 KiB for the timer wheel and some 30 bytes per
//!   real server.
//! * Constant work per packet, constant work per expired connection, bounded work per call.
//! * A SYN flood displaces half-open connections only, and those oldest first.
//! * The same calls with the same arguments give the same answers: no clock, no randomness, no I/O.
//!
//! UDP flows are entries too: a datagram is a [`Segment::DATAGRAM`], every one of them begins the timeout anew.
//!
//! Full NAT needs a second name for a connection, by which replies are known: [`NatTable`], a table of its own. So has
//! persistence, which outlives connections: [`Clients`].
//!
//! What it refuses: to choose a real server, to displace a connection past its handshake in favour of a new one, and
//! to judge packets. It sees only the client's half of a conversation and keeps no window,
//! so a forged ACK counts as one. Forgers can fill the table, and then new connections stay on the director; they
//! cannot empty it.

mod buckets;
mod clients;
mod config;
mod expiry;
mod hash;
mod key;
mod nat;
mod real_servers;
mod slab;
pub mod sync;
mod table;
mod tcp_state;

pub use clients::{CLIENTS_MAX, Clients, Stay};
pub use config::{CAPACITY_MAX, Config, TIMEOUT_MAX, TIMEOUT_MIN, Timeouts};
pub use nat::{MAPPINGS_MAX, NatTable, PROBES_MAX, QUARANTINE};
pub use table::{EntryView, Observation, Page, Silence, Table, TableFull};
pub use tcp_state::{Segment, TcpState};
