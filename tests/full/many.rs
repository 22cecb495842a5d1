//! As many open connections as possible to addresses that several nodes may own, while directors die and return, stop, leave,
//! and are parted.
//!
//! What the machine is asked to do is measured and printed; bounds leave room for a machine that others use too.

mod churn;
mod members;
mod partition;
mod restarts;

use dpr_tests::ingress::Ingress;
use dpr_tests::size::Size;
use dpr_tests::stories;
use dpr_tests::trial_alone_in;
use dpr_tests::variant::Variant;
use libtest_mimic::Trial;

/// What a busy machine may add.
const SLACK: std::time::Duration = std::time::Duration::from_millis(1500);

/// A scenario and the kinds of address that it is run with, over IPv4, by either data plane.
struct Crowded {
    name: &'static str,
    scenario: fn(Variant),
    kinds: &'static [Ingress],
}

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for Crowded { name, scenario, kinds } in crowded() {
        let ipv4 = Variant::possible_by_ingress().filter(|variant| variant.service == dpr_lab::IpVersion::V4);
        let wanted = ipv4.filter(|variant| variant.ingress.is_some_and(|ingress| kinds.contains(&ingress)));
        trials.extend(wanted.map(|variant| trial_alone_in(variant, name, scenario)));
    }
    trials
}

fn crowded() -> Vec<Crowded> {
    let all = &Ingress::ALL;
    vec![
        Crowded {
            name: "as_many_connections_as_possible_outlive_their_director",
            scenario: |variant| stories::director_dies(variant, size_for(variant)),
            kinds: all,
        },
        Crowded {
            name: "ten_thousand_connections_outlive_an_owner_that_dies_five_times",
            scenario: members::director_dies_five_times,
            kinds: &[Ingress::ArpOwner],
        },
        Crowded {
            name: "of_thousands_of_connections_none_has_two_owners_while_one_stops_and_is_killed",
            scenario: |variant| stories::owner_stops_and_is_killed(variant, Size::THOUSANDS),
            kinds: &[Ingress::GroupMac, Ingress::Homes],
        },
        Crowded {
            name: "ten_thousand_connections_outlive_two_directors_that_drain_at_once",
            scenario: |variant| stories::two_directors_drain(variant, Size::as_many_as_possible()),
            kinds: &[Ingress::ArpOwner, Ingress::OrdinaryMac],
        },
        Crowded {
            name: "ten_thousand_connections_outlive_members_that_come_and_go",
            scenario: members::come_and_go,
            kinds: &[Ingress::ArpOwner, Ingress::Homes],
        },
        Crowded {
            name: "of_a_hundred_thousand_connections_over_twenty_changes_no_packet_has_two_owners",
            scenario: churn::of_members,
            kinds: &[Ingress::GroupMac],
        },
        Crowded {
            name: "no_request_fails_while_every_node_is_upgraded",
            scenario: restarts::rolling,
            kinds: all,
        },
        Crowded {
            name: "a_partition_of_nodes_under_load_has_never_two_owners",
            scenario: partition::under_load,
            kinds: &[Ingress::GroupMac, Ingress::Homes],
        },
    ]
}

/// As many as a machine bears: where all nodes see all packets, each costs as many times as much.
fn size_for(variant: Variant) -> Size {
    match variant.ingress {
        Some(Ingress::GroupMac | Ingress::OrdinaryMac) => Size::THOUSANDS,
        _ => Size::as_many_as_possible(),
    }
}
