//! The `main` of a target with scenarios.

use crate::binary;
use crate::variant::{self, Variant};
use libtest_mimic::{Arguments, Failed, Trial};
use std::num::NonZero;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError, RwLock};

/// Environment variable: how many scenarios of a run may fail once, if they succeed at the second try; 0 without it.
///
/// For machines that others use at the same time, as those of CI: a daemon that gets no processor for a second is late
/// with everything. What really is broken fails twice, or often.
const SECOND_TRIES: &str = "DPR_SECOND_TRIES";

/// Scenarios that were tried again.
static TRIED_AGAIN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Whoever shares the processors with others reads; whoever needs them alone writes.
static PROCESSORS: RwLock<()> = RwLock::new(());

/// A scenario that fails by panicking.
pub fn trial(name: &str, scenario: fn()) -> Trial {
    let what = name.to_owned();
    Trial::test(name, move || {
        let _shared = PROCESSORS.read().unwrap_or_else(PoisonError::into_inner);
        attempt(&what, scenario)
    })
}

/// A scenario that measures time, or counts what a late daemon would change: nothing else runs beside it.
pub fn trial_alone(name: &str, scenario: fn()) -> Trial {
    let what = name.to_owned();
    Trial::test(name, move || {
        let _alone = PROCESSORS.write().unwrap_or_else(PoisonError::into_inner);
        attempt(&what, scenario)
    })
}

/// The same scenario in one variant; how it ends goes into the table of [`crate::variant`].
pub fn trial_in(variant: Variant, name: &'static str, scenario: fn(Variant)) -> Trial {
    let what = format!("{name} [{variant}]");
    Trial::test(what.clone(), move || {
        let _shared = PROCESSORS.read().unwrap_or_else(PoisonError::into_inner);
        attempt_in(variant, &what, name, scenario)
    })
}

/// The same with nothing else beside it, as [`trial_alone`].
pub fn trial_alone_in(variant: Variant, name: &'static str, scenario: fn(Variant)) -> Trial {
    let what = format!("{name} [{variant}]");
    Trial::test(what.clone(), move || {
        let _alone = PROCESSORS.write().unwrap_or_else(PoisonError::into_inner);
        attempt_in(variant, &what, name, scenario)
    })
}

fn attempt_in(variant: Variant, what: &str, name: &str, scenario: fn(Variant)) -> Result<(), Failed> {
    let ended = attempt(what, || scenario(variant));
    variant::record(variant, name, ended.is_ok());
    ended
}

fn attempt(what: &str, scenario: impl Fn() + RefUnwindSafe) -> Result<(), Failed> {
    let mut ended = catch_unwind(&scenario);
    if ended.is_err() && may_try_again(what) {
        eprintln!("--- {what} failed and is tried once more");
        ended = catch_unwind(&scenario);
    }
    ended.map_err(|_| Failed::from("it panicked; the reason stands above"))
}

fn may_try_again(what: &str) -> bool {
    let allowed = std::env::var(SECOND_TRIES).ok().and_then(|number| number.parse().ok()).unwrap_or(0);
    let mut tried_again = TRIED_AGAIN.lock().unwrap();
    let may = tried_again.len() < allowed;
    if may {
        tried_again.push(what.to_owned());
    }
    may
}

/// Builds the binary, enters a namespace where scenarios may make networks, and runs those that the command line wants.
///
/// Several run at once, one more than there are processors unless `--test-threads` says otherwise: each has its own
/// network, and mostly waits. What `check_needs` misses makes everything fail. Has to be called before the process has a second thread.
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
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    arguments.test_threads.get_or_insert(processors + 1);
    let conclusion = libtest_mimic::run(&arguments, trials);
    show_table();
    for what in TRIED_AGAIN.lock().unwrap().iter() {
        println!("failed at the first try: {what}");
    }
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
