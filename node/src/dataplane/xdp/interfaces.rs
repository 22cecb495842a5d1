//! Which interfaces the programs are on: one for what comes in, every Ethernet interface for what leaves.
//!
//! Replies take the host's routes, which may lead out by another interface than requests came in by.

use super::unfinished_checksums;
use crate::config::ProgramMode;
use crate::dataplane::traces;
use anyhow::Context as _;
use dpr_host::{Link, LinkIndex, Netlink};
use dpr_model::{MacAddress, Timestamp};
use dpr_xdp::{Attached, Mode, Programs, Wanted};
use std::time::Duration;

/// How often the host's interfaces are looked at.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A cable between two namespaces. What a program in its driver sends back is taken by the other end only if there is a
/// program as well (`veth_xdp_xmit` in `drivers/net/veth.c`), and lost without a word otherwise.
pub(crate) const VETH: &str = "veth";

/// The host's interfaces as far as the programs are concerned.
pub(super) struct Interfaces {
    netlink: Netlink,
    /// Where the program for incoming packets is to run.
    mode: ProgramMode,
    /// Name of the one that service packets come in on.
    service: String,
    service_link: Link,
    /// The interface has gone, and the programs with it.
    is_away: bool,
    looked: Timestamp,
}

impl Interfaces {
    pub(super) fn open(service: &str, mode: ProgramMode) -> anyhow::Result<Self> {
        let mut netlink = Netlink::open()?;
        let service_link =
            netlink.link_by_name(service)?.with_context(|| format!("there is no interface {service}"))?;
        Ok(Self {
            netlink,
            mode,
            service: service.to_owned(),
            service_link,
            is_away: false,
            looked: Timestamp::default(),
        })
    }

    /// Index of the interface that service packets come in on.
    pub(super) fn service(&self) -> LinkIndex {
        self.service_link.index
    }

    /// Its MAC address; all zero if it has none, and then no frame is made for it.
    pub(super) fn service_mac(&self) -> MacAddress {
        self.service_link.mac.unwrap_or_default()
    }

    /// Why behind its driver packets may come without checksums.
    pub(super) fn unfinished_checksums(&self) -> Option<String> {
        unfinished_checksums(&self.service_link)
    }

    /// Attaches the programs everywhere.
    pub(super) fn attach(&mut self, programs: &mut Programs) -> anyhow::Result<Attached> {
        let is_cable = self.service_link.kind.as_deref() == Some(VETH);
        let wanted = match self.mode {
            ProgramMode::Native => Wanted::Only(Mode::Native),
            ProgramMode::Auto if !is_cable => Wanted::Best,
            ProgramMode::Auto | ProgramMode::Generic => Wanted::Only(Mode::Generic),
        };
        let attached = programs.attach(&self.service, wanted).with_context(|| {
            format!(
                "putting programs on {0}; `ip link show {0}` shows another program there, if that is the reason",
                self.service
            )
        })?;
        for link in self.netlink.links()?.iter().filter(|link| carries_replies(link)) {
            programs.attach_replies(&link.name)?;
        }
        let why_not_native = match self.mode {
            ProgramMode::Generic => Some("the configuration says so".to_owned()),
            ProgramMode::Auto if is_cable => {
                Some("the other end of a veth pair may not take its frames".to_owned())
            }
            ProgramMode::Auto | ProgramMode::Native => attached.why_not_native,
        };
        Ok(Attached { why_not_native, ..attached })
    }

    /// Looks, once a second, for interfaces that came or went. Says how the programs are attached if that is news.
    pub(super) fn follow(
        &mut self,
        programs: &mut Programs,
        now: Timestamp,
    ) -> anyhow::Result<Option<Attached>> {
        if now.since(self.looked) < LOOK_AGAIN_AFTER {
            return Ok(None);
        }
        self.looked = now;
        self.look(programs)
    }

    /// Looks now; as [`Self::follow`].
    pub(super) fn look(&mut self, programs: &mut Programs) -> anyhow::Result<Option<Attached>> {
        let links = self.netlink.links()?;
        programs.retain_interfaces(|index| links.iter().any(|link| link.index.0 == index));
        let Some(service) = links.iter().find(|link| link.name == self.service) else {
            if !std::mem::replace(&mut self.is_away, true) {
                tracing::warn!(interface = self.service, "the interface has gone, and the programs with it");
            }
            return Ok(None);
        };
        let is_new = service.index != self.service_link.index;
        self.service_link = service.clone();
        self.is_away = false;
        if is_new {
            tracing::info!(interface = self.service, "the interface is back, and gets its programs");
            return self.attach(programs).map(Some);
        }
        for link in links.iter().filter(|link| carries_replies(link)) {
            // One that went between the two questions is no reason to stop.
            if let Err(error) = programs.attach_replies(&link.name) {
                tracing::debug!(link = link.name, %error, "no program for replies on an interface");
            }
        }
        Ok(None)
    }
}

/// Whether replies of local servers may leave by an interface.
fn carries_replies(link: &Link) -> bool {
    let is_ours = [traces::LINK, traces::OTHER_END].contains(&link.name.as_str());
    link.mac.is_some() && !link.loopback && !is_ours
}
