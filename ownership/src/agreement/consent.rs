//! When enough voters agree.

use crate::agreement::config::Quorum;
use crate::map::Voters;
use dpr_model::NodeId;
use std::collections::BTreeSet;

/// What beside the voters' own word decides whether they are enough.
#[derive(Clone, Debug)]
pub(crate) struct Consent<'a> {
    pub(crate) quorum: Quorum,
    pub(crate) voters: &'a Voters,
    /// Declared dead by an operator: their consent is not needed.
    pub(crate) forgotten: &'a BTreeSet<NodeId>,
    /// The witness backs this node's half.
    pub(crate) witness_backs: bool,
}

impl Consent<'_> {
    /// True if the nodes for which `agrees` holds are enough, among the voters of before and of now. `is_silent` tells
    /// whose silence is consent where no quorum is asked for.
    pub(crate) fn is_given(
        &self,
        agrees: impl Fn(NodeId) -> bool,
        is_silent: impl Fn(NodeId) -> bool,
    ) -> bool {
        [&self.voters.before, &self.voters.now].into_iter().all(|group| {
            let counts = |node: &&NodeId| match self.quorum {
                Quorum::None => !is_silent(**node),
                Quorum::Majority | Quorum::Witness => !self.forgotten.contains(*node),
            };
            let (mut all, mut agreeing) = (0, 0);
            for node in group.iter().filter(counts) {
                all += 1;
                agreeing += usize::from(agrees(*node));
            }
            let half = all > 0 && agreeing * 2 == all;
            // Nobody is left to ask.
            let moot = all == 0 && self.quorum == Quorum::None;
            agreeing * 2 > all || moot || half && self.quorum == Quorum::Witness && self.witness_backs
        })
    }
}

/// The voters of the next map: those of before who are members still, then members in order of id, an odd number of
/// them.
///
/// A dead voter is replaced if somebody can take its place. Below three nobody is left out on account of death, as
/// nothing would be won by it: two of two are as many as two of three, and the dead may return. Somebody always is left.
pub(crate) fn next_voters(
    present: &[NodeId],
    members: &[NodeId],
    gone_for_good: impl Fn(NodeId) -> bool,
    voters_max: usize,
) -> Vec<NodeId> {
    let count = members.len().min(voters_max);
    let count = if count > 2 && count.is_multiple_of(2) { count - 1 } else { count };
    let stays = |node: &&NodeId| members.contains(*node);
    let comes = |node: &&NodeId| !present.contains(*node);
    let mut voters: Vec<NodeId> =
        present.iter().filter(stays).chain(members.iter().filter(comes)).copied().take(count).collect();
    let dead = present.iter().filter(|node| !members.contains(*node) && !gone_for_good(**node));
    let missing = present.len().min(3).saturating_sub(voters.len());
    voters.extend(dead.copied().take(missing));
    if voters.is_empty() {
        // No map could ever follow.
        return present.to_vec();
    }
    voters.sort_unstable();
    voters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(numbers: &[u32]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    fn enough(quorum: Quorum, witness_backs: bool, voters: (&[u32], &[u32]), agreeing: &[u32]) -> bool {
        let voters = Voters { before: nodes(voters.0), now: nodes(voters.1) };
        let forgotten = BTreeSet::from([NodeId(9)]);
        let consent = Consent { quorum, voters: &voters, forgotten: &forgotten, witness_backs };
        consent.is_given(|node| agreeing.contains(&node.0), |node| node.0 > 5)
    }

    #[test]
    fn more_than_half_of_both_groups_are_enough() {
        let changing: (&[u32], &[u32]) = (&[1, 2, 3], &[2, 3, 4]);

        assert!(enough(Quorum::Majority, false, changing, &[2, 3]));
        assert!(!enough(Quorum::Majority, false, changing, &[1, 2]));
        assert!(!enough(Quorum::Majority, false, changing, &[1, 4]));
        assert!(!enough(Quorum::Majority, true, (&[1, 2], &[1, 2]), &[1]));
    }

    #[test]
    fn the_witness_makes_a_half_enough_and_not_less() {
        assert!(enough(Quorum::Witness, true, (&[1, 2], &[1, 2]), &[1]));
        assert!(!enough(Quorum::Witness, false, (&[1, 2], &[1, 2]), &[1]));
        assert!(!enough(Quorum::Witness, true, (&[1, 2, 3], &[1, 2, 3]), &[1]));
    }

    #[test]
    fn who_was_forgotten_is_not_asked() {
        assert!(enough(Quorum::Majority, false, (&[1, 9], &[1, 9]), &[1]));
        assert!(!enough(Quorum::Majority, false, (&[9], &[9]), &[]), "somebody has to agree");
    }

    #[test]
    fn where_no_quorum_is_asked_for_silence_is_consent() {
        assert!(enough(Quorum::None, false, (&[1, 6, 7], &[1, 6, 7]), &[1]));
        assert!(!enough(Quorum::None, false, (&[1, 2, 7], &[1, 2, 7]), &[1]));
        assert!(enough(Quorum::None, false, (&[6, 7], &[6, 7]), &[]));
    }

    #[test]
    fn voters_stay_and_are_odd_in_number() {
        let next = |present: &[u32], members: &[u32]| {
            next_voters(&nodes(present), &nodes(members), |node| node.0 == 99, 5)
        };

        assert_eq!(next(&[1], &[1, 2]), nodes(&[1, 2]));
        assert_eq!(next(&[7, 8, 9], &[1, 7, 8, 9]), nodes(&[7, 8, 9]));
        assert_eq!(next(&[7, 8, 9], &[1, 2, 7, 8, 9, 10, 11]), nodes(&[1, 2, 7, 8, 9]));
        assert_eq!(next(&[1, 2, 3], &[1, 3, 4]), nodes(&[1, 3, 4]));
        assert_eq!(next(&[1, 2, 3, 4, 5], &[1, 2, 5]), nodes(&[1, 2, 5]));
        assert_eq!(next(&[1, 2, 3], &[1, 2]), nodes(&[1, 2, 3]), "the dead one may return");
        assert_eq!(next(&[1, 2, 99], &[1, 2]), nodes(&[1, 2]));
        assert_eq!(next(&[99], &[]), nodes(&[99]), "somebody is left");
    }
}
