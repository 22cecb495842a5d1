//! The default: trust the reports, and what was sent since.

use super::{Policy, lowest_by};
use dpr_model::{Candidate, FlowKey};
use fastrand::Rng;

/// Up to this many candidates all are compared; among more, two random ones (Mitzenmacher 2001: "The power of two
/// choices"), which costs the same for any number of nodes.
///
/// With every further director that takes the same node for the lightest, comparing all herds more: a director knows
/// what it sent itself, and not what the others are sending. From about five nodes on, two random ones are better
/// (`docs/policies.md`).
const COMPARE_ALL_MAX: usize = 4;

/// Score = (reported load + sent − acknowledged) / weight, lowest wins.
#[derive(Debug)]
pub(super) struct LocalEstimates;

impl Policy for LocalEstimates {
    fn choose(&mut self, _flow: &FlowKey, candidates: &[Candidate], rng: &mut Rng) -> Option<usize> {
        if candidates.len() <= COMPARE_ALL_MAX {
            return lowest_by(candidates, rng, Candidate::score);
        }
        let one = rng.usize(..candidates.len());
        let other = (one + rng.usize(1..candidates.len())) % candidates.len();
        let lighter = if candidates[other].score() < candidates[one].score() { other } else { one };
        if candidates[lighter].weight.0 > 0 {
            return Some(lighter);
        }
        // Both were nodes without weight.
        lowest_by(candidates, rng, Candidate::score)
    }
}
