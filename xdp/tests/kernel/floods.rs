//! SYNs that nobody means.

use crate::packets::{busy_world, open, send};
use crate::world::{Kernel, counts_of};
use dpr_director::PolicyKind;
use dpr_rewrite::tcp::flag;
use dpr_xdp::{Connections, Sizes};
use std::net::Ipv4Addr;

const SIZES: Sizes = Sizes { flows: 8192, half_open: 4096 };
/// Clients that mean it.
const CLIENTS: u32 = 500;
/// The first of those that do not.
const STRANGERS_FROM: u32 = 1 << 16;
const SYNS: u32 = 8 * SIZES.half_open;
const SERVERS: u32 = 3;

/// A director that has been flooded.
fn flooded(before: impl FnOnce(&mut Kernel)) -> Kernel {
    let mut kernel = Kernel::load(SIZES);
    let mut world = busy_world(PolicyKind::LocalEstimates, (1..=SERVERS).map(|nth| (nth, 100)));
    world.tell(&mut kernel, true);
    before(&mut kernel);
    for stranger in STRANGERS_FROM..STRANGERS_FROM + SYNS {
        open(&mut kernel, stranger);
    }
    kernel
}

fn open_all(kernel: &mut Kernel) -> Vec<Ipv4Addr> {
    (0..CLIENTS).map(|client| open(kernel, client)).collect()
}

/// Where the clients' next segment goes.
fn go_on(kernel: &mut Kernel) -> Vec<Ipv4Addr> {
    (0..CLIENTS).map(|client| send(kernel, client, flag::ACK)).collect()
}

fn count(kernel: &Kernel, connections: Connections) -> usize {
    kernel.tables.connections(connections, usize::MAX).unwrap().len()
}

pub(crate) fn displace_nothing() {
    let (mut established, mut half_open) = (Vec::new(), Vec::new());
    let mut kernel = flooded(|kernel| {
        established = open_all(kernel);
        assert_eq!(go_on(kernel), established);
        assert_eq!(count(kernel, Connections::Flows), CLIENTS as usize);
        half_open = (CLIENTS..2 * CLIENTS).map(|client| open(kernel, client)).collect();
    });

    assert!(count(&kernel, Connections::HalfOpen) <= SIZES.half_open as usize);
    assert_eq!(go_on(&mut kernel), established);
    let answers: Vec<_> = (CLIENTS..2 * CLIENTS).map(|client| send(&mut kernel, client, flag::ACK)).collect();
    assert_eq!(answers, half_open);
    assert_eq!(count(&kernel, Connections::Flows), 2 * CLIENTS as usize);
}

pub(crate) fn get_no_entries() {
    let kernel = flooded(|_| {});

    let counters = kernel.tables.counters().unwrap();
    let entries = count(&kernel, Connections::HalfOpen) as u64;
    assert_eq!(counters.syns_without_entry + entries, u64::from(SYNS));
    assert!(entries < u64::from(SIZES.half_open), "{entries}");
    assert_eq!(counters.connections_forwarded, u64::from(SYNS));
    for server in 1..=SERVERS as u16 {
        let share = counts_of(&kernel, server).sent;
        assert!(share.abs_diff(u64::from(SYNS / SERVERS)) < u64::from(SYNS / 20), "{share}");
    }
}

pub(crate) fn let_clients_in() {
    let mut kernel = flooded(|_| {});
    let before = count(&kernel, Connections::HalfOpen);

    let servers = open_all(&mut kernel);

    assert_eq!(open_all(&mut kernel), servers, "a SYN that is sent again goes the same way");
    assert_eq!(count(&kernel, Connections::HalfOpen), before);
    assert_eq!(go_on(&mut kernel), servers, "so does the ACK");
    assert_eq!(go_on(&mut kernel), servers);
    assert_eq!(count(&kernel, Connections::Flows), CLIENTS as usize);
}
