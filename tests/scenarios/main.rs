//! What `dpr` promises, one file for each promise, kept by real daemons in network namespaces.
//!
//! Runs as root and as an ordinary user whose system allows user namespaces; elsewhere everything fails with the reason.
//! `DPR_LONG=1` makes those longer that gain from it; `DPR_BINARY` names a binary to test instead of building one.

#![expect(clippy::unwrap_used, reason = "clippy does not see that a test without harness is a test")]

mod benchmark;
mod bulk;
mod dns;
mod everyone;
mod forged;
mod hop_budget;
mod host_restored;
mod maxload;
mod methods;
mod node_kill;
mod same_ports;
mod swinging_loads;

use dpr_tests::variant::Variant;
use dpr_tests::{run, trial, trial_in};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = vec![
        trial("below_maxload_nothing_is_forwarded", maxload::below),
        trial("above_maxload_new_connections_go_to_lighter_nodes", maxload::above),
        trial(
            "clients_see_only_the_address_they_connected_to_and_replies_go_straight_back",
            maxload::replies,
        ),
        trial("the_same_client_port_works_directly_and_through_another_director_at_once", same_ports::both),
        trial(
            "a_thousand_open_connections_keep_their_real_server_while_loads_swing",
            swinging_loads::thousand,
        ),
        trial("the_death_of_a_real_server_ends_its_connections_only", node_kill::death_and_return),
        trial("no_packet_passes_its_hop_budget_whatever_nodes_report", hop_budget::wrong_reports),
        trial("ten_mebibytes_each_way_pass_a_forwarding_director_unchanged", bulk::through_a_director),
        trial("every_node_directs_and_serves_at_once_without_a_failed_request", everyone::under_load),
        trial("forged_gossip_is_counted_and_ignored", forged::gossip),
        trial("forged_tunnel_packets_are_counted_and_ignored", forged::tunnels),
        trial("sigterm_leaves_the_host_as_it_was", host_restored::after_sigterm),
        trial("sigint_leaves_the_host_as_it_was", host_restored::after_sigint),
        trial("dns_names_healthy_nodes_in_turn_and_no_dead_or_draining_ones", dns::follows_the_cluster),
        trial("an_excluded_address_is_named_by_no_node_even_after_a_restart", dns::exclusion),
        trial("clients_that_resolve_lose_no_request_begun_after_a_node_died", dns::node_dies),
        trial("the_benchmark_gets_packets_through_by_every_way", benchmark::userspace),
        trial("a_start_after_sigkill_cleans_up_what_was_left", host_restored::after_sigkill),
    ];
    let forwards = "connections_are_forwarded_and_clients_notice_nothing";
    trials.extend(Variant::ALL.map(|variant| trial_in(variant, forwards, methods::forwards)));
    run(|| Ok(()), trials)
}
