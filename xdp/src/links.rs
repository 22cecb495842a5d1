//! Links between programs and interfaces, and which of them outlive the process.

use crate::error::XdpError;
use crate::pins::Pins;
use aya::programs::ProgramError;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Links that are held, by kind and interface index. Dropping one that is not pinned detaches its program.
#[derive(Debug, Default)]
pub(crate) struct Links {
    held: BTreeMap<(&'static str, u32), Held>,
}

#[derive(Debug)]
struct Held {
    /// `None` where the program itself holds it.
    _link: Option<FdLink>,
    pinned_at: Option<PathBuf>,
}

impl Links {
    /// The link that an earlier daemon pinned, for a program to be put into; `None` when there is none.
    pub(crate) fn found(pins: Option<&Pins>, kind: &'static str, index: u32) -> Option<FdLink> {
        let path = pins?.link(kind, index);
        Some(PinnedLink::from_pin(path).ok()?.into())
    }

    /// Ends the link that an earlier daemon pinned. True if there was one: its program leaves the interface a moment later, when
    /// the kernel lets go of the pin (after an RCU grace period).
    pub(crate) fn end_found(pins: Option<&Pins>, kind: &'static str, index: u32) -> bool {
        pins.is_some_and(|pins| fs::remove_file(pins.link(kind, index)).is_ok())
    }

    /// Keeps a link that was found, with another program in it, or one that the program holds.
    pub(crate) fn keep(&mut self, kind: &'static str, index: u32, link: Option<FdLink>, pins: Option<&Pins>) {
        let pinned_at = pins.map(|pins| pins.link(kind, index));
        self.held.insert((kind, index), Held { _link: link, pinned_at });
    }

    /// Keeps a new link, pinned where there is a place for it.
    pub(crate) fn add(
        &mut self,
        kind: &'static str,
        index: u32,
        link: FdLink,
        pins: Option<&Pins>,
    ) -> Result<(), XdpError> {
        let Some(path) = pins.map(|pins| pins.link(kind, index)) else {
            self.keep(kind, index, Some(link), None);
            return Ok(());
        };
        // Of an interface that is gone, or in a state that nothing can be put into.
        let _ = fs::remove_file(&path);
        let pinned = link.pin(&path).map_err(|error| XdpError::Pin { path, error })?;
        self.keep(kind, index, Some(pinned.into()), pins);
        Ok(())
    }

    /// True when there is a link of this kind to the interface.
    pub(crate) fn has(&self, kind: &'static str, index: u32) -> bool {
        self.held.contains_key(&(kind, index))
    }

    /// Lets go of every link that is not to one of the interfaces that `is_there` says are there.
    pub(crate) fn retain(&mut self, is_there: impl Fn(u32) -> bool) {
        self.held.retain(|(_, index), held| {
            is_there(*index) || {
                unpin(held);
                false
            }
        });
    }

    /// Lets go of all links: the programs leave their interfaces.
    pub(crate) fn release(&mut self) {
        self.retain(|_| false);
    }
}

fn unpin(held: &Held) {
    if let Some(path) = &held.pinned_at {
        // Somebody may have done it by hand.
        let _ = fs::remove_file(path);
    }
}

/// What a conversion between kinds of links says, as a program's error.
pub(crate) fn link_error(error: LinkError) -> ProgramError {
    match error {
        LinkError::SyscallError(error) => ProgramError::SyscallError(error),
        // A link of another kind, which nothing here makes.
        _ => ProgramError::NotAttached,
    }
}
