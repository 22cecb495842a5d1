//! What entries of connections take in the kernel.

use dpr_model::{ClientSocket, FlowKey, Protocol, ServiceSocket};
use dpr_xdp::abi::FlowEntry;
use dpr_xdp::{Connections, Sizes};
use std::net::Ipv6Addr;

const ENTRIES: u32 = 1 << 16;
/// Goals, bytes, of IPv4 and IPv6.
const MOST: [u64; 2] = [128, 160];

pub(crate) fn per_entry() {
    let sizes = Sizes { flows: ENTRIES, half_open: ENTRIES };
    let (_, mut tables) = dpr_xdp::load(sizes, None).unwrap();
    // Of this one, memory is taken as it is needed.
    for nth in 0..ENTRIES {
        tables.insert(Connections::Flows, &flow(nth), &FlowEntry::default()).unwrap();
    }

    for table in Connections::ALL {
        let memory = tables.memory_bytes(table).unwrap();
        for ((name, bytes), most) in table.names().into_iter().zip(memory).zip(MOST) {
            // Before Linux 6.4 the kernel does not say.
            let Some(bytes) = bytes else { continue };
            let per_entry = bytes / u64::from(ENTRIES);
            println!("{name}: {per_entry} bytes per entry");
            assert!(per_entry <= most, "{name}: {per_entry} bytes per entry");
        }
    }
}

fn flow(nth: u32) -> FlowKey {
    let client = Ipv6Addr::from((0x2001_0db8_u128 << 96) + u128::from(nth));
    FlowKey {
        protocol: Protocol::Tcp,
        client: ClientSocket { address: client.into(), port: 1024 },
        service: ServiceSocket { address: Ipv6Addr::LOCALHOST.into(), port: 80 },
    }
}
