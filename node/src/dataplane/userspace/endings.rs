//! Ends of the local stack's connections, for the director that has them told to others.

use dpr_director::Director;
use dpr_host::sock_diag::{DestroyedSockets, Heard};

/// Notifications that are heard in a row, so that packets get their turn: 200,000 in a second.
const HEARD_IN_A_ROW: usize = 4096;

/// Hears of sockets that are no more, where the kernel tells it.
pub(super) struct Endings(Option<DestroyedSockets>);

impl Endings {
    /// Starts to listen.
    pub(super) fn open() -> Self {
        let warn = |error: &_| {
            tracing::warn!(%error, "directors do not hear of connections that end here: they ask, half a minute later");
        };
        Self(DestroyedSockets::open().inspect_err(warn).ok())
    }

    /// Tells `director` which connections have ended. What the kernel had no room for, the directors of these connections find by
    /// asking.
    pub(super) fn report(&mut self, director: &mut Director) {
        let Some(destroyed) = &mut self.0 else { return };
        let heard = destroyed.hear(HEARD_IN_A_ROW, |local, client| director.note_ended(local, client));
        match heard {
            Ok(Heard::All | Heard::Some) => {}
            Ok(Heard::SomeLost) => director.note_endings_missed(),
            Err(error) => tracing::debug!(%error, "the end of a socket is not understood"),
        }
    }
}
