//! What hears packets on the interface: the socket that they come in by, and memberships in the groups they are sent to.

use super::filter;
use super::interest::Interest;
use super::memberships::Memberships;
use super::packet_socket::{Accept, Receiver};
use super::plane::{Interface, Plane};
use crate::dataplane::xdp::KernelPath;
use anyhow::Context as _;
use dpr_host::{Link, LinkIndex};
use dpr_model::MacAddress;

/// Begins to hear what is of `interest`, also at other MAC addresses than the card's own.
///
/// # Errors
/// The interface is gone, or the kernel refuses.
pub(super) fn open(
    link: LinkIndex,
    interest: &Interest,
    further_macs: impl IntoIterator<Item = MacAddress>,
) -> anyhow::Result<(Receiver, Memberships)> {
    let mut memberships = Memberships::on(link.0);
    memberships.change_to(&interest.asked_for)?;
    let mut network = Receiver::open(link.0, &filter::program(interest), Accept::ForThisHost)
        .context("opening a packet socket on the interface")?;
    network.take_also(link.0, further_macs)?;
    Ok((network, memberships))
}

/// The interface as packets know it.
///
/// # Errors
/// It is not Ethernet.
pub(super) fn interface_of(link: &Link) -> anyhow::Result<Interface> {
    let mac = link.mac.with_context(|| format!("{} has no MAC address; only Ethernet will do", link.name))?;
    Ok(Interface { link: link.index, mac })
}

impl Plane {
    /// Goes on at an interface that was made anew. Sockets, memberships and the packet filter's chain were bound to the one
    /// before; connections are not.
    ///
    /// # Errors
    /// It is gone again, or the kernel refuses; then nothing has changed but the packet filter's rules.
    pub(super) fn rejoin(&mut self, link: &Link) -> anyhow::Result<()> {
        let interface = interface_of(link)?;
        if let Some(Err(error)) = self.parts.kernel.as_mut().map(KernelPath::rejoin) {
            self.go_on_without_programs(format!("{error:#}"))?;
        }
        let parts = &mut self.parts;
        let interest = &parts.interest.current;
        let (network, memberships) = open(link.index, interest, parts.shared_macs.values().copied())?;
        parts.host.rejoin()?;
        parts.diversion.change_to(interest)?;
        parts.outbox.move_to(interface)?;
        parts.network = network;
        parts.memberships = memberships;
        parts.interface = interface;
        tracing::info!(interface = link.name, "packets come in by the interface that was made anew");
        Ok(())
    }
}
