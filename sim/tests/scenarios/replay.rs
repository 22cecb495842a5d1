//! A seed repeats its run exactly.

use dpr_model::LoadPermille;
use dpr_sim::{A, B, Fault, Quality, Sim, Workload};
use std::time::Duration;

fn eventful(seed: u64) -> Sim {
    let mut cluster = Sim::seeded(seed).maxload(LoadPermille(100)).nodes(5);
    let bad = Quality {
        loss_permille: 50,
        jitter: Duration::from_millis(2),
        duplicate_permille: 30,
        reorder_permille: 30,
        straggle_max: Duration::from_millis(50),
        ..Quality::default()
    };
    cluster.set_inside(bad);
    cluster.set_outside(bad);
    cluster.set_workload(Some(Workload::default()));
    cluster.inject_in(Duration::from_secs(1), Fault::KillNode(B));
    cluster.inject_in(Duration::from_secs(3), Fault::StartNode(B));
    cluster.inject_in(Duration::from_secs(2), Fault::Pause(A));
    cluster.inject_in(Duration::from_millis(2700), Fault::Resume(A));
    cluster.run_for(Duration::from_secs(6));
    cluster
}

#[test]
fn two_runs_of_one_seed_have_identical_logs() {
    let (one, other) = (eventful(42), eventful(42));

    assert!(one.log().entries().eq(other.log().entries()));
    assert_eq!(one.log().recorded(), other.log().recorded());
    assert_eq!(one.log().fingerprint(), other.log().fingerprint());
    assert!(one.log().recorded() > 10_000, "{} things happened", one.log().recorded());
}

#[test]
fn another_seed_is_another_run() {
    assert_ne!(eventful(42).log().fingerprint(), eventful(43).log().fingerprint());
}
