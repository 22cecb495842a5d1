//! How often this node has become the owner of addresses that others may own too.
//!
//! Entries of connections say in which term they were made. What others decided in between, they do not know; so they are
//! void from the moment on at which a new term begins, wherever they are, and need not be looked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Terms by service address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    term_by_address: BTreeMap<IpAddr, Term>,
    gained: BTreeSet<IpAddr>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Term {
    /// Wraps: an entry is over long before 256 terms are.
    number: u8,
    /// This node is the owner, and nobody else can have been since the term began.
    lasts: bool,
}

impl Terms {
    /// Goes on with what an earlier life of the daemon has written about an address.
    pub(crate) fn restore(&mut self, address: IpAddr, number: u8, lasts: bool) {
        self.term_by_address.insert(address, Term { number, lasts });
    }

    /// Takes note of whether this node owns an address now, so that nobody else can have owned it a moment ago.
    pub(crate) fn follow(&mut self, address: IpAddr, owns: bool) {
        let term = self.term_by_address.entry(address).or_default();
        if owns && !term.lasts {
            term.number = term.number.wrapping_add(1);
            self.gained.insert(address);
        }
        term.lasts = owns;
    }

    /// The present or last term.
    pub(crate) fn of(&self, address: IpAddr) -> u8 {
        self.term_by_address.get(&address).map_or(0, |term| term.number)
    }

    /// Whether this node is the owner of an address that others may own too.
    pub(crate) fn lasts(&self, address: IpAddr) -> bool {
        self.term_by_address.get(&address).is_some_and(|term| term.lasts)
    }

    /// Addresses whose terms have begun since the last call.
    pub(crate) fn take_gained(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.gained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_term_begins_whenever_an_address_comes_back() {
        let mut terms = Terms::default();
        terms.follow(ADDRESS, true);
        assert_eq!((terms.of(ADDRESS), terms.take_gained()), (1, BTreeSet::from([ADDRESS])));

        terms.follow(ADDRESS, true);
        terms.follow(ADDRESS, false);
        assert_eq!((terms.of(ADDRESS), terms.lasts(ADDRESS)), (1, false));
        assert!(terms.take_gained().is_empty());

        terms.follow(ADDRESS, true);
        assert_eq!((terms.of(ADDRESS), terms.take_gained()), (2, BTreeSet::from([ADDRESS])));
    }

    #[test]
    fn a_daemon_that_starts_again_goes_on_with_a_term_that_lasts_and_begins_another_one_after_a_loss() {
        let mut terms = Terms::default();
        terms.restore(ADDRESS, u8::MAX, true);
        terms.follow(ADDRESS, true);
        assert_eq!((terms.of(ADDRESS), terms.take_gained().len()), (u8::MAX, 0));

        terms.restore(ADDRESS, u8::MAX, false);
        terms.follow(ADDRESS, true);
        assert_eq!(terms.of(ADDRESS), 0);
    }
}
