//! What can go wrong while a lab is built and used.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the lab cannot do something. The text names the cause as well, so there is no chain of sources to print.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The operating system refused.
    #[error("cannot {doing}: {reason}")]
    Io {
        /// What was attempted.
        doing: String,
        /// What it said.
        reason: io::Error,
    },
    /// Namespaces, links, addresses or routes could not be made.
    #[error("cannot {doing}: {reason}")]
    Host {
        /// What was attempted.
        doing: String,
        /// What the host said.
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A daemon ended although it should run.
    #[error("the daemon of {node} ended with {status}; the end of its log {log}:\n{tail}")]
    DaemonEnded {
        /// Name of the node.
        node: String,
        /// Its exit status.
        status: String,
        /// Where its log is.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// A machine does not speak an IP version that is needed.
    #[error("{machine} has no {version} address")]
    NoAddress {
        /// Name of the machine.
        machine: String,
        /// The IP version.
        version: &'static str,
    },
    /// The daemon does not run.
    #[error("no daemon runs on {node}")]
    NoDaemon {
        /// Name of the node.
        node: String,
    },
    /// Something did not become true in time.
    #[error("waited {waited:?} for {what}: {last}")]
    Waited {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// What was seen last.
        last: String,
    },
    /// A daemon answered its control socket with something else than was asked for.
    #[error("{node} answered {request} with {answer}")]
    Control {
        /// Name of the node.
        node: String,
        /// What was asked.
        request: String,
        /// What came back.
        answer: String,
    },
    /// A node's configuration cannot be written as TOML.
    #[error("configuration of {node}: {reason}")]
    Configuration {
        /// Name of the node.
        node: String,
        /// Why.
        reason: toml::ser::Error,
    },
    /// A number is outside of what the lab's network has room for.
    #[error("{what} {number} is not within 1 to {max}")]
    OutOfRange {
        /// What is counted.
        what: &'static str,
        /// The number asked for.
        number: u8,
        /// The greatest that fits.
        max: u8,
    },
}

impl LabError {
    /// Wraps an I/O error with what was attempted.
    pub(crate) fn io(doing: impl Fn() -> String) -> impl Fn(io::Error) -> Self {
        move |reason| Self::Io { doing: doing(), reason }
    }

    /// Wraps an error of the host crate with what was attempted.
    pub(crate) fn host<E>(doing: &str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let doing = doing.to_owned();
        move |reason| Self::Host { doing, reason: Box::new(reason) }
    }
}
