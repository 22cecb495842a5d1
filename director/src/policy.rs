//! How a director chooses among candidates.
//!
//! A policy sees candidates and nothing else. Which nodes are candidates, and whether a choice is needed at all,
//! is decided before it is asked.

mod inverse;
mod lightest;
mod local_estimates;
mod round_robin;
mod stateless;

use dpr_model::{Candidate, FlowKey};
use fastrand::Rng;

/// A way to choose a real server for a new connection.
pub trait Policy: core::fmt::Debug + Send {
    /// The position of the chosen candidate; `None` when no candidate may be chosen (all weights are zero).
    fn choose(&mut self, flow: &FlowKey, candidates: &[Candidate], rng: &mut Rng) -> Option<usize>;
}

/// The policies by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// Reported load plus what this director sent and the report does not know yet, per weight.
    #[default]
    LocalEstimates,
    /// Lowest reported load per weight; herds between reports.
    Lightest,
    /// Lottery by weight over reported load.
    Inverse,
    /// One after the other, in proportion to weight.
    RoundRobin,
    /// Hash of the client's port over all live nodes, packet by packet, without a table: the original stateless
    /// DPR. Connections break when a node joins or leaves.
    Stateless,
}

impl PolicyKind {
    /// Every policy.
    pub const ALL: [Self; 5] =
        [Self::LocalEstimates, Self::Lightest, Self::Inverse, Self::RoundRobin, Self::Stateless];

    /// The word for it in configuration and status.
    pub fn label(self) -> &'static str {
        match self {
            Self::LocalEstimates => "local-estimates",
            Self::Lightest => "lightest",
            Self::Inverse => "inverse",
            Self::RoundRobin => "round-robin",
            Self::Stateless => "stateless",
        }
    }

    /// True when every packet is mapped by itself and connections have no entries.
    pub fn is_stateless(self) -> bool {
        matches!(self, Self::Stateless)
    }

    /// A policy of this kind in its initial state.
    pub fn build(self) -> Box<dyn Policy> {
        match self {
            Self::LocalEstimates => Box::new(local_estimates::LocalEstimates),
            Self::Lightest => Box::new(lightest::Lightest),
            Self::Inverse => Box::new(inverse::Inverse),
            Self::RoundRobin => Box::new(round_robin::RoundRobin::default()),
            Self::Stateless => Box::new(stateless::Stateless),
        }
    }
}

/// Position of the candidate with the lowest score, starting the search at a random one so that equals share.
fn lowest_by(candidates: &[Candidate], rng: &mut Rng, score: impl Fn(&Candidate) -> u64) -> Option<usize> {
    if candidates.is_empty() {
        return None;
    }
    let start = rng.usize(..candidates.len());
    let (before, after) = candidates.split_at(start);
    let mut lowest = None;
    let mut lowest_score = u64::MAX;
    for (offset, candidate) in after.iter().chain(before).enumerate() {
        let score = score(candidate);
        if score < lowest_score {
            lowest_score = score;
            lowest = Some((start + offset) % candidates.len());
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::{Capacity, ClientSocket, LoadPermille, NodeId, Protocol, ServiceSocket, Weight};
    use std::net::{IpAddr, Ipv4Addr};

    fn flow(port: u16) -> FlowKey {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address, port },
            service: ServiceSocket { address, port: 80 },
        }
    }

    fn candidate(node: u32, load: u16, weight: u16) -> Candidate {
        Candidate {
            node: NodeId(node),
            address: IpAddr::V4(Ipv4Addr::from(node)),
            load: LoadPermille(load),
            capacity: Capacity::new(100),
            weight: Weight(weight),
            outstanding: 0,
        }
    }

    /// How often each of three candidates is chosen for 3,000 flows, with what was sent taken into account.
    fn shares(kind: PolicyKind, mut candidates: [Candidate; 3]) -> [u32; 3] {
        let mut policy = kind.build();
        let mut rng = Rng::with_seed(7);
        let mut chosen = [0; 3];
        for port in 0..3000 {
            let position = policy.choose(&flow(port), &candidates, &mut rng).unwrap();
            chosen[position] += 1;
            candidates[position].outstanding += 1;
        }
        chosen
    }

    fn assert_near(share: u32, expected: u32) {
        assert!(share.abs_diff(expected) < 150, "{share} is not near {expected}");
    }

    #[test]
    fn no_policy_chooses_a_node_without_weight() {
        for kind in PolicyKind::ALL {
            let mut policy = kind.build();
            let mut rng = Rng::with_seed(1);
            assert_eq!(policy.choose(&flow(1), &[], &mut rng), None, "{kind:?}");
            assert_eq!(policy.choose(&flow(1), &[candidate(1, 0, 0)], &mut rng), None, "{kind:?}");
            for port in 0..100 {
                let two = [candidate(1, 0, 0), candidate(2, 900, 100)];
                assert_eq!(policy.choose(&flow(port), &two, &mut rng), Some(1), "{kind:?}");
            }
        }
    }

    #[test]
    fn local_estimates_do_not_herd() {
        let loads = [candidate(1, 100, 100), candidate(2, 110, 100), candidate(3, 120, 100)];
        for share in shares(PolicyKind::LocalEstimates, loads) {
            assert_near(share, 1000);
        }
        let weights = [candidate(1, 0, 100), candidate(2, 0, 200), candidate(3, 0, 300)];
        let [one, two, three] = shares(PolicyKind::LocalEstimates, weights);
        assert_near(one, 500);
        assert_near(two, 1000);
        assert_near(three, 1500);
    }

    #[test]
    fn local_estimates_choose_well_out_of_very_many() {
        let mut candidates: Vec<_> = (1..=200).map(|node| candidate(node, 500, 100)).collect();
        let mut policy = PolicyKind::LocalEstimates.build();
        let mut rng = Rng::with_seed(3);
        for port in 0..20_000 {
            let position = policy.choose(&flow(port), &candidates, &mut rng).unwrap();
            candidates[position].outstanding += 1;
        }
        // Two random choices leave a gap of log log n (Mitzenmacher 2001), one would leave about 40.
        let most = candidates.iter().map(|candidate| candidate.outstanding).max().unwrap();
        assert!(most <= 105, "{most}");
    }

    #[test]
    fn lightest_herds_to_whoever_looked_lightest() {
        let loads = [candidate(1, 100, 100), candidate(2, 110, 100), candidate(3, 120, 100)];
        assert_eq!(shares(PolicyKind::Lightest, loads), [3000, 0, 0]);
    }

    #[test]
    fn inverse_is_a_lottery_by_one_over_load() {
        let loads = [candidate(1, 99, 100), candidate(2, 199, 100), candidate(3, 399, 100)];
        let [one, two, three] = shares(PolicyKind::Inverse, loads);
        assert_near(one, 1714);
        assert_near(two, 857);
        assert_near(three, 429);
    }

    #[test]
    fn round_robin_goes_around_by_weight() {
        let weights = [candidate(1, 900, 100), candidate(2, 0, 100), candidate(3, 0, 100)];
        assert_eq!(shares(PolicyKind::RoundRobin, weights), [1000, 1000, 1000]);
        let weights = [candidate(1, 0, 100), candidate(2, 0, 200), candidate(3, 0, 300)];
        assert_eq!(shares(PolicyKind::RoundRobin, weights), [500, 1000, 1500]);
    }

    #[test]
    fn stateless_gives_a_port_the_same_node_every_time() {
        let nodes = [candidate(1, 0, 100), candidate(2, 900, 100), candidate(3, 0, 100)];
        let mut policy = PolicyKind::Stateless.build();
        let mut rng = Rng::with_seed(1);
        for port in 0..100 {
            let first = policy.choose(&flow(port), &nodes, &mut rng);
            assert_eq!(policy.choose(&flow(port), &nodes, &mut rng), first);
        }
        for share in shares(PolicyKind::Stateless, nodes) {
            assert_near(share, 1000);
        }
    }
}
