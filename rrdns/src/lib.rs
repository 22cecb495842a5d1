//! Round-robin DNS in front of the cluster: an authoritative server for one small zone, without sockets and clock.
//!
//! [`Responder`] takes a query's bytes, who sent it and the time, and gives the reply's bytes. What it names follows an
//! [`AddressTable`], which [`Membership`] makes of what nodes report; everything else is in the [`Zone`] and does not
//! change while it runs. Every node has the same of both, so all give the same content.
//!
//! Crate `node` calls it and owns the sockets; `lab` and `dpr check` ask with [`stub`]. The wire format is crate
//! `domain`'s. This crate refuses to recurse, to transfer, sign or delegate zones, and to take updates by DNS.
//!
//! # Example
//!
//! ```
//! use dpr_rrdns::{Client, Now, Responder, Settings, Transport, Zone, ZoneSettings, parse_name, stub};
//! use std::sync::Arc;
//!
//! let apex = parse_name("example.org", None)?;
//! let mut settings = ZoneSettings::new(apex.clone());
//! settings.name_servers.push((parse_name("ns1", Some(&apex))?, vec!["192.0.2.11".parse()?]));
//! settings.records.push("@ 300 IN MX 10 mail.example.net.".to_owned());
//! let mut responder = Responder::new(Arc::new(Zone::new(settings)?), Settings::default(), [7; 16]);
//!
//! let query = stub::question(1, &apex, stub::RecordType::MX);
//! let client = Client { address: "198.51.100.7".parse()?, transport: Transport::Udp };
//! let mut reply = Vec::new();
//! responder.answer(&query, client, Now::default(), &mut reply);
//! assert!(stub::is_reply_to(&reply, &query));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cookies;
mod demand;
mod edns;
mod key;
mod limiter;
mod membership;
mod near;
mod prefix;
mod query;
mod records;
mod reply;
mod responder;
mod rotation;
mod sites;
pub mod stub;
mod table;
mod zone;

pub use key::{Name, NameError, parse_name};
pub use membership::{Absence, Home, Membership};
pub use near::Near;
pub use prefix::{Prefix, PrefixError};
pub use responder::{Client, Now, Outcome, Responder, Settings, Transport};
pub use rotation::Rotation;
pub use table::{AddressTable, ServiceAddress};
pub use zone::{Ttls, Zone, ZoneError, ZoneSettings};

/// UDP payload that the server advertises and never exceeds: what passes nearly every path unfragmented (DNS flag day
/// 2020, draft-ietf-dnsop-avoid-fragmentation).
pub const UDP_PAYLOAD_MAX: u16 = 1232;
