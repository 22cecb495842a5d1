//! What has to happen to a process before it can build a lab.

use crate::error::LabError;
use dpr_host::enter_user_namespace;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, unshare_unsafe};
use std::io;

/// Prepares the process: enters a user namespace if it has not the rights to make network namespaces, else a mount namespace,
/// and raises the limit of open files to what the system allows.
///
/// Has to come first in `main`, before any thread exists: a user namespace can only be entered by a process of one
/// thread, and threads that are there already would keep the mounts that they have.
///
/// # Errors
///
/// The system forbids user namespaces; the error says which setting does and how to allow them.
pub fn enter() -> Result<(), LabError> {
    raise_open_files_limit()?;
    let own = capabilities(None)
        .map_err(io::Error::from)
        .map_err(LabError::io(|| "read the own capabilities".to_owned()))?;
    if own.effective.contains(NEEDED) {
        return keep_mounts_to_ourselves()
            .map_err(io::Error::from)
            .map_err(LabError::io(|| "enter a mount namespace".to_owned()));
    }
    enter_user_namespace().map_err(LabError::host("build networks without being root"))
}

/// What is mounted from now on goes with the last process of the lab, also where that one is killed: programs and tables that are
/// pinned in a BPF file system would stay for good.
fn keep_mounts_to_ourselves() -> rustix::io::Result<()> {
    // SAFETY: only CLONE_FILES makes unshare unsafe, and it is not among the flags.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
}

/// To make namespaces, links in them, and packet sockets.
const NEEDED: CapabilitySet =
    CapabilitySet::SYS_ADMIN.union(CapabilitySet::NET_ADMIN).union(CapabilitySet::NET_RAW);

/// Ten thousand paired connections take twice as many descriptors, and a few for everything else.
const OPEN_FILES: u64 = 1 << 16;

/// The usual soft limit is 1024. Beyond the hard one only root may go; others make do with it.
fn raise_open_files_limit() -> Result<(), LabError> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = |most| Rlimit { current: most, maximum: most };
    setrlimit(Resource::Nofile, limit(maximum.map(|maximum| maximum.max(OPEN_FILES))))
        .or_else(|_| setrlimit(Resource::Nofile, limit(maximum)))
        .map_err(io::Error::from)
        .map_err(LabError::io(|| "raise the limit of open files".to_owned()))
}
