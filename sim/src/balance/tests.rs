use super::*;

fn short(method: Method) -> Experiment {
    Experiment {
        method,
        warm_up: Duration::from_secs(2),
        duration: Duration::from_secs(8),
        ..Experiment::default()
    }
}

fn policy(kind: PolicyKind) -> Figures {
    short(Method::Policy(kind)).run()
}

#[test]
fn an_experiment_repeats_exactly() {
    assert_eq!(policy(PolicyKind::LocalEstimates), policy(PolicyKind::LocalEstimates));
}

#[test]
fn every_policy_is_better_than_a_skewed_dns_and_worse_than_knowing_everything() {
    let dns = short(Method::RrDns).run();
    let wlc = short(Method::Wlc).run();
    for kind in PolicyKind::ALL {
        let figures = policy(kind);
        assert!(figures.p99 < dns.p99, "{kind:?}: {figures:?}");
        assert!(figures.p99 >= wlc.p99, "{kind:?}: {figures:?}");
        assert!(figures.jain > dns.jain, "{kind:?}: {figures:?}");
    }
    assert_eq!(dns.forwarded, 0.0);
}

#[test]
fn lightest_herds_when_reports_are_rare_and_local_estimates_do_not() {
    let rare = |kind| {
        let interval = Duration::from_secs(1);
        Experiment { interval, ..short(Method::Policy(kind)) }.run()
    };

    let (lightest, estimates) = (rare(PolicyKind::Lightest), rare(PolicyKind::LocalEstimates));

    assert!(lightest.max_over_mean > 1.5 * estimates.max_over_mean, "{lightest:?} {estimates:?}");
}

#[test]
fn a_lone_node_is_as_fast_as_queueing_theory_says() {
    // M/M/1 with processor sharing: mean time = mean work / (1 - load).
    let lone = Experiment {
        capacities: vec![Capacity::new(1)],
        offered_load: 0.5,
        service: ServiceTime::Exponential { mean: Duration::from_millis(1) },
        ..short(Method::RrDns)
    };

    let mean_us = lone.run().mean.as_micros();

    assert!((1850..2150).contains(&mean_us), "{mean_us}");
}

#[test]
fn an_even_dns_and_idle_nodes_forward_nothing() {
    let idle = Experiment { skew: 0.0, offered_load: 0.1, ..short(Method::Policy(PolicyKind::default())) };

    assert_eq!(idle.run().forwarded, 0.0);
}

fn resolved(resolvers: Resolvers, skew: f64) -> Figures {
    Experiment { resolvers: Some(resolvers), skew, ..short(Method::RrDns) }.run()
}

#[test]
fn round_robin_dns_without_caches_is_even_and_caches_undo_it() {
    let resolvers =
        |ttl_s| Resolvers { count: 50, ttl: Duration::from_secs(ttl_s), ttl_hot: Duration::from_secs(ttl_s) };

    let (none, short, long) =
        (resolved(resolvers(0), 1.0), resolved(resolvers(1), 1.0), resolved(resolvers(60), 1.0));

    assert!(none.jain > 0.95, "{none:?}");
    assert!(short.jain < none.jain && long.jain < short.jain, "{none:?} {short:?} {long:?}");
}

#[test]
fn forwarding_makes_up_for_what_caches_do() {
    let resolvers = Resolvers { count: 50, ttl: Duration::from_secs(60), ttl_hot: Duration::from_secs(60) };
    let forwarding =
        Experiment { resolvers: Some(resolvers), ..short(Method::Policy(PolicyKind::default())) };

    let (forwarding, alone) = (forwarding.run(), resolved(resolvers, 1.0));

    assert!(forwarding.p99 * 2 < alone.p99, "{forwarding:?} {alone:?}");
}
