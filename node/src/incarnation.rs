//! Which life of the node this is, and the lock that lets only one process live it.

use anyhow::{Context as _, bail};
use dpr_model::Incarnation;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A life of the node; as long as it exists, no other process can have one with the same control socket.
#[derive(Debug)]
pub(crate) struct Life {
    /// Greater than that of every former life.
    pub(crate) incarnation: Incarnation,
    /// Holds the lock until it is closed.
    _lock: File,
}

impl Life {
    /// Begins a life; the file beside the control socket remembers it for the next one.
    ///
    /// # Errors
    /// Another process lives with this control socket, or the file cannot be written.
    pub(crate) fn begin(control_socket: &Path) -> anyhow::Result<Self> {
        let path = control_socket.with_extension("incarnation");
        if let Some(directory) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
            made.with_context(|| format!("making the directory {}", directory.display()))?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                bail!("another dpr runs with the control socket {}; stop it first", control_socket.display())
            }
            Err(errno) => return Err(errno).with_context(|| format!("locking {}", path.display())),
        }
        let incarnation =
            advance(&mut file, now_ms()).with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { incarnation, _lock: file })
    }
}

/// The incarnation after the one in the file, which it replaces. A file with anything else in it counts as empty.
fn advance(file: &mut File, now_ms: u64) -> std::io::Result<Incarnation> {
    let mut text = String::new();
    // More than a number of 20 digits and its newline is no incarnation.
    let former: u64 = match (&mut *file).take(32).read_to_string(&mut text) {
        Ok(_) => text.trim().parse().unwrap_or(0),
        Err(_) => 0,
    };
    let incarnation = now_ms.max(former.saturating_add(1));
    file.rewind()?;
    file.set_len(0)?;
    writeln!(file, "{incarnation}")?;
    file.sync_data()?;
    Ok(Incarnation(incarnation))
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incarnations_grow_even_when_the_clock_goes_back() {
        let mut file = tempfile::tempfile().unwrap();
        let mut next = |now_ms| {
            file.rewind().unwrap();
            advance(&mut file, now_ms).unwrap().0
        };

        assert_eq!([next(1000), next(500), next(5000)], [1000, 1001, 5000]);
    }

    #[test]
    fn a_spoilt_file_is_no_obstacle() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"\xff\xfenonsense that is rather long, more than a number").unwrap();
        file.rewind().unwrap();

        assert_eq!(advance(&mut file, 7).unwrap(), Incarnation(7));
    }

    #[test]
    fn only_one_process_lives_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("run/control.sock");
        let first = Life::begin(&socket).unwrap();

        let second = Life::begin(&socket).unwrap_err();
        let before = first.incarnation;
        drop(first);
        let third = Life::begin(&socket).unwrap();

        assert!(second.to_string().contains("another dpr runs"), "{second}");
        assert!(third.incarnation > before);
    }
}
