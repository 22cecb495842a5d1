//! The file with the keys that authenticate load reports.

use anyhow::{Context as _, ensure};
use dpr_load_gossip::Keyring;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// No key file is larger than this, in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// The keys in a file; no keys without a file.
///
/// # Errors
/// The file cannot be read, or what it holds are no keys; the message never shows what is in it.
pub(crate) fn read(path: Option<&Path>) -> anyhow::Result<Keyring> {
    let Some(path) = path else { return Ok(Keyring::unauthenticated()) };
    let mut text = String::new();
    let opened = File::open(path).with_context(|| format!("opening the key file {}", path.display()))?;
    opened
        .take(FILE_MAX + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("reading the key file {}", path.display()))?;
    ensure!(text.len() as u64 <= FILE_MAX, "the key file {} is larger than {FILE_MAX} bytes", path.display());
    Keyring::parse(&text).with_context(|| format!("the key file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_mistakes_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (good, bad) = (directory.path().join("good"), directory.path().join("bad"));
        std::fs::write(&good, format!("# made today\n{}\n", "5a".repeat(32))).unwrap();
        std::fs::write(&bad, "secret").unwrap();

        assert!(read(Some(&good)).unwrap().is_authenticating());
        assert!(!read(None).unwrap().is_authenticating());
        let error = format!("{:#}", read(Some(&bad)).unwrap_err());
        assert!(error.contains("bad: line 1") && !error.contains("secret"), "{error}");
    }
}
