//! What this process may do to its network namespace.

use rustix::thread::{CapabilitySet, capabilities};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `NS_GET_USERNS` of `linux/nsfs.h`, `_IO(0xb7, 0x1)`: the user namespace that owns a namespace.
const NS_GET_USERNS: libc::Ioctl = 0xb701;

/// Capabilities that count in the network namespace of the calling thread.
///
/// A process can be root in a user namespace of its own and still be nobody in a network namespace
/// that it brought along from outside; then all of these are false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `CAP_NET_ADMIN`: links, addresses, routes, nftables.
    pub net_admin: bool,
    /// `CAP_NET_RAW`: packet sockets.
    pub net_raw: bool,
}

impl Capabilities {
    /// Those of the calling thread.
    pub fn current() -> io::Result<Self> {
        if !network_namespace_is_ours()? {
            return Ok(Self::default());
        }
        let effective = capabilities(None)?.effective;
        Ok(Self {
            net_admin: effective.contains(CapabilitySet::NET_ADMIN),
            net_raw: effective.contains(CapabilitySet::NET_RAW),
        })
    }
}

/// Whether the network namespace belongs to the process's user namespace or to one inside it.
fn network_namespace_is_ours() -> io::Result<bool> {
    let namespace = File::open("/proc/thread-self/ns/net")?;
    // SAFETY: the request takes no argument and the descriptor is open.
    let owner = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if owner < 0 {
        let error = io::Error::last_os_error();
        // The owner is outside the caller's user namespace (ioctl_ns(2)).
        return if error.raw_os_error() == Some(libc::EPERM) { Ok(false) } else { Err(error) };
    }
    // The kernel answers only if the owner is the caller's user namespace or one below it, and there
    // the caller's capabilities hold.
    // SAFETY: the kernel just made this descriptor, and nobody else has it.
    drop(unsafe { OwnedFd::from_raw_fd(owner) });
    Ok(true)
}
