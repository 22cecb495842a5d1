//! `dpr drain`, `dpr undrain`, `dpr forget`: what operators tell a running node.

use crate::cli::{DrainArgs, ForgetArgs, OrderArgs};
use crate::control::client::ask;
use crate::control::protocol::{Request, Response};
use anyhow::{Context as _, bail};
use dpr_model::NodeId;
use dpr_model::status::Status;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks at how far a drain is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How far a node is from being unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Progress {
    /// Connections that this node serves or forwards.
    open_connections: u64,
    /// Slots of shared addresses, and of those that it stands in for, that it decides about.
    slots: u64,
}

/// Has the node take no new connections, and waits until it has none.
///
/// # Errors
/// No daemon is there, it refuses, or connections are open still when the time is over.
pub(crate) fn drain(args: &DrainArgs) -> anyhow::Result<()> {
    let socket = &args.order.socket.socket;
    tell(socket, Request::Drain { draining: true })?;
    let began = Instant::now();
    let limit = Duration::from_secs(args.timeout_s.into());
    let mut shown = None;
    let progress = loop {
        let progress = progress_of(&status(socket)?);
        if progress == (Progress { open_connections: 0, slots: 0 }) || began.elapsed() >= limit {
            break progress;
        }
        if shown != Some(progress) && !args.order.json {
            crate::print(&format!("{}\n", progress.line()))?;
            shown = Some(progress);
        }
        std::thread::sleep(LOOK_EVERY);
    };
    match args.order.json {
        true => crate::print(&format!("{}\n", serde_json::to_string(&progress)?))?,
        false => crate::print(&format!("{}\n", progress.line()))?,
    }
    if progress.open_connections > 0 || progress.slots > 0 {
        bail!("the node is in use still after {} s; it goes on draining", args.timeout_s);
    }
    Ok(())
}

/// Has the node take new connections again.
///
/// # Errors
/// No daemon is there, or it refuses.
pub(crate) fn undrain(args: &OrderArgs) -> anyhow::Result<()> {
    tell(&args.socket.socket, Request::Drain { draining: false })?;
    done(args)
}

/// Has a node that is gone for good not be counted any more.
///
/// # Errors
/// No daemon is there, nobody knows the node, or it speaks still.
pub(crate) fn forget(args: &ForgetArgs) -> anyhow::Result<()> {
    let socket = &args.order.socket.socket;
    let node = find(&status(socket)?, &args.node)?;
    tell(socket, Request::Forget { node })?;
    done(&args.order)
}

fn done(args: &OrderArgs) -> anyhow::Result<()> {
    if args.json { crate::print("{\"done\":true}\n") } else { Ok(()) }
}

fn tell(socket: &Path, request: Request) -> anyhow::Result<()> {
    match ask(socket, request)? {
        Response::Done => Ok(()),
        _ => bail!(crate::UNEXPECTED),
    }
}

fn status(socket: &Path) -> anyhow::Result<Status> {
    let Response::Status(status) = ask(socket, Request::Status)? else { bail!(crate::UNEXPECTED) };
    Ok(*status)
}

fn progress_of(status: &Status) -> Progress {
    let own = status.node.id;
    let addresses = status.ownership.iter().flat_map(|ownership| &ownership.addresses);
    // What belongs to this node stays with it until it leaves.
    let lent = addresses.filter(|address| address.home != Some(own));
    let slots = lent.filter_map(|address| address.slots.get(&own)).map(|slots| u64::from(*slots)).sum();
    Progress { open_connections: status.open_connections, slots }
}

impl Progress {
    fn line(self) -> String {
        match self {
            Self { open_connections: 0, slots: 0 } => "drained".to_owned(),
            Self { open_connections, slots } => {
                format!("draining: {open_connections} open connections, {slots} slots")
            }
        }
    }
}

/// The node with this name, id or node address.
fn find(status: &Status, text: &str) -> anyhow::Result<NodeId> {
    let nodes: Vec<_> =
        std::iter::once(&status.node).chain(status.peers.iter().map(|peer| &peer.node)).collect();
    let by_name: Vec<_> = nodes.iter().filter(|node| node.name == text).collect();
    if let [node] = by_name[..] {
        return Ok(node.id);
    }
    let hexadecimal = text.strip_prefix('n').and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let by_id = |node: &&&dpr_model::status::NodeStatus| {
        node.address.to_string() == text || hexadecimal == Some(node.id.0)
    };
    let members = status.ownership.iter().flat_map(|ownership| &ownership.members);
    let found = nodes.iter().find(by_id).map(|node| node.id).or_else(|| {
        // Nobody has heard of it since this node started.
        members.map(|member| member.node).find(|node| hexadecimal == Some(node.0))
    });
    found.with_context(|| match by_name.len() {
        0 => format!("nobody knows a node {text:?}; `dpr status` shows names, ids and addresses"),
        count => format!("{count} nodes are called {text:?}; use an id or an address"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::tests::example;
    use dpr_model::status::{AddressStatus, OwnershipStatus};

    #[test]
    fn a_node_is_found_by_name_id_or_address() {
        let status = example();

        assert_eq!(find(&status, "web1").unwrap(), NodeId(1));
        assert_eq!(find(&status, "n00000002").unwrap(), NodeId(2));
        assert_eq!(find(&status, "192.0.2.11").unwrap(), NodeId(1));
        assert!(find(&status, "web9").unwrap_err().to_string().contains("web9"));
    }

    #[test]
    fn a_drained_node_decides_for_nobody_else() {
        let address = |home, slots| AddressStatus {
            address: [192, 0, 2, 99].into(),
            home,
            slots: [(NodeId(1), slots)].into(),
        };
        let own = address(Some(NodeId(1)), 4096);
        let mut ownership =
            OwnershipStatus { addresses: vec![own, address(None, 5)], ..OwnershipStatus::default() };
        let status = |ownership: &OwnershipStatus| {
            progress_of(&Status { ownership: Some(ownership.clone()), ..example() })
        };

        assert_eq!(status(&ownership).line(), "draining: 0 open connections, 5 slots");
        ownership.addresses.pop();
        assert_eq!(status(&ownership).line(), "drained");
    }
}
