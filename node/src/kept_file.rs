//! What a node must remember when it starts again: small files beside the control socket.
//!
//! What is written is there after a power cut, or what was there before is. What it means is the business of whoever
//! has it kept.

use anyhow::Context as _;
use dpr_load_gossip::EXCLUSIONS_MAX;
use dpr_ownership::MAP_BYTES_MAX;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::future::pending;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

/// Between two attempts to write.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Bytes of one decision about an address at most, as JSON.
const EXCLUSION_BYTES_MAX: usize = 256;

/// What a file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Promises to other nodes.
    Ownership,
    /// Addresses that operators took out of DNS.
    Exclusions,
}

impl Subject {
    fn extension(self) -> &'static str {
        match self {
            Self::Ownership => "ownership",
            Self::Exclusions => "exclusions",
        }
    }

    /// No such file is larger, in bytes.
    fn length_max(self) -> usize {
        match self {
            // A map, and an election before it.
            Self::Ownership => MAP_BYTES_MAX + 64,
            Self::Exclusions => EXCLUSIONS_MAX * EXCLUSION_BYTES_MAX,
        }
    }

    /// What it means that the disk refuses.
    fn consequence(self) -> &'static str {
        match self {
            Self::Ownership => "agreement waits for the disk: this node gives up what it owns",
            Self::Exclusions => "this node would not remember which addresses DNS must not name",
        }
    }
}

/// Something on its way to the disk.
pub(crate) struct Keeping(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Keeping {
    /// Waits until the disk has it.
    pub(crate) async fn done(&mut self) {
        self.0.as_mut().await;
    }
}

impl fmt::Debug for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeping")
    }
}

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct KeptFile {
    subject: Subject,
    path: PathBuf,
}

impl KeptFile {
    /// The file that belongs to a control socket.
    pub(crate) fn beside(control_socket: &Path, subject: Subject) -> Self {
        Self { subject, path: control_socket.with_extension(subject.extension()) }
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
        let read = file.take(self.subject.length_max() as u64).read_to_end(&mut bytes);
        read.with_context(|| format!("reading {}", self.path.display()))?;
        Ok(Some(bytes))
    }

    /// Replaces the content, and tries again until it is on the disk. A thread of its own waits for the disk.
    pub(crate) fn keep(&self, bytes: Vec<u8>) -> Keeping {
        Keeping(Box::pin(self.clone().persist(bytes)))
    }

    async fn persist(self, bytes: Vec<u8>) {
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
                    tracing::error!(path = %self.path.display(), %error, "{}", self.subject.consequence());
                }
                Err(_) => {}
            }
            has_failed = true;
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.to_owned();
    new.as_mut_os_string().push(".new");
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
        let file = KeptFile::beside(&directory.path().join("control.sock"), Subject::Ownership);
        assert_eq!(file.read().unwrap(), None);

        file.keep(vec![1; 1000]).done().await;
        file.keep(vec![2]).done().await;

        assert_eq!(file.read().unwrap(), Some(vec![2]));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_refuses_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent");
        let file = KeptFile::beside(&absent.join("control.sock"), Subject::Ownership);
        let mut keeping = file.keep(vec![3]);
        let keeping = tokio::spawn(async move { keeping.done().await });

        tokio::time::sleep(RETRY_AFTER / 2).await;
        assert!(!keeping.is_finished());
        std::fs::create_dir(&absent).unwrap();
        keeping.await.unwrap();

        assert_eq!(file.read().unwrap(), Some(vec![3]));
    }
}
