//! `dpr drain`, `dpr undrain`, `dpr forget`, `dpr takeover`: what operators tell running nodes, this one or others.

mod ledger;
mod message;
mod takeover;

pub(crate) use ledger::{Judgement, Ledger};
pub(crate) use message::{ADDRESSES_MAX, Message, Order, Progress, is_about_orders};
pub(crate) use takeover::takeover;

use crate::cli::{DrainArgs, ForgetArgs, NodesArgs, OrderArgs, UndrainArgs};
use crate::control::client::ask;
use crate::control::protocol::{Request, Response};
use anyhow::{Context as _, bail};
use dpr_model::status::{NodeStatus, Status};
use dpr_model::{NodeId, NodeState};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks at how far a drain is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How far a node is from being unused, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Shown {
    node: NodeId,
    name: String,
    state: NodeState,
    /// Connections that it serves or forwards.
    open_connections: u64,
    /// Slots of shared addresses, and of those that it stands in for, that it decides about.
    slots: u64,
    /// Connections were counted after its peers had heard that it drains.
    #[serde(skip)]
    is_current: bool,
}

/// A node that is told something.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    node: NodeId,
    name: String,
}

/// Has nodes take no new connections, and waits until they have none.
///
/// # Errors
/// No daemon is there, a node is not known, does not answer or refuses, or connections are open still when the time is over.
/// Those that do as they were told do so all the same.
pub(crate) fn drain(args: &DrainArgs) -> anyhow::Result<()> {
    let socket = &args.order.socket.socket;
    let (mut targets, mut problems) = tell_each(socket, &args.nodes, &Order::Drain)?;
    let began = Instant::now();
    let limit = Duration::from_secs(args.timeout_s.into());
    let mut before: Vec<Shown> = Vec::new();
    let shown = loop {
        let shown = look_at(socket, &mut targets, &mut problems)?;
        if shown.iter().all(Shown::is_drained) || began.elapsed() >= limit {
            break shown;
        }
        if !args.order.json {
            for node in shown.iter().filter(|node| !before.contains(node)) {
                crate::print(&format!("{}\n", node.line()))?;
            }
        }
        before = shown;
        std::thread::sleep(LOOK_EVERY);
    };
    for node in &shown {
        let line = if args.order.json { serde_json::to_string(node)? } else { node.line() };
        crate::print(&format!("{line}\n"))?;
    }
    let late: Vec<&str> =
        shown.iter().filter(|node| !node.is_drained()).map(|node| node.name.as_str()).collect();
    // Who does not want to wait knows.
    if !late.is_empty() && !limit.is_zero() {
        problems.push(format!(
            "in use still after {} s, and draining on: {}",
            args.timeout_s,
            late.join(", ")
        ));
    }
    end(&problems)
}

/// Has nodes take new connections again.
///
/// # Errors
/// No daemon is there, a node is not known, does not answer or refuses.
pub(crate) fn undrain(args: &UndrainArgs) -> anyhow::Result<()> {
    let (_, problems) = tell_each(&args.order.socket.socket, &args.nodes, &Order::Undrain)?;
    end(&problems)?;
    done(&args.order)
}

/// Has a node that is gone for good not be counted any more, by any node that is there.
///
/// # Errors
/// No daemon is there, nobody knows the node, it speaks still, or others than the asked one do not answer.
pub(crate) fn forget(args: &ForgetArgs) -> anyhow::Result<()> {
    let socket = &args.order.socket.socket;
    let status = status(socket)?;
    let node = find(&status, &args.node)?.node;
    // If it speaks, this one knows; then nobody else is told.
    tell(socket, status.node.id, Order::Forget(node))?;
    let others = status.peers.iter().filter(|peer| peer.alive && peer.node.id != node);
    let told = others.map(|peer| tell(socket, peer.node.id, Order::Forget(node)));
    let problems: Vec<String> = told.filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    end(&problems)?;
    done(&args.order)
}

fn done(args: &OrderArgs) -> anyhow::Result<()> {
    if args.json { crate::print("{\"done\":true}\n") } else { Ok(()) }
}

fn end(problems: &[String]) -> anyhow::Result<()> {
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("; ")) }
}

/// Tells each of the nodes. Those that did as they were told, and what was wrong with others.
fn tell_each(socket: &Path, args: &NodesArgs, order: &Order) -> anyhow::Result<(Vec<Target>, Vec<String>)> {
    let status = status(socket)?;
    // First all names, so that a mistyped one stops everything before anything is done.
    let mut targets = match args.nodes.is_empty() {
        true => vec![Target::of(&status.node)],
        false => args.nodes.iter().map(|text| find(&status, text)).collect::<anyhow::Result<Vec<_>>>()?,
    };
    let mut problems = Vec::new();
    targets.retain(|target| match tell(socket, target.node, order.clone()) {
        Ok(_) => true,
        Err(error) => {
            problems.push(format!("{}: {error:#}", target.name));
            false
        }
    });
    Ok((targets, problems))
}

/// How far nodes are. One that has ended in the meantime is a problem, and is looked at no more.
fn look_at(
    socket: &Path,
    targets: &mut Vec<Target>,
    problems: &mut Vec<String>,
) -> anyhow::Result<Vec<Shown>> {
    let mut reports = Vec::new();
    targets.retain(|target| match tell(socket, target.node, Order::Report) {
        Ok(progress) => {
            reports.push((target.clone(), progress));
            true
        }
        Err(error) => {
            problems.push(format!("{}: {error:#}", target.name));
            false
        }
    });
    let status = status(socket)?;
    Ok(reports.into_iter().map(|(target, progress)| Shown::new(target, progress, &status)).collect())
}

fn tell(socket: &Path, node: NodeId, order: Order) -> anyhow::Result<Progress> {
    match ask(socket, &Request::Tell { node, order })? {
        Response::Told(progress) => Ok(progress),
        _ => bail!(crate::UNEXPECTED),
    }
}

fn status(socket: &Path) -> anyhow::Result<Status> {
    let Response::Status(status) = ask(socket, &Request::Status)? else { bail!(crate::UNEXPECTED) };
    Ok(*status)
}

impl Target {
    fn of(node: &NodeStatus) -> Self {
        Self { node: node.id, name: crate::render::printable(&node.name) }
    }
}

impl Shown {
    fn new(target: Target, progress: Progress, status: &Status) -> Self {
        let Target { node, name } = target;
        let addresses = status.ownership.iter().flat_map(|ownership| &ownership.addresses);
        // What belongs to a node stays with it until it leaves.
        let lent = addresses.filter(|address| address.home != Some(node));
        let slots = lent.filter_map(|address| address.slots.get(&node)).map(|slots| u64::from(*slots)).sum();
        let Progress { state, open_connections, is_current } = progress;
        Self { node, name, state, open_connections, slots, is_current }
    }

    fn is_drained(&self) -> bool {
        self.is_current && self.open_connections == 0 && self.slots == 0
    }

    fn line(&self) -> String {
        let Self { name, open_connections, slots, .. } = self;
        match self.is_drained() {
            true => format!("{name}: drained"),
            false => format!("{name}: draining, {open_connections} open connections, {slots} slots"),
        }
    }
}

/// The node with this name, id or node address.
fn find(status: &Status, text: &str) -> anyhow::Result<Target> {
    let nodes: Vec<&NodeStatus> =
        std::iter::once(&status.node).chain(status.peers.iter().map(|peer| &peer.node)).collect();
    let by_name: Vec<_> = nodes.iter().filter(|node| node.name == text).collect();
    if let [node] = by_name[..] {
        return Ok(Target::of(node));
    }
    let hexadecimal = text.strip_prefix('n').and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let by_id = |node: &&&NodeStatus| node.address.to_string() == text || hexadecimal == Some(node.id.0);
    let members = status.ownership.iter().flat_map(|ownership| &ownership.members);
    let found = nodes.iter().find(by_id).map(|node| Target::of(node)).or_else(|| {
        // Nobody has heard of it since this node started.
        let node = members.map(|member| member.node).find(|node| hexadecimal == Some(node.0))?;
        Some(Target { node, name: node.to_string() })
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

        assert_eq!(find(&status, "web1").unwrap().node, NodeId(1));
        assert_eq!(find(&status, "n00000002").unwrap().node, NodeId(2));
        assert_eq!(find(&status, "192.0.2.11").unwrap().node, NodeId(1));
        assert!(find(&status, "web9").unwrap_err().to_string().contains("web9"));
    }

    #[test]
    fn a_drained_node_decides_for_nobody_else() {
        let address = |home, slots| AddressStatus {
            address: [192, 0, 2, 99].into(),
            home,
            slots: [(NodeId(1), slots)].into(),
            lent: false,
            heir: None,
        };
        let own = address(Some(NodeId(1)), 4096);
        let mut ownership =
            OwnershipStatus { addresses: vec![own, address(None, 5)], ..OwnershipStatus::default() };
        let line = |ownership: &OwnershipStatus| {
            let status = Status { ownership: Some(ownership.clone()), ..example() };
            let progress = Progress { state: NodeState::Draining, open_connections: 0, is_current: true };
            Shown::new(Target::of(&status.node), progress, &status).line()
        };

        assert_eq!(line(&ownership), "web1: draining, 0 open connections, 5 slots");
        ownership.addresses.pop();
        assert_eq!(line(&ownership), "web1: drained");
    }
}
