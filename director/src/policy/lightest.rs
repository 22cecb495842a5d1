//! Lowest reported load: simple, and wrong between reports.

use super::{Policy, lowest_by};
use dpr_model::{Candidate, FlowKey};
use fastrand::Rng;

/// Reported load per weight, lowest wins; what was sent since the report is not considered.
#[derive(Debug)]
pub(super) struct Lightest;

impl Policy for Lightest {
    fn choose(&mut self, _flow: &FlowKey, candidates: &[Candidate], rng: &mut Rng) -> Option<usize> {
        lowest_by(candidates, rng, |candidate| Candidate { outstanding: 0, ..*candidate }.score())
    }
}
