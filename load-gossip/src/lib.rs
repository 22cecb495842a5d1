//! Load gossip: nodes tell each other several times a second how loaded they are, and silence means suspicion.
//!
//! [`Gossip`] is a state machine in the manner of `quinn-proto`: datagrams and time go in, datagrams to
//! send and changes of membership come out, and the shell (crate `node`, or a simulator) owns sockets and
//! clock. What directors need of it is [`Gossip::candidates`].
//!
//! This crate refuses to know sockets, files, threads and the system clock; to choose among candidates
//! (crate `director` does); and to decide that a node is dead where ownership is at stake, for which one
//! node's suspicion is not enough.
//!
//! # Trust
//!
//! With a [`Keyring`] every datagram is authenticated and replays within one life of this node are
//! refused. What remains: a node that has just started knows nobody's newest incarnation, so an attacker
//! on the cluster network who recorded a *dead* node's datagrams can replay them to it, in order, and make
//! that node look alive. Without a keyring anybody on the cluster network can say anything.
//!
//! # Example
//!
//! ```
//! use dpr_load_gossip::{Action, Config, Gossip};
//! use dpr_model::{Incarnation, NodeId, Timestamp};
//! use std::time::Duration;
//!
//! let config = Config::new(NodeId(1), Incarnation(1)).with_interval(Duration::from_millis(50))?;
//! let mut gossip = Gossip::new(config, Timestamp::default());
//! let stranger = "192.0.2.7:7946".parse()?;
//! assert!(gossip.handle_datagram(stranger, b"not gossip", Timestamp::from_millis(3)).is_err());
//! assert_eq!(gossip.counters().rejected["too-short"], 1);
//! while let Some(action) = gossip.poll_action() {
//!     match action {
//!         Action::Send { to, bytes } => println!("{} bytes to {to:?}", bytes.len()),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod acknowledgements;
mod auth;
mod cargo;
mod config;
mod error;
mod exclusions;
mod gossip;
mod jitter;
mod load_index;
mod membership;
pub mod message;
mod paths;
mod replay;
mod slow_start;
mod suspicion;
mod table;
mod tombstones;

pub use auth::{Key, KeyFileError, KeyId, Keyring};
pub use cargo::{Cargo, CargoError};
pub use config::{Config, ConfigError, INTERVAL_MAX, INTERVAL_MIN, SLOW_START_MAX};
pub use error::DatagramError;
pub use exclusions::{EXCLUSIONS_MAX, TooManyExclusions};
pub use gossip::{Action, Destination, Gossip};
pub use load_index::{MetricWeights, load_index};
pub use membership::DownReason;
pub use message::{ReportError, Via};
pub use table::{PEERS_MAX, PeerView};
