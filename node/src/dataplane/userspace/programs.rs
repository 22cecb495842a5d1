//! The kernel's programs in front of this plane: how packets come to them, and how they come back.

use super::plane::Plane;
use crate::clock::now;
use crate::dataplane::xdp::Retired;
use dpr_model::DeliveryMode;

/// Why there are no programs in front, and what those did that were.
#[derive(Debug, Default)]
pub(super) struct Without {
    pub(super) reason: Option<String>,
    pub(super) retired: Retired,
}

impl Plane {
    /// Lets the programs see packets, if there are some.
    ///
    /// # Errors
    /// They cannot be used, and have to be.
    pub(super) fn attach_programs(&mut self, may_do_without: bool) -> anyhow::Result<()> {
        let parts = &mut self.parts;
        let Some(kernel) = &mut parts.kernel else { return Ok(()) };
        let why_not = match kernel.attach(&parts.director, now()) {
            Ok(()) => kernel.unfinished_checksums().filter(|_| may_do_without),
            Err(error) if may_do_without => Some(format!("the kernel's programs cannot be used: {error:#}")),
            Err(error) => return Err(error),
        };
        why_not.map_or(Ok(()), |reason| self.go_on_without_programs(reason))
    }

    /// Does from now on what the kernel's programs cannot go on with, and goes on with their connections.
    ///
    /// # Errors
    /// The host refuses to show this plane what they did without it.
    pub(super) fn go_on_without_programs(&mut self, reason: String) -> anyhow::Result<()> {
        let parts = &mut self.parts;
        let Some(kernel) = parts.kernel.take() else { return Ok(()) };
        // Replies first: programs that are still there translate those that come another way, and no others.
        parts.device.take_replies()?;
        let deliveries = parts.director.delivery_addresses();
        for alias in deliveries.iter().filter(|delivery| delivery.mode == DeliveryMode::Alias) {
            parts.device.take_replies_from(alias.service)?;
        }
        let retired = kernel.retire(&mut parts.director, now());
        tracing::warn!(
            reason,
            connections = retired.connections(),
            "packets go by user space until the next start; connections that the kernel's programs forwarded go on there"
        );
        parts.without = Without { reason: Some(reason), retired };
        parts.interest.forbid(parts.director.view().delivery_ranges);
        Ok(parts.diversion.change_to(&parts.interest.current)?)
    }
}
