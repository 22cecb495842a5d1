//! Slots of the addresses that no node holds, in two banks.

use super::{of, take};
use crate::abi::{SLOTS_MAX, Slot};
use crate::error::XdpError;
use aya::Ebpf;
use aya::maps::{Array, MapData};

/// The map, and what was written into each bank.
pub(super) struct Slots {
    map: Array<MapData, Slot>,
    written: [Vec<Slot>; 2],
}

impl Slots {
    /// Takes the map out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, XdpError> {
        Ok(Self { map: take(ebpf, "slots")?, written: [Vec::new(), Vec::new()] })
    }

    /// Makes a bank hold `slots`, which must not be in use; what is beyond them nobody looks at.
    pub(super) fn write(&mut self, bank: u8, slots: &[Slot]) -> Result<(), XdpError> {
        let written = &mut self.written[usize::from(bank)];
        for ((position, slot), old) in (first(bank)..).zip(slots).zip(known(written)) {
            if old != Some(slot) {
                self.map.set(position, slot, 0).map_err(of("slots"))?;
            }
        }
        slots.clone_into(written);
        Ok(())
    }

    /// Reads the first `count` of a bank, which an earlier life of the daemon wrote.
    pub(super) fn read(&mut self, bank: u8, count: u32) -> Result<Vec<Slot>, XdpError> {
        let end = first(bank) + count.min(SLOTS_MAX as u32);
        let slots: Vec<Slot> = (first(bank)..end)
            .map(|position| self.map.get(&position, 0).map_err(of("slots")))
            .collect::<Result<_, _>>()?;
        self.written[usize::from(bank)].clone_from(&slots);
        Ok(slots)
    }
}

fn first(bank: u8) -> u32 {
    u32::from(bank) * SLOTS_MAX as u32
}

/// What was written, without an end.
fn known(written: &[Slot]) -> impl Iterator<Item = Option<&Slot>> {
    written.iter().map(Some).chain(std::iter::repeat(None))
}
