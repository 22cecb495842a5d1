//! Lottery by 1/load: never herds, never balances exactly.

use super::Policy;
use dpr_model::{Candidate, FlowKey};
use fastrand::Rng;

/// Each candidate holds tickets in proportion to weight / (reported load + 1).
#[derive(Debug)]
pub(super) struct Inverse;

/// Tickets are whole numbers: enough of them that a load of 65,535 permille at weight 1 still holds some.
const TICKETS_PER_WEIGHT: u64 = 1 << 20;

fn tickets(candidate: &Candidate) -> u64 {
    u64::from(candidate.weight.0) * TICKETS_PER_WEIGHT / (u64::from(candidate.load.0) + 1)
}

impl Policy for Inverse {
    fn choose(&mut self, _flow: &FlowKey, candidates: &[Candidate], rng: &mut Rng) -> Option<usize> {
        let total: u64 = candidates.iter().map(tickets).sum();
        if total == 0 {
            return None;
        }
        let mut drawn = rng.u64(..total);
        candidates.iter().position(|candidate| {
            let held = tickets(candidate);
            let wins = drawn < held;
            drawn = drawn.saturating_sub(held);
            wins
        })
    }
}
