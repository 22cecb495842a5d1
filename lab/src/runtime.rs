//! One single-threaded tokio runtime per lab thread.
//!
//! Sockets belong to the namespace of the thread that makes them, so work must never wander to another thread.

use crate::error::LabError;
use crate::machine::Machine;
use std::thread::JoinHandle;

/// Runs `work` to its end on the calling thread.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs an epoll and an event descriptor only")
        .block_on(work)
}

/// Runs the future that `work` makes on a thread of its own inside `machine`.
pub(crate) fn spawn_in<F, T>(
    machine: &Machine,
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<JoinHandle<T>, LabError>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    machine.thread(name, move || run(work()))
}
