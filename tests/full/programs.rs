//! The programs that this target starts, and where they come from.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

/// Lines of a program and its Debian package.
const LIST: &str = include_str!("programs.txt");

/// Debian's directories for administrators' programs, which ordinary users do not search.
const MORE_DIRECTORIES: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// Names every missing program.
pub(crate) fn check() -> Result<(), String> {
    let programs = LIST.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    let missing: Vec<&str> =
        programs.map(|(program, _)| program).filter(|program| find(program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("not installed: {}; `cargo xtask test-full` says how to get them", missing.join(", ")))
}

/// One of the programs, to be started.
pub(crate) fn command(program: &str) -> Command {
    Command::new(find(program).expect("main checks for every program before any scenario"))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(env::split_paths(OsStr::new(MORE_DIRECTORIES)))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}
