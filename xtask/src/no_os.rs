//! `cargo xtask no-os`: proof that `model` and `rewrite` need no operating system.
//!
//! `xtask/no-os` is a program without standard library, C library and start-up code that calls every entry point of
//! `rewrite`. Linking it fails if anything asks for more than four memory routines, which any environment of Rust has
//! to provide; running it shows that the code works there. Where a bare-metal target is installed, the crates are
//! built for it as well.

use crate::command::{cargo, command, output_of, root, run as run_command};
use anyhow::bail;
use std::env;
use std::path::{Path, PathBuf};

/// Linux, so that the program can be run; it asks the kernel for nothing but its own end.
const FREESTANDING_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where the program's package is, from the root of the checkout.
pub(crate) const MANIFEST: &str = "xtask/no-os/Cargo.toml";

/// No C library, no start-up code, nothing that a dynamic loader would have to do.
const LINKER_FLAGS: [&str; 8] = [
    "-C",
    "link-arg=-nostdlib",
    "-C",
    "link-arg=-nostartfiles",
    "-C",
    "link-arg=-static",
    "-C",
    "relocation-model=static",
];

/// Builds and runs the proof.
pub(crate) fn run() -> anyhow::Result<()> {
    let bare_metal = installed_bare_metal_targets();
    for target in &bare_metal {
        build_for(target)?;
    }
    if cfg!(target_arch = "x86_64") {
        return build_and_run_freestanding();
    }
    if bare_metal.is_empty() {
        bail!("this machine has no bare-metal target: add one with `rustup target add aarch64-unknown-none`");
    }
    Ok(())
}

fn build_and_run_freestanding() -> anyhow::Result<()> {
    let directory = target_directory();
    let mut build = cargo(&["rustc", "--quiet", "--release", "--manifest-path", MANIFEST]);
    build.args(["--target", FREESTANDING_TARGET, "--target-dir"]).arg(&directory);
    run_command(build.arg("--").args(LINKER_FLAGS))?;
    let program = directory.join(FREESTANDING_TARGET).join("release/dpr-no-os");
    run_command(&mut command(&program.to_string_lossy(), &[]))
}

fn build_for(target: &str) -> anyhow::Result<()> {
    let mut build =
        cargo(&["build", "--quiet", "--no-default-features", "-p", "dpr-model", "-p", "dpr-rewrite"]);
    run_command(build.args(["--target", target, "--target-dir"]).arg(target_directory()))
}

/// Apart from the workspace's products, as features and panic strategy differ.
pub(crate) fn target_directory() -> PathBuf {
    let of_workspace = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    of_workspace.join("no-os")
}

/// Targets of this toolchain's sysroot whose name says that they have no operating system.
fn installed_bare_metal_targets() -> Vec<String> {
    let Ok(sysroot) = output_of(&mut command("rustc", &["--print", "sysroot"])) else { return Vec::new() };
    let targets = Path::new(sysroot.trim()).join("lib/rustlib");
    let Ok(entries) = targets.read_dir() else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| is_bare_metal(name)).collect()
}

fn is_bare_metal(target: &str) -> bool {
    target.split('-').any(|part| part == "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_without_an_operating_system_are_told_by_their_names() {
        assert!(is_bare_metal("x86_64-unknown-none"));
        assert!(is_bare_metal("thumbv7em-none-eabi"));
        assert!(!is_bare_metal("x86_64-unknown-linux-gnu"));
        assert!(!is_bare_metal("bpfel-unknown-nonesuch"));
    }
}
