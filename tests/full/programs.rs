//! The programs that this target starts, and where they come from.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

/// Each program, and the Debian package that holds it.
const PROGRAMS: [(&str, &str); 4] =
    [("curl", "curl"), ("nginx", "nginx-light"), ("tshark", "tshark"), ("ip", "iproute2")];

/// Debian's directories for administrators' programs, which ordinary users do not search.
const MORE_DIRECTORIES: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// Names every missing package, and the command that gets them.
pub(crate) fn check() -> Result<(), String> {
    let missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    Err(format!(
        "packages are not installed: {packages}\nget them with: apt-get update && \
         DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {packages}"
    ))
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
