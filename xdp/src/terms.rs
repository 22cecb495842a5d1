//! How often this node has become the owner of addresses that others may own too, and of their slots.
//!
//! Entries of connections say in which term they were made. What others decided in between, they do not know; so they are
//! void from the moment on at which a new term begins, wherever they are, and need not be looked for.
//!
//! Where no node holds an address, its entries count the terms of the address and those of the slot together: both only grow.
//! Such sums have a bit that the terms of whole addresses never have.

use crate::abi::{Address, FurtherPorts, TERM_BY_SLOT, mapped};
use dpr_model::{FlowKey, PartitionBy, Protocol, ServiceSocket, Slot};
use dpr_ownership::SlotCount;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Terms by service address and by slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    term_by_address: BTreeMap<IpAddr, Term<Hold>>,
    slots: SlotCount,
    /// In order; none before nodes have agreed on owners.
    term_by_slot: Vec<Term<bool>>,
    partition_by_service: BTreeMap<(Protocol, ServiceSocket), PartitionBy>,
    further_ports: BTreeMap<Address, FurtherPorts>,
    gained: Gained,
}

/// How much of an address is this node's, so that nobody else can have owned that a moment ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nothing.
    #[default]
    Nothing,
    /// All slots: it holds the address.
    Whole,
    /// Slots that it owns: no node holds the address.
    BySlot,
}

/// What has become this node's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gained {
    addresses: BTreeSet<IpAddr>,
    slots: BTreeSet<Slot>,
}

impl Gained {
    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.slots.is_empty()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Term<T> {
    /// Wraps below [`TERM_BY_SLOT`]: an entry is over long before so many terms are.
    number: u8,
    /// What lasts, and since the term began nobody else can have had it.
    lasting: T,
}

impl<T: Default + PartialEq> Term<T> {
    /// True if a term begins.
    fn follow(&mut self, now: T) -> bool {
        let begins = now != self.lasting && now != T::default();
        if begins {
            // Not 0, which entries have that are void in no term.
            self.number = self.number % (TERM_BY_SLOT - 1) + 1;
        }
        self.lasting = now;
        begins
    }
}

impl Terms {
    /// Goes on with what an earlier life of the daemon has written about an address.
    pub(crate) fn restore(&mut self, address: IpAddr, number: u8, lasting: Hold) {
        self.term_by_address.insert(address, Term { number, lasting });
    }

    /// The same of all slots, in order: their terms, and whether they last.
    pub(crate) fn restore_slots(&mut self, count: SlotCount, slots: impl Iterator<Item = (u8, bool)>) {
        self.slots = count;
        self.term_by_slot = slots.map(|(number, lasting)| Term { number, lasting }).collect();
    }

    /// Forgets what divides flows, and takes note of the ports that services have beside their own.
    pub(crate) fn begin_dividing(&mut self, further_ports: &BTreeMap<Address, FurtherPorts>) {
        self.partition_by_service.clear();
        self.further_ports.clone_from(further_ports);
    }

    /// Takes note of what divides the flows of a service.
    pub(crate) fn divide(&mut self, service: (Protocol, ServiceSocket), by: PartitionBy) {
        self.partition_by_service.insert(service, by);
    }

    /// Takes note of how much of an address this node owns now.
    pub(crate) fn follow(&mut self, address: IpAddr, hold: Hold) {
        if self.term_by_address.entry(address).or_default().follow(hold) {
            self.gained.addresses.insert(address);
        }
    }

    /// Takes note of which slots this node owns now of the addresses that no node holds: one answer for each, in order.
    pub(crate) fn follow_slots(&mut self, count: SlotCount, owned: impl Iterator<Item = bool>) {
        if self.slots != count {
            // Other parts of all connections.
            self.term_by_slot.iter_mut().for_each(|term| term.lasting = false);
            self.slots = count;
        }
        self.term_by_slot.resize(count.get().into(), Term::default());
        for ((slot, term), owned) in count.all().zip(&mut self.term_by_slot).zip(owned) {
            if term.follow(owned) {
                self.gained.slots.insert(slot);
            }
        }
    }

    /// Takes note of an address that nobody but its home can own.
    pub(crate) fn forget(&mut self, address: IpAddr) {
        self.term_by_address.remove(&address);
    }

    /// True for an address that several nodes may own.
    pub(crate) fn may_move(&self, address: IpAddr) -> bool {
        self.term_by_address.contains_key(&address)
    }

    /// The present or last term of an address.
    pub(crate) fn of_address(&self, address: IpAddr) -> u8 {
        self.term_by_address.get(&address).map_or(0, |term| term.number)
    }

    /// The present or last term of a slot.
    pub(crate) fn of_slot(&self, slot: Slot) -> u8 {
        self.term_by_slot.get(usize::from(slot.0)).map_or(0, |term| term.number)
    }

    /// The term in which entries of a flow count; `None` while this node is not the owner of its slot, or nobody else could be.
    pub(crate) fn of(&self, flow: &FlowKey) -> Option<u8> {
        let of_address = self.term_by_address.get(&flow.service.address)?;
        match of_address.lasting {
            Hold::Nothing => None,
            Hold::Whole => Some(of_address.number),
            Hold::BySlot => {
                let of_slot = self.term_by_slot.get(usize::from(self.slot_of(flow)?.0))?;
                let number = of_address.number.wrapping_add(of_slot.number) | TERM_BY_SLOT;
                of_slot.lasting.then_some(number)
            }
        }
    }

    /// What has become this node's since the last call.
    pub(crate) fn take_gained(&mut self) -> Gained {
        std::mem::take(&mut self.gained)
    }

    /// True for a flow that has become this node's.
    pub(crate) fn is_gained(&self, gained: &Gained, flow: &FlowKey) -> bool {
        let has_slot = || self.slot_of(flow).is_some_and(|slot| gained.slots.contains(&slot));
        self.of(flow).is_some() && (gained.addresses.contains(&flow.service.address) || has_slot())
    }

    fn slot_of(&self, flow: &FlowKey) -> Option<Slot> {
        let by_of = |flow: &FlowKey| self.partition_by_service.get(&(flow.protocol, flow.service));
        if let Some(by) = by_of(flow) {
            return Some(self.slots.slot_of(flow, *by));
        }
        let further = self.further_ports.get(&mapped(flow.service.address))?;
        let port = further.named(flow.protocol.number(), flow.service.port)?;
        let named = FlowKey { service: ServiceSocket { port, ..flow.service }, ..*flow };
        Some(self.slots.slot_of(&named, *by_of(&named)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::FurtherRange;
    use dpr_model::ClientSocket;
    use std::net::Ipv4Addr;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const SERVICE: ServiceSocket = ServiceSocket { address: ADDRESS, port: 80 };
    const LAST: u8 = TERM_BY_SLOT - 1;

    fn flow(port: u16) -> FlowKey {
        FlowKey { protocol: Protocol::Tcp, client: ClientSocket { address: ADDRESS, port }, service: SERVICE }
    }

    /// This node owns every second slot, or the others.
    fn own(terms: &mut Terms, even: bool) {
        let owned = SlotCount::MIN.all().map(|slot| (slot.0 % 2 == 0) == even);
        terms.follow_slots(SlotCount::MIN, owned);
    }

    fn divided() -> Terms {
        let mut terms = Terms::default();
        terms.divide((Protocol::Tcp, SERVICE), PartitionBy::SourcePort);
        terms
    }

    #[test]
    fn a_term_begins_whenever_an_address_comes_back() {
        let mut terms = Terms::default();
        terms.follow(ADDRESS, Hold::Whole);
        assert_eq!(terms.of(&flow(1)), Some(1));
        assert!(terms.is_gained(&terms.clone().take_gained(), &flow(1)));
        terms.take_gained();

        terms.follow(ADDRESS, Hold::Whole);
        terms.follow(ADDRESS, Hold::Nothing);
        assert_eq!((terms.of(&flow(1)), terms.of_address(ADDRESS)), (None, 1));
        assert!(terms.take_gained().is_empty());

        terms.follow(ADDRESS, Hold::Whole);
        assert_eq!(terms.of(&flow(1)), Some(2));
    }

    #[test]
    fn a_daemon_that_starts_again_goes_on_with_a_term_that_lasts_and_begins_another_one_after_a_loss() {
        let mut terms = Terms::default();
        terms.restore(ADDRESS, LAST, Hold::Whole);
        terms.follow(ADDRESS, Hold::Whole);
        assert_eq!((terms.of(&flow(1)), terms.take_gained()), (Some(LAST), Gained::default()));

        terms.restore(ADDRESS, LAST, Hold::Nothing);
        terms.follow(ADDRESS, Hold::Whole);
        assert_eq!(terms.of(&flow(1)), Some(1), "0 is for what is never void");
    }

    #[test]
    fn of_an_address_that_no_node_holds_each_slot_has_terms_of_its_own() {
        let mut terms = divided();
        terms.follow(ADDRESS, Hold::BySlot);
        own(&mut terms, true);
        let owned: Vec<u16> = (0..100).filter(|port| terms.of(&flow(*port)).is_some()).collect();
        assert!((20..80).contains(&owned.len()), "{owned:?}");
        let first = terms.of(&flow(owned[0]));
        let gained = terms.take_gained();
        assert!((0..100).all(|port| terms.is_gained(&gained, &flow(port)) == owned.contains(&port)));

        own(&mut terms, false);
        assert!((0..100).all(|port| terms.of(&flow(port)).is_none() == owned.contains(&port)));
        own(&mut terms, true);
        assert_ne!(terms.of(&flow(owned[0])), first, "somebody else has owned it");
    }

    #[test]
    fn a_flow_to_a_further_port_is_in_the_slot_of_one_to_its_service() {
        let by = PartitionBy::All;
        let range = FurtherRange {
            first: 8000,
            last: 8001,
            port: SERVICE.port.to_be_bytes(),
            protocol: Protocol::Tcp.number(),
            zero: 0,
        };
        let mut further = FurtherPorts::default();
        assert!(further.add(range));
        let mut terms = Terms::default();
        terms.begin_dividing(&BTreeMap::from([(mapped(ADDRESS), further)]));
        terms.divide((Protocol::Tcp, SERVICE), by);
        terms.follow(ADDRESS, Hold::BySlot);
        own(&mut terms, true);

        let to = |port: u16, flow: FlowKey| FlowKey { service: ServiceSocket { port, ..SERVICE }, ..flow };
        for port in 0..100 {
            let named = terms.of(&flow(port));
            assert_eq!([8000, 8001].map(|further| terms.of(&to(further, flow(port)))), [named; 2], "{port}");
            assert_eq!(terms.of(&to(8002, flow(port))), None, "another one");
        }
        // From now on one of them is a service of its own.
        terms.divide((Protocol::Tcp, ServiceSocket { port: 8001, ..SERVICE }), by);
        let differs = |port: &u16| terms.of(&to(8001, flow(*port))) != terms.of(&flow(*port));
        assert!((0..100).filter(differs).count() > 20);
    }

    #[test]
    fn no_term_of_a_slot_is_one_of_the_whole_address() {
        let mut terms = divided();
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            for hold in [Hold::Whole, Hold::BySlot] {
                terms.follow(ADDRESS, hold);
                terms.follow_slots(SlotCount::MIN, SlotCount::MIN.all().map(|_| true));
                assert!(seen.insert(terms.of(&flow(1)).unwrap()), "{hold:?}");
            }
        }
    }

    #[test]
    fn with_another_number_of_slots_every_term_begins_anew() {
        let mut terms = divided();
        terms.follow(ADDRESS, Hold::BySlot);
        own(&mut terms, true);
        own(&mut terms, false);
        terms.take_gained();

        let more = SlotCount::default();
        terms.follow_slots(more, more.all().map(|_| true));

        assert_eq!(terms.take_gained().slots.len(), usize::from(more.get()));
    }
}
