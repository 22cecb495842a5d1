//! The `dpr` binary under test, built by the same cargo into the same directory as this test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// The binary; [`build`] has to have succeeded.
pub fn path() -> &'static Path {
    BINARY.get().expect("main builds the binary before any scenario")
}

/// Builds the binary, or takes the one that `DPR_BINARY` names.
///
/// # Errors
/// It cannot be built, or there is none.
pub fn build() -> Result<(), String> {
    let binary = match std::env::var_os("DPR_BINARY") {
        Some(named) => PathBuf::from(named),
        None => build_beside_this_test()?,
    };
    if !binary.is_file() {
        return Err(format!("there is no binary {}", binary.display()));
    }
    BINARY.set(binary).map_err(|_| "the binary was built twice".to_owned())
}

/// This test is `<target>/<profile>/deps/…`; the binary goes to `<target>/<profile>/dpr`.
fn build_beside_this_test() -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|error| format!("where is this test? {error}"))?;
    let directory = test.parent().and_then(Path::parent).ok_or("this test is not in a target directory")?;
    let target = directory.parent().ok_or("this test is not in a target directory")?;
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => return Err(format!("{} names no profile", directory.display())),
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "dpr", "--profile", profile, "--target-dir"]).arg(target);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = cargo.status().map_err(|error| format!("{cargo:?}: {error}"))?;
    if !status.success() {
        return Err(format!("{cargo:?}: {status}"));
    }
    Ok(directory.join("dpr"))
}
