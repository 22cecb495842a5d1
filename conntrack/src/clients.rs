//! Persistence: which real server a client was given, so that its next connection goes there too.
//!
//! A client is a flow key without a client port, whose client address may be that of a network. What IPVS calls a
//! template is an entry here. Entries lie in buckets of [`WAYS`] places that a keyed hash chooses: memory is reserved at
//! the start, every call looks at one bucket, and nothing has to be rehashed. A client that finds its bucket full takes
//! the place of one that has shown no established connection, the one quiet for the longest; or else of any, quiet for
//! the longest. So forgers who send SYNs displace each other first.

use crate::hash::PairHash;
use crate::key::Key;
use crate::table::Page;
use dpr_model::{FlowKey, NodeId, Timestamp};
use std::time::Duration;

/// Places that a client can be in.
const WAYS: usize = 8;

/// Others are told of a client so many times in its timeout: one of them may be late, or lost.
const TOLD_PER_TIMEOUT: u32 = 4;

/// Clients at most, 64 bytes each.
pub const CLIENTS_MAX: usize = 1 << 24;

#[derive(Clone, Copy, Debug)]
struct Place {
    client: Key,
    server: NodeId,
    /// The client has shown that it receives what is sent to its address.
    established: bool,
    /// When others were last told, seconds; 0 for never.
    told_at_s: u32,
    /// When the client was given to the server, milliseconds.
    chosen_ms: u64,
    /// Until when it counts, milliseconds; 0 in a place that nobody has.
    until_ms: u64,
}

/// Nodes tell each other ages in units of this.
pub(crate) const AGE_UNIT: Duration = Duration::from_millis(16);

/// Where a client stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// With whom.
    pub server: NodeId,
    /// How long ago it was given to it, by whoever did so; on the wire in units of 16 ms, 17 minutes at most.
    pub age: Duration,
    /// For how long, if nothing is heard of it.
    pub left: Duration,
    /// It has shown that it receives what is sent to its address; nobody tells others of a client that has not.
    pub established: bool,
}

/// Clients and their real servers. Times come from the caller and do not run backwards.
#[derive(Debug)]
pub struct Clients {
    places: Box<[Place]>,
    hash: PairHash,
    len: usize,
    displaced: u64,
    swept: usize,
}

impl Clients {
    /// An empty table for `capacity` clients (1 to [`CLIENTS_MAX`], rounded up to a power of two of at least 8; values
    /// beyond count as the nearest bound). The secret seed keeps strangers from aiming at one bucket.
    pub fn new(capacity: usize, hash_seed: [u64; 2]) -> Self {
        let capacity = capacity.clamp(WAYS, CLIENTS_MAX).next_power_of_two();
        let hash = PairHash::with_seed(hash_seed);
        Self { places: vec![Place::EMPTY; capacity].into(), hash, len: 0, displaced: 0, swept: 0 }
    }

    /// The real server of a client, if it has one at `now`.
    pub fn server_of(&self, client: &FlowKey, now: Timestamp) -> Option<NodeId> {
        self.stay_of(client, now).map(|stay| stay.server)
    }

    /// Where a client stays, if it does at `now`.
    pub fn stay_of(&self, client: &FlowKey, now: Timestamp) -> Option<Stay> {
        let (key, now_ms) = (Key::from(client), now.as_millis());
        let mut bucket = self.bucket(&key).iter();
        bucket.find(|place| place.is_of(&key, now_ms)).map(|place| place.stay(now_ms))
    }

    /// From now on the client's real server is `server`, for `timeout`.
    pub fn give(&mut self, client: &FlowKey, server: NodeId, timeout: Duration, now: Timestamp) {
        self.put(client, Stay { server, age: Duration::ZERO, left: timeout, established: false }, now);
    }

    /// The client has sent something on a connection that `server` has: it stays there for another `timeout`, unless it
    /// has been given to another one since. `established` says whether the client has answered a handshake. True if others
    /// should hear of it: they do not know yet, or what they know will be over soon.
    pub fn renew(
        &mut self,
        client: &FlowKey,
        server: NodeId,
        established: bool,
        timeout: Duration,
        now: Timestamp,
    ) -> bool {
        if self.server_of(client, now).is_some_and(|present| present != server) {
            return false;
        }
        let stay = Stay { server, age: Duration::ZERO, left: timeout, established };
        let place = self.put(client, stay, now);
        let now_s = u32::try_from(now.as_millis() / 1000).unwrap_or(u32::MAX).max(1);
        let every_s = (timeout / TOLD_PER_TIMEOUT).as_secs();
        let is_due = place.told_at_s == 0 || u64::from(now_s.saturating_sub(place.told_at_s)) >= every_s;
        let is_news = place.established && is_due;
        if is_news {
            place.told_at_s = now_s;
        }
        is_news
    }

    /// Another node says where the client stays. If it does so by this node's own knowledge, that may be the newer one.
    pub fn copy(&mut self, client: &FlowKey, stay: Stay, now: Timestamp) {
        let known = self.stay_of(client, now).filter(|known| known.server == stay.server);
        let left = known.map_or(stay.left, |known| known.left.max(stay.left));
        self.put(client, Stay { left, ..stay }, now);
    }

    /// Others know something else of the client: they are told with its next packet.
    pub fn tell_again(&mut self, client: &FlowKey, now: Timestamp) {
        let (key, start) = (Key::from(client), self.bucket_start(&Key::from(client)));
        let mut bucket = self.places[start..start + WAYS].iter_mut();
        let place = bucket.find(|place| place.is_of(&key, now.as_millis()));
        place.into_iter().for_each(|place| place.told_at_s = 0);
    }

    /// Clients in `places` places from place `from` on that have established something, and where they stay.
    pub fn page(
        &self,
        from: usize,
        places: usize,
        now: Timestamp,
    ) -> Page<impl Iterator<Item = (FlowKey, Stay)>> {
        let now_ms = now.as_millis();
        let end = from.saturating_add(places).min(self.places.len());
        let live = self.places[from.min(end)..end].iter();
        let live = live.filter(move |place| place.until_ms > now_ms && place.established);
        let entries = live.map(move |place| place.view(now_ms));
        Page { entries, next: (end < self.places.len()).then_some(end) }
    }

    /// Gives back the room of clients whose time is over; looks at no more than `budget` places. Returns how many.
    pub fn expire(&mut self, now: Timestamp, budget: usize) -> usize {
        let before = self.len;
        for _ in 0..budget.min(self.places.len()) {
            self.swept = (self.swept + 1) % self.places.len();
            let place = &mut self.places[self.swept];
            if place.until_ms != 0 && place.until_ms <= now.as_millis() {
                *place = Place::EMPTY;
                self.len -= 1;
            }
        }
        before - self.len
    }

    /// Every client, and where it stays.
    pub fn iter(&self, now: Timestamp) -> impl Iterator<Item = (FlowKey, Stay)> {
        let now_ms = now.as_millis();
        let live = self.places.iter().filter(move |place| place.until_ms > now_ms);
        live.map(move |place| place.view(now_ms))
    }

    /// Clients that have a real server; some whose time is over may still be counted.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Clients that there is room for.
    pub fn capacity(&self) -> usize {
        self.places.len()
    }

    /// Clients that lost their place to others before their time was over, since the start.
    pub fn displaced(&self) -> u64 {
        self.displaced
    }

    /// Bytes allocated; the same from the start on.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.places)
    }

    fn put(&mut self, client: &FlowKey, stay: Stay, now: Timestamp) -> &mut Place {
        let Stay { server, age, left, established } = stay;
        let (key, now_ms) = (Key::from(client), now.as_millis());
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let start = self.bucket_start(&key);
        let bucket = &mut self.places[start..start + WAYS];
        let own = bucket.iter().position(|place| place.is_of(&key, now_ms));
        let chosen = own.unwrap_or_else(|| most_dispensable(bucket, now_ms));
        let place = &mut bucket[chosen];
        let is_same = own.is_some() && place.server == server;
        let established = established || is_same && place.established;
        let told_at_s = if is_same { place.told_at_s } else { 0 };
        let chosen_ms = if is_same { place.chosen_ms } else { now_ms.saturating_sub(millis(age)) };
        self.displaced += u64::from(own.is_none() && place.until_ms > now_ms);
        self.len += usize::from(place.until_ms == 0);
        let until_ms = now_ms.saturating_add(millis(left)).max(1);
        *place = Place { client: key, server, established, told_at_s, chosen_ms, until_ms };
        place
    }

    fn bucket(&self, key: &Key) -> &[Place] {
        let start = self.bucket_start(key);
        &self.places[start..start + WAYS]
    }

    fn bucket_start(&self, key: &Key) -> usize {
        (key.hash(&self.hash) as usize & (self.places.len() / WAYS - 1)) * WAYS
    }
}

impl Place {
    const EMPTY: Self = Self {
        client: Key::ZERO,
        server: NodeId(0),
        established: false,
        told_at_s: 0,
        chosen_ms: 0,
        until_ms: 0,
    };

    /// What a place that counts at `now_ms` says.
    fn view(&self, now_ms: u64) -> (FlowKey, Stay) {
        (self.client.flow(), self.stay(now_ms))
    }

    fn stay(&self, now_ms: u64) -> Stay {
        let age = Duration::from_millis(now_ms.saturating_sub(self.chosen_ms));
        let left = Duration::from_millis(self.until_ms.saturating_sub(now_ms));
        Stay { server: self.server, age, left, established: self.established }
    }

    fn is_of(&self, client: &Key, now_ms: u64) -> bool {
        self.until_ms > now_ms && self.client == *client
    }
}

/// The place in a bucket whose client misses it least: none, one whose time is over, one that has established nothing, one
/// that has been quiet for longer.
fn most_dispensable(bucket: &[Place], now_ms: u64) -> usize {
    let merit = |place: &Place| match place.until_ms {
        until_ms if until_ms <= now_ms => (false, 0),
        until_ms => (place.established, until_ms),
    };
    (0..bucket.len()).min_by_key(|position| merit(&bucket[*position])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::{ClientSocket, Protocol, ServiceSocket};
    use std::net::Ipv4Addr;

    const TIMEOUT: Duration = Duration::from_secs(360);
    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn client(number: u32) -> FlowKey {
        FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address: Ipv4Addr::from(number).into(), port: 0 },
            service: ServiceSocket { address: [192, 0, 2, 1].into(), port: 21 },
        }
    }

    #[test]
    fn a_client_keeps_its_server_until_it_was_quiet_for_the_timeout() {
        let mut clients = Clients::new(64, [1, 2]);
        clients.give(&client(1), A, TIMEOUT, at(0));
        clients.renew(&client(1), A, true, TIMEOUT, at(300));

        assert_eq!(clients.server_of(&client(1), at(659)), Some(A));
        assert_eq!(clients.server_of(&client(1), at(660)), None);
        assert_eq!(clients.server_of(&client(2), at(300)), None);
        let udp = FlowKey { protocol: Protocol::Udp, ..client(1) };
        assert_eq!(clients.server_of(&udp, at(300)), None);
    }

    #[test]
    fn a_connection_elsewhere_changes_nothing_but_brings_back_what_was_forgotten() {
        let mut clients = Clients::new(64, [1, 2]);
        clients.give(&client(1), A, TIMEOUT, at(0));
        clients.renew(&client(1), B, true, TIMEOUT, at(10));
        assert_eq!(clients.server_of(&client(1), at(10)), Some(A));

        clients.renew(&client(1), B, true, TIMEOUT, at(400));
        assert_eq!(clients.server_of(&client(1), at(400)), Some(B));
        clients.give(&client(1), A, TIMEOUT, at(401));
        assert_eq!(clients.server_of(&client(1), at(401)), Some(A));
        assert_eq!((clients.len(), clients.displaced()), (1, 0));
    }

    #[test]
    fn others_hear_of_who_has_established_something_and_again_before_its_time_is_over() {
        let mut clients = Clients::new(64, [1, 2]);
        let mut renew = |server, established, seconds| {
            clients.renew(&client(1), server, established, TIMEOUT, at(seconds))
        };

        assert!(!renew(A, false, 0), "perhaps it is a forged SYN");
        assert!(renew(A, true, 1));
        assert!(!renew(A, true, 90));
        assert!(renew(A, true, 91));
        assert!(!renew(B, true, 300), "it is with another one");
        assert!(renew(B, true, 500), "and was forgotten by then");
        clients.tell_again(&client(1), at(510));
        assert!(clients.renew(&client(1), B, true, TIMEOUT, at(511)), "somebody thinks otherwise");
    }

    fn stay(server: NodeId, age_s: u64, left_s: u64) -> Stay {
        let (age, left) = (Duration::from_secs(age_s), Duration::from_secs(left_s));
        Stay { server, age, left, established: true }
    }

    #[test]
    fn what_others_say_of_a_client_lasts_as_long_as_they_say_and_is_said_on() {
        let mut clients = Clients::new(16, [1, 2]);
        clients.renew(&client(1), A, true, TIMEOUT, at(0));
        clients.give(&client(2), A, TIMEOUT, at(0));
        clients.copy(&client(1), stay(B, 7, 20), at(10));

        assert_eq!(clients.server_of(&client(1), at(29)), Some(B));
        let first = clients.page(0, 8, at(11));
        let second = clients.page(first.next.unwrap(), 8, at(11));
        assert_eq!(second.next, None);
        let told: Vec<_> = first.entries.chain(second.entries).collect();
        assert_eq!(told, [(client(1), stay(B, 8, 19))], "who established nothing is not told of");
        assert_eq!(clients.server_of(&client(1), at(30)), None);
    }

    #[test]
    fn what_others_say_of_a_client_makes_its_stay_no_shorter_and_no_younger() {
        let mut clients = Clients::new(16, [1, 2]);
        clients.renew(&client(1), A, true, TIMEOUT, at(0));

        clients.copy(&client(1), stay(A, 0, 20), at(10));
        assert_eq!(clients.stay_of(&client(1), at(10)), Some(stay(A, 10, 350)));
        clients.copy(&client(1), stay(A, 50, 360), at(20));
        assert_eq!(clients.stay_of(&client(1), at(20)), Some(stay(A, 20, 360)));
    }

    #[test]
    fn a_flood_displaces_those_first_who_established_nothing() {
        let mut clients = Clients::new(WAYS, [1, 2]);
        let established = 1..=4;
        for number in established.clone() {
            clients.renew(&client(number), A, true, TIMEOUT, at(0));
        }
        for number in 100..200 {
            clients.give(&client(number), B, TIMEOUT, at(1));
        }

        assert!(established.clone().all(|number| clients.server_of(&client(number), at(1)) == Some(A)));
        assert_eq!((clients.len(), clients.displaced()), (WAYS, 96));
        for number in 200..208 {
            clients.renew(&client(number), B, true, TIMEOUT, at(2));
        }
        assert!(established.into_iter().all(|number| clients.server_of(&client(number), at(2)).is_none()));
    }

    #[test]
    fn room_comes_back_with_time_and_memory_never_grows() {
        let mut clients = Clients::new(1000, [1, 2]);
        let before = clients.memory_bytes();
        (0..5000).for_each(|number| clients.give(&client(number), A, TIMEOUT, at(0)));
        assert_eq!((clients.capacity(), clients.memory_bytes()), (1024, before));
        assert_eq!(clients.iter(at(1)).count(), clients.len());

        assert_eq!(clients.expire(at(359), usize::MAX), 0);
        let expired = clients.expire(at(360), usize::MAX);

        assert!(expired > 1000 && clients.is_empty(), "{expired}");
        let quarter: Vec<u32> = (0..256).collect();
        quarter.iter().for_each(|number| clients.give(&client(*number), A, TIMEOUT, at(400)));
        let kept = quarter.iter().filter(|number| clients.server_of(&client(**number), at(400)).is_some());
        assert!(kept.count() > 250, "a table a quarter full displaces next to nobody");
    }

    #[test]
    fn a_client_takes_as_much_room_as_the_documentation_says() {
        assert!(size_of::<Place>() <= 64, "{}", size_of::<Place>());
    }
}
