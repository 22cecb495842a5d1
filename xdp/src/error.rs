//! What can go wrong between user space and the kernel's programs.

use aya::EbpfError;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::ProgramError;
use std::io;
use std::path::PathBuf;

/// Why the kernel's packet path cannot be used, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// The object was refused.
    #[error("loading the BPF object: {0}")]
    Object(#[from] EbpfError),
    /// The object has no such program or map: it is of another build.
    #[error("the BPF object has no {0}")]
    Missing(&'static str),
    /// A program was refused, or could not be attached or run.
    #[error("BPF program {name}: {source}")]
    Program {
        /// Which one.
        name: &'static str,
        /// Why.
        source: ProgramError,
    },
    /// A map could not be read or written.
    #[error("BPF map {name}: {source}")]
    Map {
        /// Which one.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// A program that was measured did not do what it was measured for.
    #[error("BPF program {0} did not handle its packets")]
    Aborted(&'static str),
    /// A directory for pinned maps and links is not where it could be used.
    #[error("{0} is not in a BPF file system")]
    NoBpfFileSystem(PathBuf),
    /// The directory of pinned maps and links could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Pins {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A link could not be pinned.
    #[error("pinning {path}: {error}", path = path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        error: PinError,
    },
    /// The maps that were found are not of this node.
    #[error("the pinned maps are of another node")]
    OtherNode,
    /// The entries of a map could not be listed.
    #[error("listing a BPF map: {0}")]
    Listing(#[source] io::Error),
}
