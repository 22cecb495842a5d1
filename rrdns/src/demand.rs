//! Which client networks ask most: their caches stand for many clients, so what they are told should not last long.
//!
//! The two classes of clients are those of the two-tier TTL (Colajanni, Yu, Cardellini 1998, "Dynamic load balancing in
//! geographically distributed heterogeneous Web servers"). There, web servers report how much load a domain makes; here
//! it is estimated from its queries alone.

use crate::limiter::network_of;
use crate::prefix::Prefix;
use dpr_model::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Networks that are counted; others are rare (Metwally, Agrawal, El Abbadi 2005: no network with more than 1/64 of all
/// queries is missed).
const NETWORKS_MAX: usize = 64;

/// A network with more than one in this many of all recent queries is hot.
const HOT_SHARE: u64 = 8;

/// With fewer recent queries nobody is hot.
const QUERIES_MIN: u64 = 128;

/// Counts are halved after this time.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// Counts queries by client network, in the manner of space-saving.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demand {
    by_network: BTreeMap<Prefix, u64>,
    total: u64,
    halved: Timestamp,
}

impl Demand {
    /// Counts a query; says whether its network is hot.
    pub(crate) fn count(&mut self, client: IpAddr, now: Timestamp) -> bool {
        if now.since(self.halved) >= HALF_LIFE {
            self.halve();
            self.halved = now;
        }
        self.total += 1;
        let network = network_of(client);
        let count = match self.by_network.get_mut(&network) {
            Some(count) => count,
            None => {
                let inherited = if self.by_network.len() < NETWORKS_MAX { 0 } else { self.displace_least() };
                self.by_network.entry(network).or_insert(inherited)
            }
        };
        *count += 1;
        self.total >= QUERIES_MIN && *count * HOT_SHARE > self.total
    }

    /// Removes the network with the fewest queries and returns their number, which its successor inherits.
    fn displace_least(&mut self) -> u64 {
        let least = self.by_network.iter().min_by_key(|(_, count)| **count).map(|(network, _)| *network);
        least.and_then(|network| self.by_network.remove(&network)).unwrap_or(0)
    }

    fn halve(&mut self) {
        self.total /= 2;
        self.by_network.retain(|_, count| {
            *count /= 2;
            *count > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const BUSY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

    #[test]
    fn a_network_with_a_large_share_is_hot_and_the_many_small_ones_are_not() {
        let (mut demand, now) = (Demand::default(), Timestamp::default());
        let mut hot = (0, 0);
        for number in 0..10_000_u32 {
            hot.0 += u32::from(demand.count(Ipv4Addr::from(number << 8).into(), now));
            if number % 4 == 0 {
                hot.1 += u32::from(demand.count(BUSY, now));
            }
        }

        assert_eq!(hot.0, 0);
        assert!(hot.1 > 2400, "{hot:?}");
    }

    #[test]
    fn a_network_that_falls_silent_cools_down() {
        let mut demand = Demand::default();
        let mut now = Timestamp::default();
        for _ in 0..1000 {
            demand.count(BUSY, now);
        }
        for number in 0..10_u32 {
            now = now + HALF_LIFE;
            for other in 0..200_u32 {
                demand.count(Ipv4Addr::from((number * 200 + other) << 8).into(), now);
            }
        }

        assert!(!demand.count(BUSY, now));
    }
}
