//! The cheapest hop between two machines, beside which a director is measured.

use crate::abi::{MacKey, mac_key};
use crate::error::XdpError;
use crate::programs::{of, program};
use crate::tables::{of as in_map, take};
use crate::yardsticks;
use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::{Xdp, XdpMode};
use dpr_model::MacAddress;

/// A program on an interface that sends IPv4 on to a neighbour as it is, and decides nothing. Dropping it takes it off.
#[derive(Debug)]
pub struct Relay {
    _ebpf: Ebpf,
}

impl Relay {
    /// Puts it behind the driver of an interface of the thread's namespace.
    ///
    /// # Errors
    /// The kernel has no BPF, or does not allow it to this process, or there is no such interface.
    pub fn put(interface: &str, to: MacAddress) -> Result<Self, XdpError> {
        let mut ebpf = yardsticks::object(1)?;
        let mut relay_to: Array<MapData, MacKey> = take(&mut ebpf, "relay_to")?;
        relay_to.set(0, mac_key(to), 0).map_err(in_map("relay_to"))?;
        let relay: &mut Xdp = program(&mut ebpf, "relay")?;
        relay.load().map_err(of("relay"))?;
        relay.attach(interface, XdpMode::Skb).map_err(of("relay"))?;
        Ok(Self { _ebpf: ebpf })
    }
}
