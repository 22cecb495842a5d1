//! Full NAT: which port of this node stands for which flow at which real server.
//!
//! A mapping is found from both ends. By its port and server there is an index; by its flow there is none, since the
//! ports that a flow may have follow from the flow: up to [`PROBES_MAX`] of them, at places that a hash gives. So the
//! connection-forwarding table needs no room for ports (`docs/decisions/0008-nat-mappings.md`).
//!
//! A port belongs to a flow while the flow lives, and for [`QUARANTINE`] after it, so that stragglers of one connection
//! never reach another (RFC 7857, section 2.1). The same port may serve other flows at other servers. Nothing is ever
//! displaced: who finds no port has to do without NAT.

use dpr_model::{FlowKey, PortRange, Protocol, Timestamp};
use siphasher::sip::SipHasher13;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

/// Ports that are tried for a flow; with half of all ports in use at one server, one flow in 65,536 finds none.
pub const PROBES_MAX: u32 = 16;

/// How long a port is nobody's after its flow: two maximum segment lifetimes of 30 seconds, what Linux keeps a socket in
/// TIME-WAIT.
pub const QUARANTINE: Duration = Duration::from_secs(60);

/// Mappings at most, 112 bytes each.
pub const MAPPINGS_MAX: usize = 1 << 18;

/// Mappings in a bucket on average, when all are in use.
const PER_BUCKET: usize = 1;

/// Mappings that an insertion into a full table looks at in the hope that some are over.
const SWEEP_WHEN_FULL: usize = 64;

/// Number of a mapping's place, plus one; zero is none.
type Place = u32;

#[derive(Clone, Copy, Debug)]
struct Mapping {
    flow: FlowKey,
    server: SocketAddr,
    port: u16,
    /// Until when it is the flow's, milliseconds; `None` in a free place.
    busy_until_ms: Option<u64>,
    /// Next in the bucket, or next free place.
    next: Place,
}

/// Mappings of one node. All memory for them is reserved at the start.
#[derive(Debug)]
pub struct NatTable {
    ports: PortRange,
    hasher: SipHasher13,
    mappings: Vec<Mapping>,
    capacity: usize,
    heads: Vec<Place>,
    free: Place,
    len: usize,
    swept: usize,
}

impl NatTable {
    /// An empty table for `capacity` mappings (1 to [`MAPPINGS_MAX`]; values beyond count as the nearest bound). The hash
    /// key keeps strangers from aiming at one port.
    pub fn new(ports: PortRange, capacity: usize, hash_seed: [u64; 2]) -> Self {
        let capacity = capacity.clamp(1, MAPPINGS_MAX);
        Self {
            ports,
            hasher: SipHasher13::new_with_keys(hash_seed[0], hash_seed[1]),
            mappings: Vec::with_capacity(capacity),
            capacity,
            heads: vec![0; (capacity / PER_BUCKET).next_power_of_two()],
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

    /// The port that stands for `flow` at `server`, which keeps it for `busy_for` from now on. One is given to it if it has
    /// none; `None` if every port that it may have is another flow's, or the table is full.
    pub fn port_for(
        &mut self,
        flow: &FlowKey,
        server: SocketAddr,
        busy_for: Duration,
        now: Timestamp,
    ) -> Option<u16> {
        let busy_until_ms = busy_until_ms(busy_for, now);
        let mut absent = None;
        for port in self.candidates(flow, server) {
            match self.find(flow.protocol, port, server) {
                Some(position) if self.mappings[position].flow == *flow => {
                    self.mappings[position].busy_until_ms = Some(busy_until_ms);
                    return Some(port);
                }
                Some(position) if self.is_over(position, now) => {
                    self.release(position);
                    absent = absent.or(Some(port));
                }
                Some(_) => {}
                None => absent = absent.or(Some(port)),
            }
        }
        let port = absent?;
        self.insert(Mapping { flow: *flow, server, port, busy_until_ms: Some(busy_until_ms), next: 0 }, now)
            .then_some(port)
    }

    /// From now on the port of `flow` at `server`, if it has one, is kept for `busy_for`.
    pub fn touch(&mut self, flow: &FlowKey, server: SocketAddr, busy_for: Duration, now: Timestamp) {
        let ports = self.candidates(flow, server);
        let mut places = ports.filter_map(|port| self.find(flow.protocol, port, server));
        if let Some(position) = places.find(|position| self.mappings[*position].flow == *flow) {
            self.mappings[position].busy_until_ms = Some(busy_until_ms(busy_for, now));
        }
    }

    /// The flow that `port` stands for at `server`; none that is in quarantine.
    pub fn flow_of(
        &self,
        protocol: Protocol,
        port: u16,
        server: SocketAddr,
        now: Timestamp,
    ) -> Option<FlowKey> {
        let mapping = &self.mappings[self.find(protocol, port, server)?];
        mapping.busy_until_ms.is_some_and(|until| now.as_millis() <= until).then_some(mapping.flow)
    }

    /// Gives back the room of mappings whose quarantine is over; looks at no more than `budget`. Returns how many.
    pub fn expire(&mut self, now: Timestamp, budget: usize) -> usize {
        let before = self.len;
        for _ in 0..budget.min(self.mappings.len()) {
            self.swept = (self.swept + 1) % self.mappings.len();
            if self.mappings[self.swept].busy_until_ms.is_some() && self.is_over(self.swept, now) {
                self.release(self.swept);
            }
        }
        before - self.len
    }

    /// Bytes allocated; the same from the start on.
    pub fn memory_bytes(&self) -> usize {
        self.mappings.capacity() * size_of::<Mapping>() + self.heads.capacity() * size_of::<Place>()
    }

    /// The ports that `flow` may have at `server`, in the order in which they are tried; none twice.
    fn candidates(&self, flow: &FlowKey, server: SocketAddr) -> impl Iterator<Item = u16> + use<> {
        let mut hasher = self.hasher;
        (flow, server).hash(&mut hasher);
        let hash = hasher.finish();
        let (first, count) = (u32::from(self.ports.first()), u32::from(self.ports.count()));
        let start = (hash >> 32) as u32 % count;
        (0..PROBES_MAX.min(count)).map(move |probe| (first + (start + probe) % count) as u16)
    }

    fn is_over(&self, position: usize, now: Timestamp) -> bool {
        let quarantine_ms = millis(QUARANTINE);
        self.mappings[position].busy_until_ms.is_none_or(|until| until + quarantine_ms < now.as_millis())
    }

    fn bucket(&self, protocol: Protocol, port: u16, server: SocketAddr) -> usize {
        let mut hasher = self.hasher;
        (protocol, port, server).hash(&mut hasher);
        hasher.finish() as usize & (self.heads.len() - 1)
    }

    fn find(&self, protocol: Protocol, port: u16, server: SocketAddr) -> Option<usize> {
        let mut place = self.heads[self.bucket(protocol, port, server)];
        while let Some(position) = position_of(place) {
            let mapping = &self.mappings[position];
            if mapping.port == port && mapping.server == server && mapping.flow.protocol == protocol {
                return Some(position);
            }
            place = mapping.next;
        }
        None
    }

    /// False when there is no room.
    fn insert(&mut self, mapping: Mapping, now: Timestamp) -> bool {
        if self.len == self.capacity {
            self.expire(now, SWEEP_WHEN_FULL);
        }
        let bucket = self.bucket(mapping.flow.protocol, mapping.port, mapping.server);
        let mapping = Mapping { next: self.heads[bucket], ..mapping };
        let place = match position_of(self.free) {
            Some(position) => {
                let place = self.free;
                self.free = self.mappings[position].next;
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
        self.heads[bucket] = place;
        self.len += 1;
        true
    }

    fn release(&mut self, position: usize) {
        let Mapping { flow, server, port, next, .. } = self.mappings[position];
        let place = position as Place + 1;
        let bucket = self.bucket(flow.protocol, port, server);
        if self.heads[bucket] == place {
            self.heads[bucket] = next;
        } else {
            let mut before = self.heads[bucket];
            while let Some(other) = position_of(before) {
                before = self.mappings[other].next;
                if before == place {
                    self.mappings[other].next = next;
                    break;
                }
            }
        }
        self.mappings[position].busy_until_ms = None;
        self.mappings[position].next = self.free;
        self.free = place;
        self.len -= 1;
    }
}

fn position_of(place: Place) -> Option<usize> {
    (place as usize).checked_sub(1)
}

fn busy_until_ms(busy_for: Duration, now: Timestamp) -> u64 {
    now.as_millis().saturating_add(millis(busy_for))
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
        let port = table.port_for(&flow(1), server(1), LIFE, at(0)).unwrap();

        assert_eq!(table.port_for(&flow(1), server(1), LIFE, at(5)), Some(port));
        assert_eq!(table.flow_of(Protocol::Tcp, port, server(1), at(5)), Some(flow(1)));
        assert_eq!(table.flow_of(Protocol::Udp, port, server(1), at(5)), None);
        assert_eq!(table.flow_of(Protocol::Tcp, port, server(2), at(5)), None);
        assert_eq!((table.len(), table.is_empty()), (1, false));
    }

    #[test]
    fn flows_at_one_server_have_ports_of_their_own_and_at_others_may_share_them() {
        let mut table = table((61_000, 61_007), 100);
        let mut ports: Vec<u16> =
            (0..8).map(|client| table.port_for(&flow(client), server(1), LIFE, at(0)).unwrap()).collect();
        ports.sort_unstable();

        assert_eq!(ports, (61_000..=61_007).collect::<Vec<_>>());
        assert_eq!(table.port_for(&flow(9), server(1), LIFE, at(0)), None);
        assert!(table.port_for(&flow(9), server(2), LIFE, at(0)).is_some());
    }

    #[test]
    fn no_more_ports_are_tried_than_promised() {
        let mut table = table((61_000, 61_031), 100);
        let tried: Vec<u16> = table.candidates(&flow(1), server(1)).collect();
        for client in 2..1000 {
            let first = table.candidates(&flow(client), server(1)).next().unwrap();
            if tried.contains(&first) && table.find(Protocol::Tcp, first, server(1)).is_none() {
                table.port_for(&flow(client), server(1), LIFE, at(0)).unwrap();
            }
        }

        assert_eq!((tried.len(), table.len()), (16, 16));
        assert_eq!(table.port_for(&flow(1), server(1), LIFE, at(0)), None);
    }

    #[test]
    fn a_port_is_nobodys_for_a_minute_after_its_flow() {
        let mut table = table((61_000, 61_000), 100);
        table.port_for(&flow(1), server(1), Duration::from_secs(10), at(0)).unwrap();

        assert_eq!(table.flow_of(Protocol::Tcp, 61_000, server(1), at(11)), None);
        assert_eq!(table.port_for(&flow(2), server(1), LIFE, at(69)), None);
        assert_eq!(table.expire(at(69), 100), 0);
        assert_eq!(table.port_for(&flow(2), server(1), LIFE, at(71)), Some(61_000));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_state_that_ends_sooner_gives_the_port_back_sooner() {
        let mut table = table((61_000, 61_000), 100);
        table.port_for(&flow(1), server(1), LIFE, at(0)).unwrap();
        table.port_for(&flow(1), server(1), Duration::from_secs(10), at(5)).unwrap();

        assert_eq!(table.expire(at(76), 100), 1);
        assert!(table.is_empty());
    }

    #[test]
    fn a_full_table_refuses_and_never_grows() {
        let mut table = table((1000, 65_000), 64);
        let before = table.memory_bytes();
        let given = |table: &mut NatTable, from: u16, seconds| {
            let flows = from..from + 100;
            flows
                .filter(|client| table.port_for(&flow(*client), server(1), LIFE, at(seconds)).is_some())
                .count()
        };

        assert_eq!(given(&mut table, 1, 0), 64);
        assert_eq!(given(&mut table, 1000, 900), 0);
        assert_eq!(given(&mut table, 1000, 1000), 64);
        assert_eq!(table.memory_bytes(), before);
    }

    #[test]
    fn a_mapping_is_as_large_as_the_documentation_says() {
        assert!(size_of::<Mapping>() <= 112, "{}", size_of::<Mapping>());
    }
}
