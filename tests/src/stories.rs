//! What becomes of connections to addresses that several nodes may own, told for any number of them: some hundred beside
//! other scenarios, or as many as possible alone.

mod death;
mod drain;
mod stops;

pub use death::director_dies;
pub use drain::{slots_of, two_directors_drain, wait_for_slots};
pub use stops::owner_stops_and_is_killed;
