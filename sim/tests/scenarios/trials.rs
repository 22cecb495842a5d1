//! A few random trials; `cargo xtask sim` runs more.

use dpr_sim::Trial;

#[test]
fn random_trials_keep_every_promise() {
    for seed in 0..20 {
        let trial = Trial::of(seed, &(2..=8));
        if let Err(violation) = trial.run() {
            panic!("{violation}");
        }
    }
}

/// Two owners have chosen differently, and one of them before its choice could be known: seeds by number of nodes.
#[test]
fn the_first_choice_after_a_dispute_says_with_whom_a_client_stays() {
    for (seed, nodes) in [(344, 4), (452, 5)] {
        if let Err(violation) = (Trial { seed, nodes }).run() {
            panic!("{violation}");
        }
    }
}

#[test]
fn a_trial_repeats_exactly() {
    let trial = Trial { seed: 5, nodes: 4 };

    assert_eq!(trial.run().unwrap(), trial.run().unwrap());
}

#[test]
fn small_clusters_are_tried_most() {
    let nodes: Vec<u32> = (0..1000).map(|seed| Trial::of(seed, &(2..=64)).nodes).collect();

    assert!(nodes.iter().all(|nodes| (2..=64).contains(nodes)));
    let small = nodes.iter().filter(|nodes| **nodes < 12).count();
    assert!((420..580).contains(&small), "{small}");
}
