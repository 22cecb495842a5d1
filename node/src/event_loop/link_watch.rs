//! Watching for a cluster interface that is made anew: a driver is loaded again, a bond or a VLAN built again.
//!
//! Name and address come back, the kernel's number is another one, and sockets stay bound to the one before without a word.

use super::EventLoop;
use crate::cluster_link::{BoundToLink, cluster_link};
use dpr_host::{Link, LinkIndex, Netlink};
use dpr_model::Timestamp;
use std::time::Duration;

/// How often the host is asked.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Which interface everything is bound to.
#[derive(Debug)]
pub(super) struct LinkWatch {
    bound_to: LinkIndex,
    look_at: Timestamp,
}

impl LinkWatch {
    /// Everything is bound to this one.
    pub(super) fn of(bound_to: LinkIndex, now: Timestamp) -> Self {
        Self { bound_to, look_at: now + LOOK_AGAIN_AFTER }
    }
}

impl EventLoop {
    /// Binds everything anew that was bound to an interface that is gone, once the node address is on one again.
    pub(super) fn follow_link(&mut self, now: Timestamp) {
        if now < self.link.look_at {
            return;
        }
        self.link.look_at = now + LOOK_AGAIN_AFTER;
        // While there is none, whoever sends says so.
        let Some(link) = self.another_link() else { return };
        match self.rejoin(&link) {
            Ok(()) => {
                tracing::info!(interface = link.name, "the interface was made anew; the node is there again");
                self.link.bound_to = link.index;
            }
            Err(error) => {
                tracing::warn!(error = %format_args!("{error:#}"), "the new interface cannot be used yet");
            }
        }
    }

    /// The interface of the same name, if it is another one and has the node address. To see that it is still the same one takes one
    /// short question, however many addresses the host has.
    fn another_link(&self) -> Option<Link> {
        let is_another = |link: &Link| link.index != self.link.bound_to && link.name == self.view.interface();
        let named =
            Netlink::open().and_then(|mut netlink| netlink.link_by_name(self.view.interface())).ok()??;
        if !is_another(&named) {
            return None;
        }
        cluster_link(self.view.config()).ok().filter(is_another)
    }

    fn rejoin(&mut self, link: &Link) -> anyhow::Result<()> {
        let BoundToLink { socket, foreign, paths } = BoundToLink::open(self.view.config(), link)?;
        self.cluster.speak_by(socket, foreign);
        self.view.measure_by(paths);
        self.plane.rejoin(link.clone());
        Ok(())
    }
}
