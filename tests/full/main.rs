//! What `dpr` promises, kept with programs that others wrote: curl, nginx, tshark, iproute2,
//! dig, kdig, unbound, knotd, vsftpd, BIRD.
//!
//! Not part of `cargo test --workspace`, so that nobody needs these programs to work on `dpr`, and so that nothing is
//! skipped in silence: where one is missing, the whole target fails and says how to get it. Run it with
//! `cargo xtask test-full`, or by name: `cargo test -p dpr-tests --test full`. `DPR_LONG=1` and `DPR_BINARY` mean what
//! they mean to the target `scenarios`.

#![expect(clippy::unwrap_used, reason = "clippy does not see that a test without harness is a test")]

mod bystanders;
mod checksums;
mod curl;
mod dns;
mod echo;
mod external;
mod files;
mod ftp;
mod knot;
mod leftovers;
mod many;
mod nginx;
mod node_kill;
mod programs;
mod routed;
mod strict_source;
mod transfers;
mod tshark;
mod vsftpd;
mod web;
mod without_dpr;

use dpr_tests::variant::{Variant, may_load_programs};
use dpr_tests::{run, trial, trial_alone, trial_in};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = vec![
        trial_alone(
            "the_other_nginxes_serve_an_overloaded_node_s_clients_without_a_failure",
            external::overloaded,
        ),
        trial("requests_on_one_connection_stay_with_one_nginx_while_loads_swing", external::keep_alive),
        trial("curl_downloads_and_uploads_ten_mebibytes_through_a_director_unchanged", transfers::both_ways),
        trial("the_built_in_server_serves_its_directory_and_nothing_else", files::directory),
        trial("tshark_finds_every_checksum_on_the_wire_correct", checksums::on_the_wire),
        trial("a_dead_node_fails_the_downloads_it_had_and_no_others", node_kill::downloads),
        trial("strict_source_checks_of_the_host_drop_nothing_of_ours", strict_source::everywhere),
        trial("other_services_of_the_host_are_untouched", bystanders::untouched),
        trial("check_names_what_a_killed_daemon_left_and_how_to_remove_it", leftovers::named),
        trial("dig_and_kdig_find_an_authoritative_server_that_keeps_to_the_rules", dns::diggers),
        trial("check_prints_the_records_that_the_parent_zone_needs_and_finds_wrong_ones", dns::delegation),
        trial("a_resolver_s_cache_keeps_answers_for_their_ttl", dns::cache),
        trial("ftp_in_every_mode_stays_with_one_node_that_sees_a_delivery_address", ftp::translated),
        trial("ftp_over_ipv6_stays_with_one_node_that_sees_a_delivery_address", ftp::translated_in_ipv6),
        trial("ftp_in_every_mode_stays_with_one_node_that_has_the_service_address", ftp::to_an_alias),
        trial("ftp_over_ipv6_stays_with_one_node_that_has_the_service_address", ftp::to_an_alias_in_ipv6),
        trial("a_dns_server_s_answers_come_from_the_address_that_was_asked", knot::on_nodes),
        trial("a_dns_server_without_dpr_is_asked_by_full_nat", knot::without_dpr),
        trial("an_nginx_without_dpr_serves_by_full_nat_while_it_lives", without_dpr::by_full_nat),
        trial("an_nginx_without_dpr_serves_by_half_nat_while_it_lives", without_dpr::by_half_nat),
        trial("glibc_and_curl_spread_over_all_nodes_and_survive_the_death_of_one", dns::glibc_and_curl),
        trial("a_resolver_s_clients_lose_no_request_when_a_dead_node_is_named_still", dns::takeover),
        trial("two_nodes_announce_a_shared_address_by_bgp_and_a_dead_one_is_avoided", routed::by_two_nodes),
    ];
    trials.extend(many::trials());
    if may_load_programs() {
        trials.extend([
            trial("ftp_in_every_mode_stays_with_one_node_by_the_kernel_s_programs_too", ftp::by_programs),
            trial(
                "ftp_over_ipv6_to_an_alias_stays_by_the_kernel_s_programs_too",
                ftp::to_an_alias_by_programs,
            ),
        ]);
    }
    trials.extend(Variant::ALL.map(|variant| {
        trial_in(variant, "tshark_finds_no_wrong_checksum_by_any_method", checksums::of_every_method)
    }));
    run(programs::check, trials)
}
