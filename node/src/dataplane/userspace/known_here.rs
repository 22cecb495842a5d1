//! What this node knows of connections beside its director: its sockets do, and the kernel's programs.

use super::kernel_sockets::KernelSockets;
use super::plane::Parts;
use crate::dataplane::xdp::KernelPath;
use dpr_conntrack::EntryView;
use dpr_director::{Director, LocalSockets};
use dpr_model::{ClientSocket, FlowKey, Protocol, ServiceSocket};

/// Both, for as long as one question takes.
pub(super) struct KnownHere<'a> {
    sockets: &'a mut KernelSockets,
    programs: Option<&'a KernelPath>,
}

impl Parts {
    /// The director, and whom it may ask.
    pub(super) fn director_and_known(&mut self) -> (&mut Director, KnownHere<'_>) {
        let Self { director, sockets, kernel, .. } = self;
        (director, KnownHere { sockets, programs: kernel.as_ref() })
    }
}

impl LocalSockets for KnownHere<'_> {
    fn holds(&mut self, protocol: Protocol, local: ServiceSocket, client: ClientSocket) -> bool {
        self.sockets.holds(protocol, local, client)
    }

    fn lacks(&mut self, protocol: Protocol, local: ServiceSocket, client: ClientSocket) -> bool {
        self.sockets.lacks(protocol, local, client)
    }

    fn entry_elsewhere(&mut self, flow: &FlowKey) -> Option<EntryView> {
        self.programs?.entry_of(flow)
    }
}
