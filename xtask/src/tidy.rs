//! `cargo xtask tidy`: limits and words that the compiler does not check.
//!
//! It reads every text of the checkout, and reports everything that it finds rather than the first. It refuses to know
//! exceptions: what is too long is split.

mod checkout;
mod lengths;
mod words;

use crate::command::root;
use anyhow::bail;
use std::fmt;
use std::path::PathBuf;

/// One thing that has to be mended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// From the root of the checkout.
    file: PathBuf,
    /// Counted from one.
    line: usize,
    /// What is wrong.
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

/// Looks through the checkout.
pub(crate) fn run() -> anyhow::Result<()> {
    let texts = checkout::texts(&root())?;
    let findings: Vec<Finding> =
        texts.iter().flat_map(|text| lengths::check(text).into_iter().chain(words::check(text))).collect();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("{} files are tidy", texts.len());
    Ok(())
}
