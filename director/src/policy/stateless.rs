//! Hash of the client's port: no table, no load, the same answer for every packet of a connection.

use super::Policy;
use dpr_model::{Candidate, FlowKey};
use fastrand::Rng;

/// The original stateless DPR (Bestavros et al. 1998, section 3).
#[derive(Debug)]
pub(super) struct Stateless;

/// Fibonacci hashing (Knuth, TAOCP vol. 3, section 6.4): 2^64 over the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Policy for Stateless {
    fn choose(&mut self, flow: &FlowKey, candidates: &[Candidate], _rng: &mut Rng) -> Option<usize> {
        let able = candidates.iter().filter(|candidate| candidate.weight.0 > 0).count();
        if able == 0 {
            return None;
        }
        let hash = u64::from(flow.client.port).wrapping_mul(MULTIPLIER) >> 32;
        let nth = (hash % able as u64) as usize;
        candidates.iter().enumerate().filter(|(_, c)| c.weight.0 > 0).nth(nth).map(|(position, _)| position)
    }
}
