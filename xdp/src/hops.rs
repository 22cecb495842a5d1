//! Neighbours by which translated packets leave, and their numbers.
//!
//! Translations name numbers, so that a neighbour's MAC address changes in one place. A number is given to another neighbour when no
//! translation names it any more. Numbers that are nobody's lead nowhere.

use crate::abi::{HOPS_MAX, Hop};
use crate::error::XdpError;
use crate::tables::Tables;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Numbers in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hops {
    by_neighbour: BTreeMap<IpAddr, u16>,
    by_number: BTreeMap<u16, InUse>,
    /// Numbers that flows of an earlier life of the daemon may name.
    reserved: BTreeSet<u16>,
}

/// By which neighbour an address is reached, and where that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address, which is its name here.
    pub address: IpAddr,
    /// What the programs have to know of it.
    pub hop: Hop,
}

#[derive(Clone, Copy, Debug)]
struct InUse {
    neighbour: IpAddr,
    users: u32,
    /// As the programs know it.
    written: Hop,
}

impl Hops {
    /// The number of a neighbour, for one more user; `None` if all are in use.
    pub(crate) fn take(&mut self, neighbour: IpAddr) -> Option<u16> {
        let number = match self.by_neighbour.get(&neighbour) {
            Some(number) => *number,
            None => {
                let number = self.free_number()?;
                self.by_neighbour.insert(neighbour, number);
                self.by_number.insert(number, InUse { neighbour, users: 0, written: Hop::default() });
                number
            }
        };
        self.by_number.entry(number).and_modify(|its| its.users += 1);
        Some(number)
    }

    /// One user less. True when that was the last one: then nothing may lead there.
    #[must_use]
    pub(crate) fn release(&mut self, number: u16) -> bool {
        let Some(its) = self.by_number.get_mut(&number) else { return false };
        its.users -= 1;
        let is_free = its.users == 0;
        if is_free {
            self.by_neighbour.remove(&its.neighbour);
            self.by_number.remove(&number);
        }
        is_free
    }

    /// Gives no neighbour one of these numbers.
    pub(crate) fn reserve(&mut self, numbers: BTreeSet<u16>) {
        self.reserved = numbers;
    }

    /// From now on the numbers are nobody's.
    pub(crate) fn take_reserved(&mut self) -> BTreeSet<u16> {
        std::mem::take(&mut self.reserved)
    }

    /// Whether a number is this neighbour's.
    pub(crate) fn is_of(&self, number: u16, neighbour: IpAddr) -> bool {
        self.by_number.get(&number).is_some_and(|its| its.neighbour == neighbour)
    }

    /// Whether the programs were told where the neighbour with a number is.
    pub(crate) fn is_known(&self, number: u16) -> bool {
        self.by_number.get(&number).is_some_and(|its| its.written != Hop::default())
    }

    /// Tells the programs where the neighbour with a number is.
    pub(crate) fn write(&mut self, tables: &mut Tables, number: u16, hop: Hop) -> Result<(), XdpError> {
        let Some(its) = self.by_number.get_mut(&number).filter(|its| its.written != hop) else {
            return Ok(());
        };
        its.written = hop;
        tables.set_hop(number, &hop)
    }

    /// Tells the programs where all of them are.
    pub(crate) fn write_all(
        &mut self,
        tables: &mut Tables,
        mut hop_of: impl FnMut(IpAddr) -> Hop,
    ) -> Result<(), XdpError> {
        let all: Vec<(u16, IpAddr)> =
            self.by_number.iter().map(|(number, its)| (*number, its.neighbour)).collect();
        all.into_iter().try_for_each(|(number, neighbour)| self.write(tables, number, hop_of(neighbour)))
    }

    fn free_number(&self) -> Option<u16> {
        (0..HOPS_MAX as u16)
            .find(|number| !self.by_number.contains_key(number) && !self.reserved.contains(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(last: u16) -> IpAddr {
        IpAddr::from([192, 0, (last >> 8) as u8, last as u8])
    }

    #[test]
    fn a_neighbour_has_one_number_until_its_last_user_is_gone() {
        let mut hops = Hops::default();
        hops.reserve(BTreeSet::from([0]));
        assert_eq!([1, 1, 2].map(|last| hops.take(neighbour(last))), [Some(1), Some(1), Some(2)]);

        assert!(!hops.release(1));
        assert_eq!(hops.take(neighbour(3)), Some(3));
        assert!(hops.release(1));
        assert_eq!(hops.take(neighbour(4)), Some(1));
    }

    #[test]
    fn there_are_no_more_numbers_than_the_map_has_places() {
        let mut hops = Hops::default();
        for last in 0..HOPS_MAX as u16 {
            assert_eq!(hops.take(neighbour(last)), Some(last));
        }
        assert_eq!(hops.take(neighbour(HOPS_MAX as u16)), None);
    }
}
