//! Counting by `valgrind --tool=callgrind`: one process for each case, in which only [`measured`] is counted.
//!
//! Callgrind is driven directly. The harnesses for it bring a runner that has to be built and matched in version, and
//! their measurements of start-up and caches are not wanted here.

use crate::cases::Case;
use anyhow::{Context as _, bail};
use std::process::{Command, Stdio};

/// The symbol of [`measured`].
const MEASURED: &str = "dpr_bench_measured";

/// Runs `work` for each number below `times`; what it does is counted, callees included.
///
/// The loop and the call add 6 instructions to each turn.
// SAFETY: nothing else has this name, which valgrind looks for.
#[unsafe(export_name = "dpr_bench_measured")]
#[inline(never)]
pub(crate) extern "Rust" fn measured(times: usize, work: &mut dyn FnMut(usize)) {
    for nth in 0..times {
        work(nth);
    }
}

/// Says what is missing if callgrind cannot be run.
pub(crate) fn require() -> anyhow::Result<()> {
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => Ok(()),
        _ => bail!(
            "instructions are counted by valgrind, which is not installed; get it with: \
             apt-get install -y --no-install-recommends valgrind"
        ),
    }
}

/// Instructions of one turn of `case`, mean over all of its turns.
pub(crate) fn count(case: &Case) -> anyhow::Result<u64> {
    let directory = tempfile::tempdir().context("making a directory for callgrind's output")?;
    let file = directory.path().join("callgrind.out");
    let own = std::env::current_exe().context("finding this program's own file")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(own)
        .args(["work", case.name])
        .output()
        .context("starting valgrind")?;
    if !output.status.success() {
        bail!("{} under valgrind: {}\n{}", case.name, output.status, String::from_utf8_lossy(&output.stderr));
    }
    let text = std::fs::read_to_string(&file).context("reading callgrind's output")?;
    let total = total_of(&text).with_context(|| format!("callgrind counted nothing for {}", case.name))?;
    Ok(total / case.turns as u64)
}

/// The instructions in callgrind's output file; `None` when it has no total or the total is zero.
fn total_of(text: &str) -> Option<u64> {
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "))?;
    total.trim().parse().ok().filter(|total| *total > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_among_all_that_callgrind_writes() {
        assert_eq!(total_of("events: Ir\nfn=(1) main\n16 400\n\ntotals: 4000\n"), Some(4000));
        assert_eq!(total_of("events: Ir\ntotals: 0\n"), None);
        assert_eq!(total_of("events: Ir\n"), None);
    }
}
