//! `dpr takeover`: service addresses go to another node, or back.

use super::{Order, find, status, tell};
use crate::cli::TakeoverArgs;
use anyhow::{Context as _, bail};
use dpr_model::NodeId;
use dpr_model::status::{AddressStatus, Status};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Between two looks at the map.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long there may be no coordinator that does it: an election takes less than a second.
const ELECTION: Duration = Duration::from_secs(3);

/// Where an address is, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Moved<'a> {
    address: &'a AddressStatus,
    done: bool,
}

/// Has a node own all slots of addresses, or gives them back, and waits until the map says so.
///
/// # Errors
/// No daemon is there, nodes agree on nothing, the move is refused, or is not done when the time is over; then it goes on.
pub(crate) fn takeover(args: &TakeoverArgs) -> anyhow::Result<()> {
    let socket = &args.order.socket.socket;
    let to = match &args.to {
        Some(text) => Some(find(&status(socket)?, text)?.node),
        None => None,
    };
    let order = Order::TakeOver { addresses: args.addresses.clone(), to };
    let began = Instant::now();
    while let Err(error) = tell(socket, coordinator(&status(socket)?)?, order.clone()) {
        let is_electing = error.to_string().contains("not the coordinator");
        if !is_electing || began.elapsed() >= ELECTION {
            return Err(error);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let limit = Duration::from_secs(args.timeout_s.into());
    let status = loop {
        let status = status(socket)?;
        let is_settled = status.ownership.as_ref().is_some_and(|owned| owned.settled);
        let is_done = is_settled && moved(&status, args, to).iter().all(|moved| moved.done);
        if is_done || began.elapsed() >= limit {
            break status;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let moved = moved(&status, args, to);
    for one in &moved {
        let line = if args.order.json { serde_json::to_string(one)? } else { line(one) };
        crate::print(&format!("{line}\n"))?;
    }
    if moved.len() < args.addresses.len() || moved.iter().any(|one| !one.done) {
        bail!("not done after {} s; it goes on, `dpr status` shows how far it is", args.timeout_s);
    }
    Ok(())
}

fn coordinator(status: &Status) -> anyhow::Result<NodeId> {
    let owned = status.ownership.as_ref();
    let owned = owned.context("without [ownership] every address is its node's alone")?;
    owned.coordinator.context("there is no coordinator: too few voters hear each other")
}

fn moved<'a>(status: &'a Status, args: &TakeoverArgs, to: Option<NodeId>) -> Vec<Moved<'a>> {
    let addresses = status.ownership.iter().flat_map(|owned| &owned.addresses);
    let wanted = addresses.filter(|address| args.addresses.contains(&address.address));
    let is_done = |address: &AddressStatus| match to {
        Some(to) => address.slots.keys().eq([&to]),
        None => !address.lent && address.heir.is_none(),
    };
    wanted.map(|address| Moved { address, done: is_done(address) }).collect()
}

fn line(moved: &Moved<'_>) -> String {
    let AddressStatus { address, slots, heir, .. } = moved.address;
    let owners: Vec<String> = slots.iter().map(|(node, slots)| format!("{node} {slots} slots")).collect();
    let owners = if owners.is_empty() { "nobody".to_owned() } else { owners.join(", ") };
    match heir {
        Some(heir) => format!("{address}: {owners}; {heir} gets copies of its connections"),
        None => format!("{address}: {owners}"),
    }
}
