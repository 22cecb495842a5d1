//! What clients do.

use serde::Serialize;

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Load {
    /// A connection for each small file.
    NewConnections,
    /// A small file again and again on connections that stay.
    KeepAlive,
    /// A large file again and again on connections that stay.
    Downloads,
}

impl Load {
    /// In the order of their numbers.
    pub(super) const ALL: [Self; 3] = [Self::NewConnections, Self::KeepAlive, Self::Downloads];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::NewConnections => "new connections, 1 KiB",
            Self::KeepAlive => "requests, 1 KiB",
            Self::Downloads => "downloads, 1 MiB",
        }
    }

    /// Bytes of the file that is asked for.
    pub(super) fn length(self) -> usize {
        match self {
            Self::NewConnections | Self::KeepAlive => 1 << 10,
            Self::Downloads => 1 << 20,
        }
    }

    /// Its name on the server.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::NewConnections | Self::KeepAlive => "small",
            Self::Downloads => "large",
        }
    }

    /// Whether each request has a connection of its own.
    pub(super) fn closes(self) -> bool {
        self == Self::NewConnections
    }
}
