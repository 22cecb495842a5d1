//! `cargo xtask bpf`: the kernel's programs from C, byte for byte the same on every machine.
//!
//! The object is committed, so that nobody needs this to build `dpr`. Who changes the C needs Debian's clang 14: another
//! compiler makes other bytes.

use crate::command::{command, root, run as run_command};
use anyhow::{Context as _, bail};
use std::env::consts::ARCH;
use std::fs;
use std::path::Path;

/// Where sources and objects are.
const DIRECTORY: &str = "xdp/bpf";
/// Sources; their objects have the same names, but for the ending.
const NAMES: [&str; 2] = ["dpr.bpf", "yardsticks.bpf"];

/// Arguments of `cargo xtask bpf`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Write nothing; fail when a committed object is not what its source gives.
    #[arg(long)]
    check: bool,
}

impl Arguments {
    /// What CI asks for.
    pub(crate) fn of_ci() -> Self {
        Self { check: true }
    }
}

/// Makes the objects, or compares them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let place = root().join(DIRECTORY);
    let fresh = tempfile::tempdir().context("making a temporary directory")?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    for name in NAMES {
        let object = fresh.path().join(name).with_extension("bpf.o");
        compile(&place, &format!("{name}.c"), &object)?;
        let committed = place.join(name).with_extension("bpf.o");
        if !arguments.check {
            fs::copy(&object, &committed).with_context(|| format!("writing {}", committed.display()))?;
        } else if read(&object)? != read(&committed)? {
            let name = committed.display();
            bail!("{name} is not what its source gives: run `cargo xtask bpf` and commit it");
        }
    }
    Ok(())
}

fn compile(place: &Path, source: &str, object: &Path) -> anyhow::Result<()> {
    let out = object.to_str().context("the temporary directory has an unusual name")?;
    // asm/types.h is where the architecture's headers are; it says the same on all that dpr runs on.
    let headers = format!("-idirafter/usr/include/{ARCH}-linux-gnu");
    // No path of this machine may get into the object.
    let no_paths = format!("-ffile-prefix-map={}=.", place.display());
    let mut clang =
        command("clang-14", &["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"]);
    clang.args(["-Wno-missing-field-initializers", "-Wno-sign-compare", &headers]);
    clang.args(["-fdebug-compilation-dir=.", &no_paths, "-c", source, "-o", out]);
    run_command(clang.current_dir(place)).context("it needs the Debian packages clang-14 and libbpf-dev")?;
    run_command(&mut command("llvm-strip-14", &["-g", out])).context("it needs the Debian package llvm-14")
}
