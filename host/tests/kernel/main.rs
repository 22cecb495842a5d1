//! What the kernel really does when this crate asks it.
//!
//! Runs as root and as an ordinary user, who enters a user namespace first. Every test has network
//! namespaces of its own. Where namespaces cannot be had, every test fails and says why.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod addresses;
mod fixture;
mod links;
mod namespaces;
mod neighbours;
mod packet_filter;
mod routes;
mod settings;
mod sockets;

use dpr_host::{NetNamespace, enter_user_namespace};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

/// A test's name and what it does, in an empty network namespace.
type Test = (&'static str, fn());

/// Names tests by their functions.
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        /// Every test of this module.
        pub(crate) const TESTS: &[crate::Test] = &[$((stringify!($test), $test)),*];
    };
}
pub(crate) use tests;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let is_root = rustix::process::geteuid().is_root();
    let privilege = if is_root { Ok(()) } else { enter_user_namespace().map_err(|error| error.to_string()) };

    let groups = [
        ("addresses", addresses::TESTS),
        ("links", links::TESTS),
        ("namespaces", namespaces::TESTS),
        ("neighbours", neighbours::TESTS),
        ("packet_filter", packet_filter::TESTS),
        ("routes", routes::TESTS),
        ("settings", settings::TESTS),
        ("sockets", sockets::TESTS),
    ];
    let trials = groups
        .into_iter()
        .flat_map(|(group, tests)| tests.iter().map(move |(name, test)| (format!("{group}::{name}"), *test)))
        .map(|(name, test)| {
            let privilege = privilege.clone();
            Trial::test(name, move || in_namespace(privilege, test))
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn in_namespace(privilege: Result<(), String>, test: fn()) -> Result<(), Failed> {
    privilege?;
    NetNamespace::create()?.enter(test)?;
    Ok(())
}
