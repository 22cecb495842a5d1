//! Full NAT: which port of this node stands for which flow at which real server.
//!
//! A mapping is found from both ends: by its port and server, and by its flow and server. The ports that a flow may have
//! follow from the flow: up to [`PROBES_MAX`] of them, at places that a hash gives. So the connection-forwarding table needs
//! no room for ports (`docs/decisions/0008-nat-mappings.md`). A mapping that another node has made is taken over as it is
//! ([`NatTable::adopt`]), with that node's address and port.
//!
//! A port belongs to a flow while the flow lives, and for [`QUARANTINE`] after it, so that stragglers of one connection
//! never reach another (RFC 7857, section 2.1). The same port may serve other flows at other servers. Nothing is ever
//! displaced: who finds no port has to do without NAT.

use dpr_model::{FlowKey, PortRange, Protocol, Timestamp};
use siphasher::sip::SipHasher13;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Ports that are tried for a flow; with half of all ports in use at one server, one flow in 65,536 finds none.
pub const PROBES_MAX: u32 = 16;

/// How long a port is nobody's after its flow: two maximum segment lifetimes of 30 seconds, what Linux keeps a socket in
/// TIME-WAIT.
pub const QUARANTINE: Duration = Duration::from_secs(60);

/// Mappings at most, 112 bytes and two indexes of 4 bytes each.
pub const MAPPINGS_MAX: usize = 1 << 18;

/// Mappings in a bucket on average, when all are in use.
const PER_BUCKET: usize = 1;

/// Mappings that an insertion into a full table looks at in the hope that some are over.
const SWEEP_WHEN_FULL: usize = 64;

/// Number of a mapping's place, plus one; zero is none.
type Place = u32;

/// The two ways to find a mapping, as positions among its links.
const BY_STAND_IN: usize = 0;
const BY_FLOW: usize = 1;

#[derive(Clone, Copy, Debug)]
struct Mapping {
    flow: FlowKey,
    server: SocketAddr,
    /// The end that the server sees in place of the client's.
    address: IpAddr,
    port: u16,
    /// Until when it is the flow's, milliseconds; 0 in a free place.
    busy_until_ms: u64,
    /// Next in each bucket, or next free place.
    next: [Place; 2],
}

impl Mapping {
    fn stand_in(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    fn is_at(&self, protocol: Protocol, stand_in: SocketAddr, server: SocketAddr) -> bool {
        (self.port, self.server, self.address) == (stand_in.port(), server, stand_in.ip())
            && self.flow.protocol == protocol
    }
}

/// Mappings of one node. All memory for them is reserved at the start.
#[derive(Debug)]
pub struct NatTable {
    ports: PortRange,
    hasher: SipHasher13,
    mappings: Vec<Mapping>,
    capacity: usize,
    heads: [Vec<Place>; 2],
    free: Place,
    len: usize,
    swept: usize,
}

impl NatTable {
    /// An empty table for `capacity` mappings (1 to [`MAPPINGS_MAX`]; values beyond count as the nearest bound). The hash
    /// key keeps strangers from aiming at one port.
    pub fn new(ports: PortRange, capacity: usize, hash_seed: [u64; 2]) -> Self {
        let capacity = capacity.clamp(1, MAPPINGS_MAX);
        let heads = || vec![0; (capacity / PER_BUCKET).next_power_of_two()];
        Self {
            ports,
            hasher: SipHasher13::new_with_keys(hash_seed[0], hash_seed[1]),
            mappings: Vec::with_capacity(capacity),
            capacity,
            heads: [heads(), heads()],
            free: 0,
            len: 0,
            swept: 0,
        }
    }

    /// The ports that are given out.
    pub fn ports(&self) -> PortRange {
        self.ports
    }

    /// Mappings, those in quarantine included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no mapping.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The end that stands for `flow` at `server`, which keeps it for `busy_for` from now on. If it has none, it is given a
    /// port of `address`; `None` if there is no address, every port that it may have is another flow's, or the table is full.
    pub fn stand_in_for(
        &mut self,
        flow: &FlowKey,
        server: SocketAddr,
        address: Option<IpAddr>,
        busy_for: Duration,
        now: Timestamp,
    ) -> Option<SocketAddr> {
        if let Some(position) = self.touch(flow, server, busy_for, now) {
            return Some(self.mappings[position].stand_in());
        }
        let address = address?;
        let stand_in =
            self.candidates(flow, server).map(|port| SocketAddr::new(address, port)).find(|stand_in| {
                match self.find(flow.protocol, *stand_in, server) {
                    Some(position) if self.is_over(position, now) => {
                        self.release(position);
                        true
                    }
                    found => found.is_none(),
                }
            })?;
        self.insert(flow, server, stand_in, busy_until_ms(busy_for, now), now).then_some(stand_in)
    }

    /// The same for a flow that begins: what stood for an earlier one with the same ends, and is of another address, does so no
    /// more. Answers to it would go where nobody expects them.
    pub fn begin(
        &mut self,
        flow: &FlowKey,
        server: SocketAddr,
        address: Option<IpAddr>,
        busy_for: Duration,
        now: Timestamp,
    ) -> Option<SocketAddr> {
        if let Some(position) = self.find_flow(flow, server)
            && Some(self.mappings[position].stand_in().ip()) != address
        {
            self.release(position);
        }
        self.stand_in_for(flow, server, address, busy_for, now)
    }

    /// Takes over what another node has said of a flow: `stand_in` stands for it at `server`, for `busy_for` from now on. What
    /// was known of either is of an earlier time. False if there is no room.
    pub fn adopt(
        &mut self,
        flow: &FlowKey,
        server: SocketAddr,
        stand_in: SocketAddr,
        busy_for: Duration,
        now: Timestamp,
    ) -> bool {
        match self.touch(flow, server, busy_for, now) {
            Some(position) if self.mappings[position].stand_in() == stand_in => return true,
            Some(position) => self.release(position),
            None => {}
        }
        if let Some(position) = self.find(flow.protocol, stand_in, server) {
            self.release(position);
        }
        self.insert(flow, server, stand_in, busy_until_ms(busy_for, now), now)
    }

    /// From now on what stands for `flow` at `server`, if anything does, is kept for `busy_for`.
    pub fn renew(&mut self, flow: &FlowKey, server: SocketAddr, busy_for: Duration, now: Timestamp) {
        self.touch(flow, server, busy_for, now);
    }

    /// What stands for `flow` at `server`; nothing that is in quarantine.
    pub fn stand_in_of(&self, flow: &FlowKey, server: SocketAddr, now: Timestamp) -> Option<SocketAddr> {
        let mapping = &self.mappings[self.find_flow(flow, server)?];
        (now.as_millis() <= mapping.busy_until_ms).then(|| mapping.stand_in())
    }

    /// The flow that `stand_in` stands for at `server`; none that is in quarantine.
    pub fn flow_of(
        &self,
        protocol: Protocol,
        stand_in: SocketAddr,
        server: SocketAddr,
        now: Timestamp,
    ) -> Option<FlowKey> {
        let mapping = &self.mappings[self.find(protocol, stand_in, server)?];
        (now.as_millis() <= mapping.busy_until_ms).then_some(mapping.flow)
    }

    /// Gives back the room of mappings whose quarantine is over; looks at no more than `budget`. Returns how many.
    pub fn expire(&mut self, now: Timestamp, budget: usize) -> usize {
        let before = self.len;
        for _ in 0..budget.min(self.mappings.len()) {
            self.swept = (self.swept + 1) % self.mappings.len();
            if self.mappings[self.swept].busy_until_ms != 0 && self.is_over(self.swept, now) {
                self.release(self.swept);
            }
        }
        before - self.len
    }

    /// Bytes allocated; the same from the start on.
    pub fn memory_bytes(&self) -> usize {
        let heads: usize = self.heads.iter().map(Vec::capacity).sum();
        self.mappings.capacity() * size_of::<Mapping>() + heads * size_of::<Place>()
    }

    /// The ports that `flow` may have at `server`, in the order in which they are tried; none twice.
    fn candidates(&self, flow: &FlowKey, server: SocketAddr) -> impl Iterator<Item = u16> + use<> {
        let (first, count) = (u32::from(self.ports.first()), u32::from(self.ports.count()));
        let start = (self.hash_of((flow, server)) >> 32) as u32 % count;
        (0..PROBES_MAX.min(count)).map(move |probe| (first + (start + probe) % count) as u16)
    }

    fn is_over(&self, position: usize, now: Timestamp) -> bool {
        self.mappings[position].busy_until_ms + millis(QUARANTINE) < now.as_millis()
    }

    fn touch(
        &mut self,
        flow: &FlowKey,
        server: SocketAddr,
        busy_for: Duration,
        now: Timestamp,
    ) -> Option<usize> {
        let position = self.find_flow(flow, server)?;
        self.mappings[position].busy_until_ms = busy_until_ms(busy_for, now);
        Some(position)
    }

    fn hash_of(&self, what: impl Hash) -> u64 {
        let mut hasher = self.hasher;
        what.hash(&mut hasher);
        hasher.finish()
    }

    /// The bucket of what hashes to `hash`, in either index.
    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.heads[BY_STAND_IN].len() - 1)
    }

    fn buckets_of(&self, mapping: &Mapping) -> [usize; 2] {
        let Mapping { flow, server, port, .. } = mapping;
        [self.bucket(self.hash_of((flow.protocol, port, server))), self.bucket(self.hash_of((flow, server)))]
    }

    fn find(&self, protocol: Protocol, stand_in: SocketAddr, server: SocketAddr) -> Option<usize> {
        let bucket = self.bucket(self.hash_of((protocol, stand_in.port(), server)));
        self.find_in(BY_STAND_IN, bucket, |mapping| mapping.is_at(protocol, stand_in, server))
    }

    fn find_flow(&self, flow: &FlowKey, server: SocketAddr) -> Option<usize> {
        let bucket = self.bucket(self.hash_of((flow, server)));
        self.find_in(BY_FLOW, bucket, |mapping| (mapping.server, &mapping.flow) == (server, flow))
    }

    fn find_in(&self, index: usize, bucket: usize, is_it: impl Fn(&Mapping) -> bool) -> Option<usize> {
        let mut place = self.heads[index][bucket];
        while let Some(position) = position_of(place) {
            let mapping = &self.mappings[position];
            if is_it(mapping) {
                return Some(position);
            }
            place = mapping.next[index];
        }
        None
    }

    /// False when there is no room.
    fn insert(
        &mut self,
        flow: &FlowKey,
        server: SocketAddr,
        stand_in: SocketAddr,
        busy_until_ms: u64,
        now: Timestamp,
    ) -> bool {
        if self.len == self.capacity {
            self.expire(now, SWEEP_WHEN_FULL);
        }
        let (address, port) = (stand_in.ip(), stand_in.port());
        let mut mapping = Mapping { flow: *flow, server, address, port, busy_until_ms, next: [0; 2] };
        let buckets = self.buckets_of(&mapping);
        mapping.next = [BY_STAND_IN, BY_FLOW].map(|index| self.heads[index][buckets[index]]);
        let place = match position_of(self.free) {
            Some(position) => {
                let place = self.free;
                self.free = self.mappings[position].next[BY_STAND_IN];
                self.mappings[position] = mapping;
                place
            }
            None if self.mappings.len() < self.capacity => {
                self.mappings.push(mapping);
                // No more than MAPPINGS_MAX.
                self.mappings.len() as Place
            }
            None => return false,
        };
        for (heads, bucket) in self.heads.iter_mut().zip(buckets) {
            heads[bucket] = place;
        }
        self.len += 1;
        true
    }

    fn release(&mut self, position: usize) {
        let mapping = self.mappings[position];
        let place = position as Place + 1;
        for (index, bucket) in self.buckets_of(&mapping).into_iter().enumerate() {
            self.unlink(index, bucket, place, mapping.next[index]);
        }
        self.mappings[position].busy_until_ms = 0;
        self.mappings[position].next[BY_STAND_IN] = self.free;
        self.free = place;
        self.len -= 1;
    }

    fn unlink(&mut self, index: usize, bucket: usize, place: Place, next: Place) {
        let mut link = &mut self.heads[index][bucket];
        while *link != place {
            let Some(before) = position_of(*link) else { return };
            link = &mut self.mappings[before].next[index];
        }
        *link = next;
    }
}

fn position_of(place: Place) -> Option<usize> {
    (place as usize).checked_sub(1)
}

fn busy_until_ms(busy_for: Duration, now: Timestamp) -> u64 {
    now.as_millis().saturating_add(millis(busy_for)).clamp(1, u64::MAX - millis(QUARANTINE))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::{ClientSocket, ServiceSocket};

    const LIFE: Duration = Duration::from_secs(900);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));

    fn own(port: u16) -> SocketAddr {
        SocketAddr::new(OWN, port)
    }

    fn port_for(
        table: &mut NatTable,
        client: u16,
        server: SocketAddr,
        busy_for: Duration,
        now: Timestamp,
    ) -> Option<u16> {
        let stand_in = table.stand_in_for(&flow(client), server, Some(OWN), busy_for, now)?;
        assert_eq!(stand_in.ip(), OWN);
        Some(stand_in.port())
    }

    fn server(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 8080))
    }

    fn flow(port: u16) -> FlowKey {
        FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address: [198, 51, 100, 7].into(), port },
            service: ServiceSocket { address: [192, 0, 2, 1].into(), port: 80 },
        }
    }

    fn table(ports: (u16, u16), capacity: usize) -> NatTable {
        NatTable::new(PortRange::new(ports.0, ports.1).unwrap(), capacity, [1, 2])
    }

    #[test]
    fn a_flow_has_one_port_at_a_server_and_is_found_by_it() {
        let mut table = table((61_000, 61_999), 100);
        let port = port_for(&mut table, 1, server(1), LIFE, at(0)).unwrap();

        assert_eq!(port_for(&mut table, 1, server(1), LIFE, at(5)), Some(port));
        assert_eq!(table.flow_of(Protocol::Tcp, own(port), server(1), at(5)), Some(flow(1)));
        assert_eq!(table.flow_of(Protocol::Udp, own(port), server(1), at(5)), None);
        assert_eq!(table.flow_of(Protocol::Tcp, own(port), server(2), at(5)), None);
        assert_eq!((table.len(), table.is_empty()), (1, false));
    }

    #[test]
    fn flows_at_one_server_have_ports_of_their_own_and_at_others_may_share_them() {
        let mut table = table((61_000, 61_007), 100);
        let mut ports: Vec<u16> =
            (0..8).map(|client| port_for(&mut table, client, server(1), LIFE, at(0)).unwrap()).collect();
        ports.sort_unstable();

        assert_eq!(ports, (61_000..=61_007).collect::<Vec<_>>());
        assert_eq!(port_for(&mut table, 9, server(1), LIFE, at(0)), None);
        assert!(port_for(&mut table, 9, server(2), LIFE, at(0)).is_some());
    }

    #[test]
    fn no_more_ports_are_tried_than_promised() {
        let mut table = table((61_000, 61_031), 100);
        let tried: Vec<u16> = table.candidates(&flow(1), server(1)).collect();
        for client in 2..1000 {
            let first = table.candidates(&flow(client), server(1)).next().unwrap();
            if tried.contains(&first) && table.find(Protocol::Tcp, own(first), server(1)).is_none() {
                port_for(&mut table, client, server(1), LIFE, at(0)).unwrap();
            }
        }

        assert_eq!((tried.len(), table.len()), (16, 16));
        assert_eq!(port_for(&mut table, 1, server(1), LIFE, at(0)), None);
    }

    #[test]
    fn a_port_is_nobodys_for_a_minute_after_its_flow() {
        let mut table = table((61_000, 61_000), 100);
        port_for(&mut table, 1, server(1), Duration::from_secs(10), at(0)).unwrap();

        assert_eq!(table.flow_of(Protocol::Tcp, own(61_000), server(1), at(11)), None);
        assert_eq!(port_for(&mut table, 2, server(1), LIFE, at(69)), None);
        assert_eq!(table.expire(at(69), 100), 0);
        assert_eq!(port_for(&mut table, 2, server(1), LIFE, at(71)), Some(61_000));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_state_that_ends_sooner_gives_the_port_back_sooner() {
        let mut table = table((61_000, 61_000), 100);
        port_for(&mut table, 1, server(1), LIFE, at(0)).unwrap();
        port_for(&mut table, 1, server(1), Duration::from_secs(10), at(5)).unwrap();

        assert_eq!(table.expire(at(76), 100), 1);
        assert!(table.is_empty());
    }

    #[test]
    fn a_full_table_refuses_and_never_grows() {
        let mut table = table((1000, 65_000), 64);
        let before = table.memory_bytes();
        let given = |table: &mut NatTable, from: u16, seconds| {
            let flows = from..from + 100;
            flows.filter(|client| port_for(table, *client, server(1), LIFE, at(seconds)).is_some()).count()
        };

        assert_eq!(given(&mut table, 1, 0), 64);
        assert_eq!(given(&mut table, 1000, 900), 0);
        assert_eq!(given(&mut table, 1000, 1000), 64);
        assert_eq!(table.memory_bytes(), before);
    }

    #[test]
    fn what_another_node_has_mapped_is_found_from_both_ends_and_given_to_nobody_else() {
        let mut table = table((61_000, 61_000), 100);
        let others = SocketAddr::from(([192, 0, 2, 7], 61_000));
        assert!(table.adopt(&flow(1), server(1), others, LIFE, at(0)));

        assert_eq!(table.flow_of(Protocol::Tcp, others, server(1), at(1)), Some(flow(1)));
        assert_eq!(table.flow_of(Protocol::Tcp, own(61_000), server(1), at(1)), None);
        assert_eq!(table.stand_in_for(&flow(1), server(1), None, LIFE, at(1)), Some(others));
        assert_eq!(table.stand_in_of(&flow(1), server(1), at(1)), Some(others));
        assert_eq!(table.stand_in_of(&flow(1), server(2), at(1)), None);
        assert_eq!(port_for(&mut table, 2, server(1), LIFE, at(1)), Some(61_000), "it is another address");
        assert_eq!(table.stand_in_for(&flow(3), server(1), Some(others.ip()), LIFE, at(1)), None);
    }

    #[test]
    fn a_flow_that_begins_anew_gets_an_end_of_this_nodes_even_if_anothers_stood_for_it_before() {
        let mut table = table((61_000, 61_999), 100);
        let others = SocketAddr::from(([192, 0, 2, 7], 61_000));
        table.adopt(&flow(1), server(1), others, LIFE, at(0));
        let begin = |table: &mut NatTable| table.begin(&flow(1), server(1), Some(OWN), LIFE, at(1));

        let stand_in = begin(&mut table).unwrap();

        assert_eq!(stand_in.ip(), OWN);
        assert_eq!(begin(&mut table), Some(stand_in), "for its retransmitted SYN");
        assert_eq!(table.flow_of(Protocol::Tcp, others, server(1), at(1)), None);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn what_is_heard_later_replaces_what_was_known_of_the_flow_and_of_the_port() {
        let mut table = table((61_000, 61_999), 2);
        let [first, second] = [61_000, 61_001].map(|port| SocketAddr::from(([192, 0, 2, 7], port)));
        table.adopt(&flow(1), server(1), first, LIFE, at(0));

        assert!(table.adopt(&flow(1), server(1), second, LIFE, at(1)));
        assert_eq!(table.flow_of(Protocol::Tcp, first, server(1), at(1)), None);
        assert!(table.adopt(&flow(2), server(1), second, LIFE, at(2)));
        assert_eq!(table.stand_in_of(&flow(1), server(1), at(2)), None);
        assert_eq!(table.flow_of(Protocol::Tcp, second, server(1), at(2)), Some(flow(2)));
        assert_eq!(table.len(), 1);
        assert!(table.adopt(&flow(2), server(1), second, Duration::ZERO, at(3)));
        assert_eq!((table.stand_in_of(&flow(2), server(1), at(4)), table.len()), (None, 1));
    }

    #[test]
    fn a_mapping_is_as_large_as_the_documentation_says() {
        assert!(size_of::<Mapping>() <= 112, "{}", size_of::<Mapping>());
    }
}
