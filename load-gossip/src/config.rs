//! What a node's gossip is configured with; values out of range cannot be built.

use crate::auth::Keyring;
use crate::table::PEERS_MAX;
use dpr_model::{Incarnation, NodeId};
use std::net::SocketAddr;
use std::time::Duration;

/// Shortest interval between reports; below it the timers of ordinary kernels blur the jitter.
pub const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Longest interval between reports; beyond it load is old news whenever it arrives.
pub const INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Longest slow start.
pub const SLOW_START_MAX: Duration = Duration::from_secs(600);

/// Configuration of [`crate::Gossip`].
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) interval: Duration,
    pub(crate) multicast: bool,
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) keyring: Keyring,
    pub(crate) slow_start: Duration,
    pub(crate) seed: u64,
}

impl Config {
    /// The defaults for `node` in its life `incarnation`: a report every 100 ms by multicast, no configured
    /// peers, no authentication, slow start over 3 s.
    pub fn new(node: NodeId, incarnation: Incarnation) -> Self {
        Self {
            node,
            incarnation,
            interval: Duration::from_millis(100),
            multicast: true,
            peers: Vec::new(),
            keyring: Keyring::unauthenticated(),
            slow_start: Duration::from_secs(3),
            seed: incarnation.0 ^ u64::from(node.0),
        }
    }

    /// Time between reports, [`INTERVAL_MIN`] to [`INTERVAL_MAX`], in whole milliseconds (the rest is cut
    /// off). A dead node is suspected after 3.3 intervals on a network without loss; every node receives
    /// one datagram per peer and interval.
    pub fn with_interval(mut self, interval: Duration) -> Result<Self, ConfigError> {
        if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
            return Err(ConfigError::Interval(interval));
        }
        self.interval = interval - Duration::from_nanos(u64::from(interval.subsec_nanos() % 1_000_000));
        Ok(self)
    }

    /// Whether there are multicast groups to send to ([`crate::Destination::Groups`]); the shell knows which.
    pub fn with_multicast(mut self, multicast: bool) -> Self {
        self.multicast = multicast;
        self
    }

    /// Peers that always get a copy by unicast, such as those on other networks; at most [`PEERS_MAX`].
    pub fn with_peers(mut self, peers: Vec<SocketAddr>) -> Result<Self, ConfigError> {
        if peers.len() > PEERS_MAX {
            return Err(ConfigError::TooManyPeers(peers.len()));
        }
        if let Some(peer) = peers.iter().find(|peer| !is_reachable(peer)) {
            return Err(ConfigError::Peer(*peer));
        }
        self.peers = peers;
        Ok(self)
    }

    /// Keys; without them anybody on the cluster network can speak for any node.
    pub fn with_keyring(mut self, keyring: Keyring) -> Self {
        self.keyring = keyring;
        self
    }

    /// Time in which a peer that joins or returns rises from 10 % to 100 % of its weight, up to
    /// [`SLOW_START_MAX`]; zero turns slow start off.
    pub fn with_slow_start(mut self, slow_start: Duration) -> Result<Self, ConfigError> {
        if slow_start > SLOW_START_MAX {
            return Err(ConfigError::SlowStart(slow_start));
        }
        self.slow_start = slow_start;
        Ok(self)
    }

    /// Seed of the jitter of the interval; by default out of node id and incarnation.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

/// A value that [`Config`] refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The interval is out of range.
    #[error("interval {0:?} is not between {INTERVAL_MIN:?} and {INTERVAL_MAX:?}")]
    Interval(Duration),
    /// Too many configured peers.
    #[error("{0} peers are more than {PEERS_MAX}")]
    TooManyPeers(usize),
    /// Nothing can be sent to this peer by unicast.
    #[error("{0} cannot be a peer: it needs a unicast address and a port")]
    Peer(SocketAddr),
    /// The slow start is too long.
    #[error("slow start {0:?} is longer than {SLOW_START_MAX:?}")]
    SlowStart(Duration),
}

fn is_reachable(peer: &SocketAddr) -> bool {
    peer.port() != 0 && !peer.ip().is_unspecified() && !peer.ip().is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(NodeId(1), Incarnation(1))
    }

    #[test]
    fn values_out_of_range_are_named_and_refused() {
        let short = Duration::from_millis(9);
        let group: SocketAddr = "239.1.2.3:7946".parse().unwrap();
        let long = SLOW_START_MAX + Duration::from_secs(1);

        assert_eq!(config().with_interval(short).unwrap_err(), ConfigError::Interval(short));
        assert_eq!(config().with_peers(vec![group]).unwrap_err(), ConfigError::Peer(group));
        assert_eq!(config().with_slow_start(long).unwrap_err(), ConfigError::SlowStart(long));
        let many = vec!["192.0.2.1:1".parse().unwrap(); PEERS_MAX + 1];
        assert_eq!(config().with_peers(many).unwrap_err(), ConfigError::TooManyPeers(PEERS_MAX + 1));
    }

    #[test]
    fn intervals_are_whole_milliseconds_as_on_the_wire() {
        let config = config().with_interval(Duration::from_micros(25_900)).unwrap();

        assert_eq!(config.interval, Duration::from_millis(25));
    }
}
