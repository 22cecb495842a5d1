//! A BPF file system of a node's own: what its daemon pins there goes with the lab.

use crate::error::LabError;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A mounted one; dropping it unmounts it, and everything pinned in it is let go of.
#[derive(Debug)]
pub(crate) struct BpfFileSystem {
    path: PathBuf,
}

impl BpfFileSystem {
    /// Mounts one at `path`, which is made. Needs root.
    pub(crate) fn mount(path: &Path) -> Result<Self, LabError> {
        let doing = || format!("mount a BPF file system at {}", path.display());
        fs::create_dir_all(path).map_err(LabError::io(doing))?;
        mount("bpf", path, "bpf", MountFlags::empty(), None)
            .map_err(io::Error::from)
            .map_err(LabError::io(doing))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for BpfFileSystem {
    fn drop(&mut self) {
        // At once for everybody, and for good when the last user of it has gone.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}
