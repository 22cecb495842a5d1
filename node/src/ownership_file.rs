//! What a node must remember of its agreements with others when it starts again: a file beside the control socket.
//!
//! What is written is there after a power cut, or what was there before is. The content is `ownership`'s business.

use anyhow::Context as _;
use dpr_ownership::MAP_BYTES_MAX;
use std::fs::{File, OpenOptions};
use std::future::pending;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No file is larger than this, in bytes: a map, and an election before it.
const FILE_MAX: u64 = MAP_BYTES_MAX as u64 + 64;
/// Between two attempts to write.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct OwnershipFile {
    path: PathBuf,
}

impl OwnershipFile {
    /// The file that belongs to a control socket.
    pub(crate) fn beside(control_socket: &Path) -> Self {
        Self { path: control_socket.with_extension("ownership") }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What an earlier life kept; `None` in the first one.
    ///
    /// # Errors
    /// There is a file, and it cannot be read.
    pub(crate) fn read(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.with_context(|| format!("opening {}", self.path.display()))?,
        };
        let mut bytes = Vec::new();
        let read = file.take(FILE_MAX).read_to_end(&mut bytes);
        read.with_context(|| format!("reading {}", self.path.display()))?;
        Ok(Some(bytes))
    }

    /// Replaces the content, and tries again until it is on the disk. A thread of its own waits for the disk.
    pub(crate) async fn keep(self, bytes: Vec<u8>) {
        let mut bytes = bytes;
        let mut has_failed = false;
        loop {
            let path = self.path.clone();
            let attempt = tokio::task::spawn_blocking(move || (replace(&path, &bytes), bytes));
            // It ends without an answer only with the program.
            let Ok((written, again)) = attempt.await else { return pending().await };
            bytes = again;
            match written {
                Ok(()) => return,
                Err(error) if !has_failed => {
                    tracing::error!(path = %self.path.display(), %error, "agreement waits for the disk: this node gives up what it owns");
                }
                Err(_) => {}
            }
            has_failed = true;
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("ownership.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&new, path)?;
    // The name is on the disk only when its directory is.
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_is_read_and_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let file = OwnershipFile::beside(&directory.path().join("control.sock"));
        assert_eq!(file.read().unwrap(), None);

        file.clone().keep(vec![1; 1000]).await;
        file.clone().keep(vec![2]).await;

        assert_eq!(file.read().unwrap(), Some(vec![2]));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_refuses_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent");
        let file = OwnershipFile::beside(&absent.join("control.sock"));
        let keeping = tokio::spawn(file.clone().keep(vec![3]));

        tokio::time::sleep(RETRY_AFTER / 2).await;
        assert!(!keeping.is_finished());
        std::fs::create_dir(&absent).unwrap();
        keeping.await.unwrap();

        assert_eq!(file.read().unwrap(), Some(vec![3]));
    }
}
