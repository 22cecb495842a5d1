//! What real servers say of connections reaches the programs.

use crate::packets::{busy_update, flow_of, segment};
use crate::world::{Kernel, NODE, World, ticks_now};
use dpr_conntrack::TcpState;
use dpr_director::{PolicyKind, Settled};
use dpr_model::FlowKey;
use dpr_rewrite::tcp::flag;
use dpr_xdp::abi::TICK_SHIFT;
use dpr_xdp::{Connections, Sizes, Timeouts};
use std::time::Duration;

const SIZES: Sizes = Sizes { flows: 64, half_open: 64 };
const CLIENT: u32 = 9;
const XDP_TX: u32 = 3;

fn flow() -> FlowKey {
    flow_of(CLIENT)
}

pub(crate) fn only_of_the_connection_that_is_meant() {
    let mut kernel = Kernel::load(SIZES);
    let mut world = World::new(busy_update(PolicyKind::Lightest, [(1, 100)]), 1);
    world.tell(&mut kernel, true);
    let timeouts = Timeouts::default();
    let send = |kernel: &mut Kernel, flags| kernel.programs.run(&segment(CLIENT, flags)).unwrap().action;
    assert_eq!(send(&mut kernel, flag::SYN), XDP_TX);
    let entry_of = |kernel: &Kernel, now| world.mirror.entry_of(&kernel.tables, &flow(), now).unwrap();
    assert_eq!(entry_of(&kernel, ticks_now()), None, "half-open");
    assert_eq!(send(&mut kernel, flag::ACK), XDP_TX);
    let known = entry_of(&kernel, ticks_now()).unwrap();
    assert_eq!(known.state, TcpState::Established);
    // Twelve days later.
    assert_eq!(entry_of(&kernel, ticks_now().wrapping_add(1 << 30)), None, "over");
    let meant =
        Settled { flow: flow(), generation: known.generation, real_server: known.real_server, is_over: true };
    let settle = |kernel: &mut Kernel, settled: &Settled| {
        world.mirror.settle(&mut kernel.tables, settled, (&timeouts, ticks_now())).unwrap();
        let entry = kernel.tables.connection(Connections::Flows, &flow()).unwrap().unwrap();
        let left = u64::try_from(entry.ticks_left(ticks_now())).unwrap() << TICK_SHIFT;
        (entry_of(kernel, ticks_now()).unwrap().state, Duration::from_nanos(left))
    };
    let is_about =
        |left: Duration, timeout: Duration| left <= timeout && left + Duration::from_secs(1) > timeout;

    for other in [
        Settled { generation: known.generation.wrapping_add(1), ..meant },
        Settled { real_server: dpr_model::NodeId::from_address(NODE.into()), ..meant },
    ] {
        assert_eq!(settle(&mut kernel, &other).0, TcpState::Established);
    }
    let (state, left) = settle(&mut kernel, &Settled { is_over: false, ..meant });
    assert!(state == TcpState::Established && is_about(left, timeouts.established), "{state:?} {left:?}");
    let (state, left) = settle(&mut kernel, &meant);
    assert!(state == TcpState::Closed && is_about(left, timeouts.close), "{state:?} {left:?}");

    // Stragglers go where the connection was, and do not revive it.
    assert_eq!(send(&mut kernel, flag::ACK), XDP_TX);
    assert_eq!(settle(&mut kernel, &meant).0, TcpState::Closed);
    // What is gone stays gone, and may go twice: a program may have deleted it meanwhile.
    kernel.tables.remove(Connections::Flows, &flow()).unwrap();
    kernel.tables.remove(Connections::Flows, &flow()).unwrap();
    world.mirror.settle(&mut kernel.tables, &meant, (&timeouts, ticks_now())).unwrap();
    assert_eq!(kernel.tables.connection(Connections::Flows, &flow()).unwrap(), None);
}
