//! The `main` of a target with scenarios.

use crate::binary;
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

/// A scenario that fails by panicking.
pub fn trial(name: &str, scenario: fn()) -> Trial {
    let run = move || {
        scenario();
        Ok(())
    };
    Trial::test(name, run)
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
    libtest_mimic::run(&arguments, trials).exit_code()
}
