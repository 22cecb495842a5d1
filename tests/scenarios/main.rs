//! What `dpr` promises, one file for each promise, kept by real daemons in network namespaces.
//!
//! Runs as root and as an ordinary user whose system allows user namespaces; elsewhere everything fails with the reason.
//! `DPR_LONG=1` makes those longer that gain from it; `DPR_BINARY` names a binary to test instead of building one;
//! `DPR_SECOND_TRIES=2` lets two of them fail once, on machines that others use too.

#![expect(clippy::unwrap_used, reason = "clippy does not see that a test without harness is a test")]

mod agreement;
mod benchmark;
mod bulk;
mod closings;
mod control;
mod daemon_kill;
mod datagrams;
mod dns;
mod everyone;
mod forged;
mod further_ports;
mod hop_budget;
mod host_restored;
mod hot_director;
mod inherited;
mod late_plane;
mod maxload;
mod methods;
mod narrow_path;
mod new_interface;
mod node_kill;
mod other_plane;
mod own_addresses;
mod same_ports;
mod shared;
mod source_filters;
mod swinging_loads;
mod takeover;
mod vlans;
mod without_dpr;
mod witness;

use dpr_lab::{IpVersion, Plane};
use dpr_tests::ingress::Ingress;
use dpr_tests::size::Size;
use dpr_tests::stage::is_long;
use dpr_tests::stories;
use dpr_tests::variant::{Variant, may_load_programs};
use dpr_tests::{run, trial, trial_alone, trial_alone_in, trial_in};
use libtest_mimic::Trial;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = vec![
        trial("below_maxload_nothing_is_forwarded", maxload::below),
        trial_alone("above_maxload_new_connections_go_to_lighter_nodes", maxload::above),
        trial(
            "clients_see_only_the_address_they_connected_to_and_replies_go_straight_back",
            maxload::replies,
        ),
        trial("forged_gossip_is_counted_and_ignored", forged::gossip),
        trial("forged_tunnel_packets_are_counted_and_ignored", forged::tunnels),
        trial("frames_that_find_the_queue_full_are_counted", forged::beyond_the_queue),
        trial("sigterm_leaves_the_host_as_it_was", host_restored::after_sigterm),
        trial("sigint_leaves_the_host_as_it_was", host_restored::after_sigint),
        trial("dns_names_healthy_nodes_in_turn_and_no_dead_or_draining_ones", dns::follows_the_cluster),
        trial("dns_names_nodes_by_ipv6_addresses_as_well", dns::follows_the_cluster_in_ipv6),
        trial("dns_answers_that_name_a_hot_node_are_short_lived", dns::hot_nodes),
        trial("a_flood_of_dns_queries_is_answered_in_part_and_clients_by_tcp_are_answered", dns::flood),
        trial("an_excluded_address_is_named_by_no_node_even_after_all_have_restarted", dns::exclusion),
        trial("clients_that_resolve_lose_no_request_begun_after_a_node_died", dns::node_dies),
        trial_alone("the_benchmark_gets_packets_through_by_every_way", benchmark::userspace),
        trial_alone("the_benchmark_of_http_gets_answers_by_every_way", benchmark::http),
        trial("stop_ends_a_daemon_or_removes_what_a_killed_one_left", host_restored::by_dpr_stop),
        trial("a_start_after_sigkill_cleans_up_what_was_left", host_restored::after_sigkill),
    ];
    trials.extend([
        trial("a_server_without_dpr_is_used_while_it_answers_by_full_nat", without_dpr::full_over_ipv4),
        trial("a_server_without_dpr_is_used_over_ipv6_too", without_dpr::full_over_ipv6),
        trial("by_half_nat_a_server_without_dpr_sees_its_clients", without_dpr::half_over_ipv4),
        trial("by_half_nat_a_server_without_dpr_sees_its_ipv6_clients", without_dpr::half_over_ipv6),
    ]);
    trials.extend([
        trial(
            "connections_translated_to_a_server_without_dpr_outlive_their_director",
            inherited::by_a_server_without_dpr,
        ),
        trial(
            "connections_translated_to_a_server_without_dpr_outlive_their_director_in_ipv6",
            inherited::by_a_server_without_dpr_in_ipv6,
        ),
        trial("connections_translated_to_nodes_outlive_their_director", inherited::by_nodes),
        trial("connections_translated_to_nodes_outlive_their_director_in_ipv6", inherited::by_nodes_in_ipv6),
    ]);
    trials.extend([
        trial(
            "nodes_agree_on_owners_after_a_death_a_return_and_a_departure",
            agreement::follows_deaths_and_departures,
        ),
        trial(
            "only_the_side_with_a_quorum_may_act_and_one_map_is_left_after_healing",
            agreement::survives_a_partition,
        ),
        trial("what_was_agreed_outlives_all_daemons", agreement::outlives_all_daemons),
        trial(
            "a_node_drained_from_another_takes_nothing_new_until_undrained",
            control::drained_from_elsewhere,
        ),
        trial("of_two_nodes_the_one_with_the_witness_goes_on_and_never_both", witness::tips_the_scales),
        trial("a_dead_node_is_forgotten_by_all_at_one_order", control::forgotten_by_all),
        trial("where_addresses_are_given_back_by_hand_a_returning_node_waits", takeover::given_back_by_hand),
    ]);
    trials.extend(with_programs());
    trials.extend(ends());
    trials.extend(in_variants());
    trials.extend(by_ingress());
    run(|| Ok(()), trials)
}

/// What only programs of the kernel promise; none where this user may not load some.
fn with_programs() -> Vec<Trial> {
    if !may_load_programs() {
        return Vec::new();
    }
    let by_programs = Variant { plane: Plane::Xdp, ..Variant::ORDINARY };
    vec![
        trial_alone(
            "the_benchmark_of_the_programs_measures_every_case_and_leaves_nothing",
            benchmark::programs,
        ),
        trial_in(
            Variant::IN_THE_DRIVER,
            "another_program_on_the_interface_is_left_alone",
            other_plane::foreign_program,
        ),
        trial_in(by_programs, "clients_that_stay_outlive_killed_daemons", daemon_kill::clients_stay),
        trial_in(
            by_programs,
            "connections_go_on_when_their_clients_begin_to_stay",
            daemon_kill::clients_begin_to_stay,
        ),
        trial_in(
            by_programs,
            "connections_go_on_when_their_clients_stay_no_longer",
            daemon_kill::clients_stay_no_longer,
        ),
        trial_alone_in(
            by_programs,
            "five_hundred_connections_a_second_and_a_thousand_open_ones_outlive_killed_daemons",
            daemon_kill::many_notice_nothing,
        ),
        trial_alone_in(
            by_programs,
            "five_hundred_connections_a_second_and_a_thousand_open_ones_outlive_upgrades",
            daemon_kill::many_notice_no_upgrade,
        ),
    ]
}

/// What directors know of connections that only their real servers see end; addresses that others may take over are another
/// matter, as two tables know of them.
fn ends() -> Vec<Trial> {
    let of_homes = |variant: &Variant| variant.ingress == Some(Ingress::Homes);
    let variants = || {
        let by_method = Variant::possible().filter(|variant| !variant.hides_clients());
        let by_method = by_method.filter(|variant| is_long() || variant.is_ordinary());
        let owned = Variant::possible_by_ingress().filter(of_homes);
        by_method.chain(owned.filter(|variant| is_long() || variant.service == IpVersion::V6))
    };
    let all = |name, scenario: fn(Variant)| {
        variants().map(move |variant| trial_alone_in(variant, name, scenario)).collect::<Vec<_>>()
    };
    let mut trials = all("directors_know_a_second_later_what_has_ended_however_it_did", closings::are_known);
    trials.extend(all("an_idle_connection_is_remembered_while_its_server_has_it", closings::only_idle));
    trials
}

/// A scenario that is the same in every variant, or in some of them.
struct Matrix {
    name: &'static str,
    scenario: fn(Variant),
    /// Variants that it means something in.
    wanted: fn(&Variant) -> bool,
    /// Also without `DPR_LONG=1`: it takes seconds.
    always: bool,
}

/// What is promised of every forwarding method in every IP version; ordinarily most of it only in the default ones.
fn in_variants() -> Vec<Trial> {
    let mut trials = Vec::new();
    for Matrix { name, scenario, wanted, always } in matrix().into_iter().chain(sizes()).chain(by_programs())
    {
        let wanted = |variant: &Variant| (always || is_long() || variant.is_ordinary()) && wanted(variant);
        trials.extend(Variant::possible().filter(wanted).map(|variant| trial_in(variant, name, scenario)));
    }
    trials
}

fn all(name: &'static str, scenario: fn(Variant)) -> Matrix {
    Matrix { name, scenario, wanted: |_| true, always: false }
}

/// What the kernel's programs promise beyond that, and what they do alike.
fn by_programs() -> Vec<Matrix> {
    vec![
        Matrix {
            wanted: |variant| variant.is_ordinary(),
            ..all("every_node_directs_and_serves_at_once_without_a_failed_request", everyone::under_load)
        },
        Matrix {
            // Nothing is translated between versions.
            wanted: |variant| variant.nodes == variant.service,
            ..all("a_new_interface_of_the_director_has_its_connections", new_interface::on_the_director)
        },
        Matrix {
            wanted: |variant| variant.plane.has_programs(),
            ..all("a_daemon_that_is_killed_and_started_again_breaks_nothing", daemon_kill::nobody_notices)
        },
        Matrix {
            wanted: |variant| variant.plane.has_programs(),
            ..all("a_daemon_with_other_maps_takes_connections_over", daemon_kill::with_other_maps)
        },
        Matrix {
            // Nothing is translated between versions.
            wanted: |variant| variant.plane.has_programs() && variant.nodes == variant.service,
            ..all("connections_go_on_in_user_space_when_programs_have_to_leave", other_plane::programs_leave)
        },
        Matrix {
            wanted: |variant| variant.plane.has_programs() && variant.is_ordinary(),
            ..all("a_daemon_that_ends_takes_its_programs_along", daemon_kill::no_traces)
        },
    ]
}

/// What is promised of addresses that several nodes may own, however packets come in.
struct Owned {
    name: &'static str,
    scenario: fn(Variant),
    /// Kinds of address that it means something for.
    kinds: &'static [Ingress],
    /// Of [`Variant::possible_by_ingress`]: each kind over IPv4, over IPv6, or both.
    versions: &'static [IpVersion],
    /// Kinds by which it is run without `DPR_LONG=1` too.
    always: &'static [Ingress],
}

impl Owned {
    fn is_wanted(&self, variant: &Variant) -> bool {
        let of = |kinds: &[Ingress]| variant.ingress.is_some_and(|ingress| kinds.contains(&ingress));
        of(self.kinds) && self.versions.contains(&variant.service) && (is_long() || of(self.always))
    }
}

const V4: &[IpVersion] = &[IpVersion::V4];
const V6: &[IpVersion] = &[IpVersion::V6];
const BOTH: &[IpVersion] = &[IpVersion::V4, IpVersion::V6];
const SHARED: &[Ingress] = &[Ingress::ArpOwner, Ingress::GroupMac, Ingress::OrdinaryMac, Ingress::Routed];

fn by_ingress() -> Vec<Trial> {
    let mut trials = Vec::new();
    for owned in owned().into_iter().chain(owned_by_some()) {
        let wanted = Variant::possible_by_ingress().filter(|variant| owned.is_wanted(variant));
        trials.extend(wanted.map(|variant| trial_in(variant, owned.name, owned.scenario)));
    }
    trials
}

fn owned() -> Vec<Owned> {
    vec![
        by_all(
            "connections_outlive_their_director",
            |variant| stories::director_dies(variant, Size::SOME),
            BOTH,
            &[Ingress::ArpOwner],
        ),
        by_all(
            "the_death_of_a_node_that_directs_and_serves_ends_what_it_served_only",
            shared::owners_die,
            V6,
            &[Ingress::GroupMac],
        ),
        by_all(
            "an_owner_that_stops_or_is_killed_breaks_nothing_and_is_never_one_of_two",
            |variant| stories::owner_stops_and_is_killed(variant, Size::SOME),
            V4,
            &[Ingress::OrdinaryMac],
        ),
        by_all(
            "no_connection_fails_when_nodes_leave_and_join",
            shared::members_change,
            V6,
            &[Ingress::Homes],
        ),
        by_all(
            "two_nodes_drained_at_once_break_nothing_and_come_back",
            control::two_drain_at_once,
            V4,
            &[Ingress::Routed],
        ),
        by_all(
            "a_node_that_clients_do_not_reach_gives_up_what_it_owns",
            witness::unreached_by_clients,
            V4,
            &[Ingress::ArpOwner],
        ),
        by_all(
            "connections_to_further_ports_outlive_their_director",
            further_ports::outlive_their_director,
            V4,
            &[Ingress::ArpOwner],
        ),
        by_all("every_node_explains_a_connection_alike", shared::explained_alike, V6, &[Ingress::Homes]),
        by_all(
            "clients_stay_with_their_node_when_their_director_is_killed_or_dies",
            inherited::clients,
            V4,
            &[Ingress::Homes, Ingress::ArpOwner, Ingress::GroupMac],
        ),
    ]
}

/// Of these, what means something for some kinds only.
fn owned_by_some() -> Vec<Owned> {
    vec![
        Owned {
            kinds: &[Ingress::GroupMac, Ingress::OrdinaryMac],
            ..by_all(
                "a_node_that_comes_late_leaves_alone_what_the_owner_before_has_handled",
                late_plane::leaves_what_others_have_handled,
                V4,
                &[Ingress::GroupMac],
            )
        },
        Owned {
            kinds: SHARED,
            ..by_all(
                "a_shared_address_moves_to_one_node_and_back_and_nothing_breaks",
                takeover::of_a_shared_address,
                V4,
                &[Ingress::ArpOwner],
            )
        },
        Owned {
            kinds: &[Ingress::Homes],
            ..by_all(
                "an_address_moves_at_an_operators_word_and_back_and_nothing_breaks",
                takeover::of_a_home_address,
                BOTH,
                &[],
            )
        },
        Owned {
            kinds: &[Ingress::ArpOwner, Ingress::GroupMac],
            ..by_all(
                "a_hot_director_gets_fewer_slots_and_nothing_breaks",
                hot_director::gets_fewer_slots,
                V4,
                &[Ingress::GroupMac],
            )
        },
    ]
}

fn by_all(
    name: &'static str,
    scenario: fn(Variant),
    versions: &'static [IpVersion],
    always: &'static [Ingress],
) -> Owned {
    Owned { name, scenario, kinds: &Ingress::ALL, versions, always }
}

fn matrix() -> Vec<Matrix> {
    let of_one_version =
        |name, scenario| Matrix { wanted: |variant| variant.nodes == variant.service, ..all(name, scenario) };
    vec![
        Matrix {
            always: true,
            ..all("connections_are_forwarded_and_clients_notice_nothing", methods::forwards)
        },
        Matrix {
            wanted: |variant| !variant.hides_clients(),
            ..all("connections_to_further_ports_go_as_those_to_the_service", further_ports::forwarded)
        },
        Matrix {
            // Fragments as large as the link would have to be cut for a tunnel, and the kernel's programs do not cut.
            wanted: |variant| variant.plane == Plane::Userspace || !variant.tunnels(),
            ..all("datagrams_of_a_flow_go_to_one_server_also_in_fragments", datagrams::forwarded)
        },
        Matrix {
            wanted: |variant| variant.method == "ipip" && variant.nodes == variant.service,
            ..all("fragments_for_other_programs_at_a_service_address_arrive", datagrams::for_others)
        },
        Matrix {
            // Programs of the kernel put the clients into their VLANs.
            wanted: |variant| {
                variant.plane == Plane::Userspace && variant.nodes == variant.service && may_load_programs()
            },
            ..all("clients_in_vlans_are_served_and_answered_under_their_tags", vlans::one_tag_or_two)
        },
        of_one_version("a_network_that_drops_direct_replies_is_noticed", source_filters::is_noticed),
        of_one_version(
            "the_same_client_port_works_directly_and_through_another_director_at_once",
            same_ports::both,
        ),
        of_one_version(
            "a_thousand_open_connections_keep_their_real_server_while_loads_swing",
            swinging_loads::thousand,
        ),
        of_one_version("the_death_of_a_real_server_ends_its_connections_only", node_kill::death_and_return),
        Matrix {
            wanted: |variant| variant.tunnels() && variant.nodes == variant.service,
            ..all("a_dead_nodes_address_is_taken_over_and_given_back", shared::home_address_is_taken_over)
        },
        of_one_version("an_address_that_no_host_holds_is_answered_for", own_addresses::answered_for),
        Matrix {
            wanted: |variant| variant.method != "nat",
            ..all(
                "with_alias_delivery_servers_see_the_address_that_clients_asked_for",
                own_addresses::held_as_aliases,
            )
        },
        Matrix {
            wanted: |variant| variant.tunnels() && variant.nodes == variant.service,
            ..all("no_packet_passes_its_hop_budget_whatever_nodes_report", hop_budget::wrong_reports)
        },
    ]
}

/// Much data, and paths that do not take large packets.
fn sizes() -> Vec<Matrix> {
    vec![
        all("ten_mebibytes_each_way_pass_a_forwarding_director_unchanged", bulk::through_a_director),
        all(
            "a_narrow_link_behind_the_client_is_found_and_everything_arrives",
            narrow_path::behind_the_client,
        ),
        Matrix {
            wanted: |variant| variant.tunnels() && variant.nodes == variant.service,
            ..all("what_a_switch_between_nodes_swallows_is_not_sent", narrow_path::between_nodes)
        },
        Matrix {
            wanted: |variant| variant.tunnels() && variant.nodes == variant.service,
            ..all("ten_mebibytes_pass_with_large_frames_between_nodes", bulk::with_large_frames_between_nodes)
        },
        Matrix {
            wanted: |variant| {
                variant.tunnels() && (variant.nodes, variant.service) == (IpVersion::V6, IpVersion::V6)
            },
            always: true,
            ..all("ten_mebibytes_pass_at_the_least_mtu_of_ipv6", bulk::at_the_least_mtu_of_ipv6)
        },
    ]
}
