//! `cargo xtask config-doc`: docs/configuration.md out of the definition of the configuration.

use crate::command::{cargo, output_of, root};
use anyhow::{Context as _, bail};
use std::fs;

/// Arguments of `cargo xtask config-doc`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Write nothing; fail when the file is not what would be written.
    #[arg(long)]
    pub(crate) check: bool,
}

const FILE: &str = "docs/configuration.md";

/// Writes or checks the file.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let wanted = output_of(&mut cargo(&["run", "--quiet", "--package", "dpr", "--", "config-doc"]))?;
    let path = root().join(FILE);
    if !arguments.check {
        fs::write(&path, wanted).with_context(|| format!("writing {FILE}"))?;
        println!("wrote {FILE}");
        return Ok(());
    }
    let found = fs::read_to_string(&path).with_context(|| format!("reading {FILE}"))?;
    if let Some(line) = first_difference(&found, &wanted) {
        bail!("{FILE} is out of date from line {line} on; run `cargo xtask config-doc`");
    }
    println!("{FILE} is up to date");
    Ok(())
}

/// Number of the first line in which two texts differ, counted from one.
fn first_difference(found: &str, wanted: &str) -> Option<usize> {
    if found == wanted {
        return None;
    }
    let same = found.lines().zip(wanted.lines()).take_while(|(found, wanted)| found == wanted);
    Some(same.count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_no_difference() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
    }

    #[test]
    fn a_difference_has_the_number_of_its_line() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some(2));
        assert_eq!(first_difference("a\nb\n", "a\nb"), Some(3));
    }
}
