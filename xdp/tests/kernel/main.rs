//! The programs in the kernel, run on single frames (`BPF_PROG_TEST_RUN`): they have to do what crate `director` does. One
//! test attaches them, in namespaces of its own.
//!
//! Needs root, and leaves no traces. Without root every test is left out.

#![expect(clippy::unwrap_used, reason = "clippy does not see that a test without harness is a test")]

mod above;
mod compare;
mod duties;
mod floods;
mod frames;
mod memory;
mod packets;
mod pins;
mod replies;
mod settling;
mod straight;
mod traffic;
mod vectors;
mod world;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        trial("random_packets_get_the_same_verdict_reason_and_bytes_as_from_the_director", packets::random),
        trial("segments_of_connections_that_were_sent_on_go_as_the_director_says", straight::segments),
        trial("frames_for_another_host_pass_as_they_came", packets::for_another_host),
        trial("vectors_leave_as_the_tables_say_or_are_listed_as_user_space_s", vectors::all),
        trial("replies_get_the_same_bytes_as_from_the_director", replies::random),
        trial(
            "datagrams_keep_having_a_checksum_or_none_whatever_it_becomes",
            packets::checksums_of_datagrams,
        ),
        trial("datagrams_of_a_connected_socket_stay_and_those_of_another_do_not", packets::sockets),
        trial("a_lottery_follows_weight_over_load", packets::lottery),
        trial("two_random_choices_among_many_do_not_herd", packets::many_candidates),
        trial(
            "programs_behind_the_driver_forward_connections_that_are_answered_directly",
            traffic::behind_the_driver,
        ),
        trial(
            "programs_in_the_driver_forward_connections_that_are_answered_directly",
            traffic::in_the_driver,
        ),
        trial("connections_over_ipv4_are_forwarded_between_nodes_of_ipv6", traffic::over_ipv6),
        trial(
            "pinned_programs_and_connections_outlive_a_killed_daemon_and_are_taken_over",
            pins::outlive_a_killed_daemon,
        ),
        trial(
            "pinned_programs_move_into_the_driver_when_the_next_daemon_wants_it",
            pins::move_into_the_driver_when_the_next_daemon_wants_it,
        ),
        trial("an_entry_takes_no_more_memory_than_is_promised", memory::per_entry),
        trial(
            "what_a_real_server_says_of_a_connection_is_written_to_that_one_only",
            settling::only_of_the_connection_that_is_meant,
        ),
        trial("a_flood_of_syns_displaces_neither_connections_nor_handshakes", floods::displace_nothing),
        trial("syns_of_a_flood_get_no_entries_and_are_spread_over_the_nodes", floods::get_no_entries),
        trial("who_connects_during_a_flood_stays_where_its_syn_went", floods::let_clients_in),
    ];
    trials.extend(where_others_may_own());
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Addresses that several nodes may own.
fn where_others_may_own() -> Vec<Trial> {
    vec![
        trial(
            "what_becomes_of_a_connection_that_others_may_have_to_go_on_with_is_told",
            duties::changes_are_told,
        ),
        trial(
            "kept_connections_are_told_where_they_outlive_their_owner",
            duties::kept_connections_are_told_where_they_outlive_their_owner,
        ),
        trial(
            "an_address_or_slot_returns_with_what_the_director_knows_and_without_what_the_programs_knew",
            duties::returns_with_what_the_director_knows,
        ),
        trial(
            "what_user_space_has_entered_counts_in_the_term_that_it_was_entered_in",
            duties::entries_of_user_space_count_in_their_term,
        ),
        trial(
            "kept_connections_that_user_space_decides_about_are_handed_up_where_others_may_own_the_address",
            duties::kept_connections_are_handed_up_where_others_may_own_the_address,
        ),
        trial(
            "what_another_node_owns_and_all_nodes_see_is_left_to_it",
            duties::leaves_to_others_what_all_see,
        ),
        trial("a_node_without_the_right_forwards_nothing", duties::ends_with_the_right),
    ]
}

fn trial(name: &str, run: fn()) -> Trial {
    let is_root = rustix::process::geteuid().is_root();
    let run = move || {
        run();
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(!is_root)
}

/// How many times a test repeats itself: more for `cargo xtask test-full`.
fn rounds(few: usize, many: usize) -> usize {
    if std::env::var_os("DPR_LONG").is_some() { many } else { few }
}
