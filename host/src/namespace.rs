//! Network namespaces: separate sets of links, addresses, routes and sockets.
//!
//! Which namespace a thread is in is a property of the thread, and a socket stays for ever in the
//! one it was opened in. So work inside another namespace is done on a thread of its own, which
//! ends with the work; the caller's thread never changes.

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;

/// The network namespace of the thread that reads it (`proc(5)`).
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Why a network namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The calling thread's namespace could not be opened.
    #[error("cannot open {OWN_NAMESPACE}: {0}")]
    Open(io::Error),
    /// No namespace could be made.
    #[error("cannot create a network namespace: {0}; it takes root or a user namespace of one's own")]
    Create(io::Error),
    /// The namespace could not be entered.
    #[error("cannot enter a network namespace: {0}; it takes root or a user namespace of one's own")]
    Enter(io::Error),
    /// No thread could be started.
    #[error("cannot start a thread for a network namespace: {0}")]
    Thread(io::Error),
    /// The process could not be started.
    #[error("cannot start {program:?} in a network namespace: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
}

/// A network namespace, which lives at least as long as this value.
#[derive(Debug)]
pub struct NetNamespace {
    descriptor: OwnedFd,
}

impl NetNamespace {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NamespaceError> {
        let file = File::open(OWN_NAMESPACE).map_err(NamespaceError::Open)?;
        Ok(Self { descriptor: file.into() })
    }

    /// A new namespace with nothing in it but a loopback link, which is down.
    ///
    /// Needs `CAP_SYS_ADMIN` in the user namespace: root, or
    /// [`enter_user_namespace`](crate::enter_user_namespace) first.
    pub fn create() -> Result<Self, NamespaceError> {
        on_new_thread(|| {
            // SAFETY: only CLONE_FILES makes unshare unsafe, and it is not among the flags.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(|error| NamespaceError::Create(error.into()))?;
            Self::current()
        })?
    }

    /// Runs `work` on a new thread inside the namespace and returns what it returns.
    ///
    /// Sockets opened by `work` stay in the namespace wherever they are used later. A panic of
    /// `work` goes on in the caller.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        on_new_thread(|| {
            move_into_link_name_space(self.descriptor.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| NamespaceError::Enter(error.into()))?;
            Ok(work())
        })?
    }

    /// Starts a process inside the namespace.
    ///
    /// `command` keeps the namespace: whatever it starts later starts there too, unless told otherwise.
    /// The process's `/sys` still shows the namespace in which that was mounted; its `/proc/sys/net` shows its own.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, NamespaceError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source| NamespaceError::Spawn { program: program.clone(), source };
        let descriptor = self.descriptor.try_clone().map_err(failed)?;
        let join = move || -> io::Result<()> {
            // SAFETY: setns reads nothing of this process's memory; the descriptor is open.
            match unsafe { libc::setns(descriptor.as_raw_fd(), libc::CLONE_NEWNET) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec only setns and errno are used, which are async-signal-safe.
        unsafe { command.pre_exec(join) };
        command.spawn().map_err(failed)
    }
}

impl AsFd for NetNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Runs `work` on a thread that ends with it. `work` must not be run on the caller's thread, as it
/// changes what thread it is on.
fn on_new_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("namespace".to_owned())
            .spawn_scoped(scope, work)
            .map_err(NamespaceError::Thread)?;
        worker.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}
