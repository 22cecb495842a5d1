//! `cargo xtask test-full`: all tests, also those that take long, need root, or use programs of the distribution.
//!
//! It installs nothing: what is missing is named, with the command that gets it.

use crate::command::{cargo, output_of, run as run_command};
use crate::{bench, bpf};
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::env;
use std::ffi::OsStr;
use std::path::Path;

/// Lines of a program that full tests start, and the Debian package that holds it.
const PROGRAMS: &str = include_str!("../../tests/full/programs.txt");

/// Where Debian keeps programs, also when the caller's `PATH` has no `sbin`.
const PROGRAM_DIRECTORIES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The package with the target that only full tests run.
pub(crate) const PACKAGE: &str = "dpr-tests";
/// The target.
pub(crate) const TARGET: &str = "full";

/// Tells tests to take their time: more nodes, more connections, longer faults.
const LONG: (&str, &str) = ("DPR_LONG", "1");

/// Names the file into which scenarios write which of them ran by which forwarding method, IP version and way in.
const TABLE: &str = "DPR_TABLE";

/// Arguments of `cargo xtask test-full`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Leave out the tests of the workspace, for who runs `DPR_LONG=1 cargo test --workspace` as well.
    #[arg(long)]
    beyond_workspace: bool,
}

/// Runs all tests.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("full tests need root: run `sudo --preserve-env=PATH cargo xtask test-full`");
    }
    let path = search_path();
    if let Some(advice) = advice_for(&missing_packages(&path)) {
        bail!(advice);
    }
    bpf::run(&bpf::Arguments::of_ci())?;
    // Costs that grew are known in a minute; the tests take many.
    bench::run(&bench::Arguments::of_ci())?;
    let table = || tempfile::NamedTempFile::new().context("making a file for the table of variants");
    let (table, full_table) = (table()?, table()?);
    if !arguments.beyond_workspace {
        let mut test = cargo(&["test", "--workspace"]);
        run_command(test.env(LONG.0, LONG.1).env("PATH", &path).env(TABLE, table.path()))?;
    }
    let metadata = output_of(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata = serde_json::from_str(&metadata).context("reading what cargo says about the workspace")?;
    let Some(arguments) = arguments_for_full_target(&metadata) else { return Ok(()) };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run_command(cargo(&arguments).env(LONG.0, LONG.1).env("PATH", &path).env(TABLE, full_table.path()))?;
    println!("Forwarding methods, IP versions and ways in that ran:\n");
    for table in [table, full_table] {
        println!("{}", std::fs::read_to_string(table.path()).context("reading the table of variants")?);
    }
    Ok(())
}

fn search_path() -> String {
    let inherited = env::var("PATH").unwrap_or_default();
    format!("{inherited}:{PROGRAM_DIRECTORIES}")
}

fn missing_packages(path: &str) -> Vec<&'static str> {
    let is_there =
        |program: &str| env::split_paths(OsStr::new(path)).any(|directory| is_program(&directory, program));
    let programs =
        PROGRAMS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    programs.filter(|(program, _)| !is_there(program)).map(|(_, package)| package.trim_start()).collect()
}

fn is_program(directory: &Path, program: &str) -> bool {
    directory.join(program).is_file()
}

fn advice_for(missing: &[&str]) -> Option<String> {
    let packages = missing.join(" ");
    (!missing.is_empty()).then(|| {
        format!(
            "full tests need packages that are not installed: {packages}\n\
             get them with: apt-get update && \
             DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {packages}"
        )
    })
}

/// How to run the target that `cargo test --workspace` leaves out; `None` when there is none left out.
fn arguments_for_full_target(metadata: &Value) -> Option<Vec<String>> {
    let package = named(metadata.get("packages")?, PACKAGE)?;
    let target = named(package.get("targets")?, TARGET)?;
    let features = target.get("required-features").and_then(Value::as_array);
    let features: Vec<&str> = features.into_iter().flatten().filter_map(Value::as_str).collect();
    let ran_already = target.get("test").and_then(Value::as_bool).unwrap_or(true) && features.is_empty();
    if ran_already {
        return None;
    }
    let mut arguments: Vec<String> = ["test", "-p", PACKAGE, "--test", TARGET].map(str::to_owned).into();
    if !features.is_empty() {
        arguments.extend(["--features".to_owned(), features.join(",")]);
    }
    Some(arguments)
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item.get("name").and_then(Value::as_str) == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workspace_with(target: &Value) -> Value {
        json!({ "packages": [{ "name": "dpr" }, { "name": PACKAGE, "targets": [target] }] })
    }

    #[test]
    fn a_target_that_the_workspace_run_leaves_out_is_run_by_name() {
        let plain = workspace_with(&json!({ "name": TARGET, "test": false }));
        let with_feature =
            workspace_with(&json!({ "name": TARGET, "test": true, "required-features": ["long"] }));

        assert_eq!(arguments_for_full_target(&plain).unwrap(), ["test", "-p", PACKAGE, "--test", TARGET]);
        assert!(
            arguments_for_full_target(&with_feature)
                .unwrap()
                .ends_with(&["--features".into(), "long".into()])
        );
    }

    #[test]
    fn a_target_that_ran_or_does_not_exist_is_not_run() {
        let ran = workspace_with(&json!({ "name": TARGET, "test": true }));
        let other = workspace_with(&json!({ "name": "scenarios", "test": false }));

        assert_eq!(arguments_for_full_target(&ran), None);
        assert_eq!(arguments_for_full_target(&other), None);
        assert_eq!(arguments_for_full_target(&json!({ "packages": [] })), None);
    }

    #[test]
    fn missing_packages_are_named_with_the_command_that_gets_them() {
        let nowhere = tempfile::tempdir().unwrap();
        let missing = missing_packages(nowhere.path().to_str().unwrap());

        let advice = advice_for(&missing).unwrap();

        assert!(missing.contains(&"nginx-light") && missing.contains(&"valgrind"), "{missing:?}");
        assert!(advice.ends_with(&missing.join(" ")), "{advice}");
        assert_eq!(advice_for(&[]), None);
    }
}
