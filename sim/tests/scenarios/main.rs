//! What a cluster promises, on a virtual clock. Every scenario checks all invariants after every event as well.

mod balancing;
mod faults;
mod hop_budget;
mod replay;
mod sharing;
mod trials;
