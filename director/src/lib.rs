//! The packet path's decisions.
//!
//! [`Director`] is the definition of correct behaviour for every data plane: it is shown a parsed frame and says
//! what has to happen to it. It joins the connection-forwarding table with what gossip knows about peers; the two
//! meet in `&[Candidate]` and nowhere else. It refuses to touch bytes (that is `rewrite`), to do I/O, and to ask
//! for the time.

mod asked;
mod candidates;
mod carried;
mod closings;
mod copies;
mod counters;
mod decide;
mod deliveries;
mod director;
mod external;
mod forwarded;
mod fragments;
mod handing;
mod handshakes;
mod lease;
mod outstanding;
mod ownership;
mod peers;
mod persistence;
mod pipeline;
pub mod policy;
mod received;
mod replicas;
mod replies;
mod sending;
mod straight;
mod streams;
mod subject;
mod tenancy;
mod too_big;
mod translation;
mod view;
mod words;

pub use carried::{CarriedFlow, Onward, Translator};
pub use closings::Settled;
pub use copies::{SyncMessage, SyncStatus};
pub use deliveries::{Deliveries, DeliveryRange, DeliveryRangeError, DeliveryRanges};
pub use director::{Arrival, DeliveryAddress, Director, LocalSockets, Settings};
pub use dpr_model::Peer;
pub use dpr_ownership::agreement::Duty;
pub use external::ExternalServer;
pub use lease::{LEASE_MAX, Lease};
pub use ownership::{Home, OwnershipMap, Service, SlotOwner, Tenure};
pub use peers::{SentTo, ThisNode, Update};
pub use persistence::{PersistenceSettings, PersistentService};
pub use policy::PolicyKind;
pub use view::{FurtherView, HomeView, PeerView, ServiceView, SlotView, SlotsView, View};
