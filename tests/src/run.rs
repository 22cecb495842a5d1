//! The `main` of a target with scenarios.

use crate::binary;
use crate::variant::{self, Variant};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

/// A scenario that fails by panicking.
pub fn trial(name: &str, scenario: fn()) -> Trial {
    let run = move || {
        scenario();
        Ok(())
    };
    Trial::test(name, run)
}

/// The same scenario in one variant; how it ends goes into the table of [`crate::variant`].
pub fn trial_in(variant: Variant, name: &'static str, scenario: fn(Variant)) -> Trial {
    let run = move || {
        let ended = std::panic::catch_unwind(|| scenario(variant));
        variant::record(variant, name, ended.is_ok());
        ended.map_err(|_| Failed::from("it panicked; the reason stands above"))
    };
    Trial::test(format!("{name} [{variant}]"), run)
}

/// Builds the binary, enters a namespace where scenarios may make networks, and runs those that the command line wants.
///
/// They run one after another, because they share the processors and some of them measure time. What `check_needs`
/// misses makes everything fail. Has to be called before the process has a second thread.
pub fn run(check_needs: fn() -> Result<(), String>, trials: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        // The build needs the ordinary user and network, so it comes first; entering needs a process of one thread.
        let prepared = check_needs()
            .and_then(|()| binary::build())
            .and_then(|()| dpr_lab::enter().map_err(|error| error.to_string()));
        if let Err(error) = prepared {
            eprintln!("scenarios cannot run: {error}");
            return ExitCode::FAILURE;
        }
    }
    arguments.test_threads.get_or_insert(1);
    let conclusion = libtest_mimic::run(&arguments, trials);
    show_table();
    conclusion.exit_code()
}

/// Shows which variants ran; also in the file that the environment variable `DPR_TABLE` names, for who runs several targets.
fn show_table() {
    let table = variant::table();
    if table.is_empty() {
        return;
    }
    println!("{table}");
    if let Some(file) = std::env::var_os("DPR_TABLE")
        && let Err(error) = std::fs::write(&file, table)
    {
        eprintln!("the table cannot be written to {}: {error}", file.display());
    }
}
