//! `dpr check`: is the configuration right, and can this host follow it?
//!
//! It looks and changes nothing. Every finding says what is missing and the command that mends it. It can be run beside
//! a running daemon, whose own sockets and devices it then does not mistake for somebody else's.

mod dns;
mod files;
mod finding;
mod leftovers;
mod network;
mod programs;
mod servers;
mod translation;

use crate::cli::CheckArgs;
use crate::config::{Config, Defaults};
use crate::control::client::ask;
use crate::control::protocol::{Request, Response};
use finding::{Finding, Severity};
use std::process::ExitCode;

/// Checks and prints. The exit code is 1 if there is an error among the findings.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let findings = match Config::load(&args.config, &Defaults::of_this_host()) {
        Ok(config) => check_host(&config),
        Err(error) => vec![Finding::error("configuration", error.to_string(), "correct the file")],
    };
    let text = match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&findings)?),
        false => finding::render(&args.config, &findings),
    };
    crate::print(&text)?;
    let failed = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn check_host(config: &Config) -> Vec<Finding> {
    let daemon = ask(&config.control_socket, &Request::Status);
    let is_running = daemon.is_ok();
    let mut findings = network::capabilities();
    findings.extend(network::interface(config, is_running));
    findings.extend(network::settings(config));
    findings.extend(programs::check(config, is_running));
    findings.extend(servers::check(config, is_running));
    findings.extend(translation::check(config));
    findings.extend(files::check(config));
    findings.extend(dns::check(config, is_running));
    if let Ok(Response::Status(status)) = &daemon {
        findings.extend(network::claims(status));
        findings.extend(network::source_filters(status));
    }
    if !is_running {
        findings.extend(leftovers::check(config));
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}
