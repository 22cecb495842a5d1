//! One thread of a process that stands still while the others go on, as on a machine that has no processor for it.

use crate::error::LabError;
use std::io;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// A thread that stands still; dropping this lets it go on.
#[derive(Debug)]
pub struct Halt {
    release: Option<mpsc::Sender<()>>,
    holder: Option<JoinHandle<()>>,
}

impl Halt {
    /// Stops the thread of this name in the process `id`; it stands when this returns.
    pub(crate) fn of(id: u32, name: &str) -> Result<Self, LabError> {
        let failed = LabError::io(|| format!("stop the thread {name} of process {id}"));
        let thread = thread_of(id, name).map_err(&failed)?;
        let (release, released) = mpsc::channel::<()>();
        let (tell, stands) = mpsc::channel();
        // Only the thread that stopped another one may let it go on (ptrace(2)).
        let hold = move || {
            let stopped = stop(thread);
            let is_stopped = stopped.is_ok();
            let _ = tell.send(stopped);
            if is_stopped {
                // Nothing is ever sent: the other end is dropped.
                let _ = released.recv();
                let _ = ptrace(libc::PTRACE_DETACH, thread);
            }
        };
        let holder = std::thread::Builder::new().name("halt".to_owned()).spawn(hold).map_err(&failed)?;
        let halt = Self { release: Some(release), holder: Some(holder) };
        stands.recv().expect("the holder tells how it went before it ends").map_err(&failed)?;
        Ok(halt)
    }
}

impl Drop for Halt {
    fn drop(&mut self) {
        self.release = None;
        if let Some(holder) = self.holder.take() {
            let _ = holder.join();
        }
    }
}

fn thread_of(process: u32, name: &str) -> io::Result<libc::pid_t> {
    for task in Path::new("/proc").join(process.to_string()).join("task").read_dir()? {
        let task = task?;
        if std::fs::read_to_string(task.path().join("comm"))?.trim_end() == name {
            let id = task.file_name().to_str().and_then(|id| id.parse().ok());
            return id.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData));
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn stop(thread: libc::pid_t) -> io::Result<()> {
    ptrace(libc::PTRACE_SEIZE, thread)?;
    ptrace(libc::PTRACE_INTERRUPT, thread)?;
    // SAFETY: no status is asked for, so that the call writes no memory.
    let waited = unsafe { libc::waitpid(thread, null_mut(), libc::__WALL) };
    if waited == thread { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn ptrace(request: libc::c_uint, thread: libc::pid_t) -> io::Result<()> {
    // SAFETY: the requests of this file take no address, and no options or signal where the data is zero.
    let result =
        unsafe { libc::ptrace(request, thread, null_mut::<libc::c_void>(), null_mut::<libc::c_void>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
