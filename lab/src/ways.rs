//! A client machine's ways to a shared address: it is its own router, and spreads its flows over the nodes that announce
//! the address.
//!
//! A node announces it while it may decide for it, clients reach it, and it does not drain: `examples/bird` has BIRD do the
//! same. A dead or stopped node is missed as fast as with BFD. While nobody announces, the last ways stay.

use crate::control::Control;
use crate::error::LabError;
use crate::ip_version::IpVersion;
use crate::machine::Machine;
use crate::node::Node;
use dpr_host::{IpPrefix, Netlink, NetlinkError};
use dpr_model::NodeState;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two questions to all nodes.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// Who has not answered by then announces nothing.
const PATIENCE: Duration = Duration::from_millis(300);

/// The ways, for as long as this lives; then they stay as they are.
#[derive(Debug)]
pub struct Ways {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A node, as far as a router knows it.
#[derive(Debug)]
struct Announcer {
    name: String,
    socket: PathBuf,
    gateway: IpAddr,
}

impl Ways {
    /// Has `machine` follow what these nodes announce, all with the same service address. Ways are there when this returns,
    /// if anybody announces already.
    ///
    /// # Errors
    ///
    /// The host refuses routes, or a node has no address of the service's IP version.
    pub fn follow(machine: &Machine, nodes: &[Node]) -> Result<Self, LabError> {
        let Some(service) = nodes.first().map(|node| node.service().ip()) else {
            return Ok(Self { stop: Arc::default(), thread: None });
        };
        let announcers =
            nodes.iter().map(|node| Announcer::of(node, service)).collect::<Result<Vec<_>, _>>()?;
        machine.exec(spread_by_ports)??;
        let mut ways = Vec::new();
        machine
            .exec(|| renew(&announcers, service, &mut ways))?
            .map_err(LabError::host(&format!("lay ways to {service}")))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = machine.thread("ways", move || {
            while !stopped.load(Ordering::Acquire) {
                renew(&announcers, service, &mut ways)
                    .expect("the lab's own namespace takes other routes too");
                std::thread::sleep(ASK_INTERVAL);
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Announcer {
    fn of(node: &Node, service: IpAddr) -> Result<Self, LabError> {
        let version = IpVersion::of(service);
        let missing = || LabError::NoAddress { machine: node.name().to_owned(), version: version.label() };
        Ok(Self {
            name: node.name().to_owned(),
            socket: node.control_socket(),
            gateway: node.machine().address_in(version).ok_or_else(missing)?,
        })
    }

    fn announces(&self) -> bool {
        let control = Control { node: &self.name, socket: &self.socket, patience: PATIENCE };
        control.status().is_ok_and(|status| {
            let owned = status.ownership.unwrap_or_default();
            owned.promised_ms.is_some() && !owned.cut_off && status.node.state == NodeState::Active
        })
    }
}

/// Asks all nodes, and lays other ways if the answers are others than before.
fn renew(announcers: &[Announcer], service: IpAddr, ways: &mut Vec<IpAddr>) -> Result<(), NetlinkError> {
    // All at once: one that does not answer would hold up what the others say.
    let announced: Vec<bool> = std::thread::scope(|scope| {
        let asked: Vec<_> = announcers.iter().map(|node| scope.spawn(|| node.announces())).collect();
        asked.into_iter().map(|answer| answer.join().unwrap_or(false)).collect()
    });
    let gateways = announcers.iter().zip(announced).filter(|(_, announces)| *announces);
    let wanted: Vec<IpAddr> = gateways.map(|(node, _)| node.gateway).collect();
    if wanted.is_empty() || wanted == *ways {
        return Ok(());
    }
    Netlink::open()?.replace_route_by_several(IpPrefix::host(service), &wanted)?;
    *ways = wanted;
    Ok(())
}

/// One machine's connections are to be spread, so ports have to count.
fn spread_by_ports() -> Result<(), LabError> {
    for version in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{version}/fib_multipath_hash_policy");
        std::fs::write(&path, "1").map_err(LabError::io(|| format!("write {path}")))?;
    }
    Ok(())
}
