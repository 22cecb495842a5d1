//! Ownership: which node decides for which part of a service address's connections.
//!
//! The connection space of every service address is divided into slots ([`partition`]); an [`OwnershipMap`] gives
//! each slot an owner, two backups and the owner before. The next map is a pure function of the last one, the members
//! and their shares ([`MapDraft`]), and moves no more slots than it must. `docs/ownership.md` explains it in one
//! picture.
//!
//! This crate refuses to know sockets, files, threads and the system clock, packets (crate `director` asks it about
//! flows), and load: it is told shares.

pub mod agreement;
mod encoding;
mod hash;
mod held;
mod map;
pub mod partition;
mod plan;
pub mod shares;

pub use agreement::Agreement;
pub use encoding::{MAP_BYTES_MAX, MapError, MapHash};
pub use held::Wish;
pub use map::{
    ADDRESSES_MAX, MEMBERS_MAX, MapDraft, Member, OwnershipMap, Right, ServiceAddress, VOTERS_MAX, Voters,
};
pub use partition::SlotCount;
pub use shares::Share;
