//! `cargo xtask deny`: what `deny.toml` says about dependencies, by cargo-deny.
//!
//! Licences, bans and sources follow from the checkout alone. Advisories do not: a new one turns up without any change
//! here, and their database has to be fetched. So they are asked for by name and are no part of `cargo xtask ci`.

use crate::command::{cargo, run as run_command, succeeds};
use anyhow::bail;

/// Arguments of `cargo xtask deny`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Fail when cargo-deny is not installed, instead of saying how to get it.
    #[arg(long)]
    pub(crate) require: bool,
    /// Look for known vulnerabilities as well; fetches the RustSec database from GitHub.
    #[arg(long)]
    pub(crate) advisories: bool,
}

const HOW_TO_GET_IT: &str = "cargo-deny is not installed; get it with `cargo install --locked cargo-deny`";

/// Checks the dependencies, if cargo-deny is there to do it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if !succeeds(&mut cargo(&["deny", "--version"])) {
        if arguments.require {
            bail!(HOW_TO_GET_IT);
        }
        println!("skipped: {HOW_TO_GET_IT}");
        return Ok(());
    }
    run_command(&mut cargo(&[
        "deny",
        "--workspace",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ]))?;
    if arguments.advisories {
        run_command(&mut cargo(&["deny", "--workspace", "check", "advisories"]))?;
    }
    Ok(())
}
