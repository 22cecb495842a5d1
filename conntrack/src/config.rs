//! What an operator can choose about the table, with the bounds of each choice.

use crate::tcp_state::TcpState;
use std::time::Duration;

/// Upper bound of [`Config::capacity`]: 2^26 connections, 4 GiB.
pub const CAPACITY_MAX: usize = 1 << 26;

/// Lower bound of every timeout.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// Upper bound of every timeout: 7 days.
///
/// Deadlines are 32-bit milliseconds that wrap, so they can tell past from future over 24 days either way.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Size, patience and hash key of a table. Values beyond their bounds count as the nearest bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Connections that the table can hold, 64 bytes each; 1 to [`CAPACITY_MAX`]. When it is full, the director keeps
    /// new connections. Powers of two make the best use of the memory.
    pub capacity: usize,
    /// Of those, how many may be half-open; 1 to `capacity`. A SYN flood can take no more room than this. At
    /// n connections a second that take t to shake hands, n·t are half-open without any attack.
    pub half_open_capacity: usize,
    /// How long the table remembers a silent connection.
    pub timeouts: Timeouts,
    /// Secret key of the hash, so that nobody can aim connections at one bucket. Must be random in production.
    pub hash_seed: [u64; 2],
}

impl Config {
    /// A million connections, 65,536 of them half-open, IPVS timeouts.
    ///
    /// There is no `Default`, so that no table gets a well-known key by oversight.
    pub fn with_seed(hash_seed: [u64; 2]) -> Self {
        Self { capacity: 1 << 20, half_open_capacity: 1 << 16, timeouts: Timeouts::default(), hash_seed }
    }

    pub(crate) fn capacity_bounded(&self) -> usize {
        self.capacity.clamp(1, CAPACITY_MAX)
    }

    pub(crate) fn half_open_capacity_bounded(&self) -> usize {
        self.half_open_capacity.clamp(1, self.capacity_bounded())
    }
}

/// How long the table remembers a connection after the last packet that counts; [`TIMEOUT_MIN`] to [`TIMEOUT_MAX`].
///
/// The defaults are those of IPVS (Linux `net/netfilter/ipvs/ip_vs_proto_tcp.c`, `tcp_timeouts`), which operators of
/// LVS have tuned their applications' keepalives to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Half-open; IPVS `SYN_RECV`, 1 minute.
    pub syn: Duration,
    /// Established; IPVS `ESTABLISHED`, 15 minutes.
    pub established: Duration,
    /// The client has closed its half; IPVS `FIN_WAIT`, 2 minutes.
    pub fin: Duration,
    /// Reset or reported closed; IPVS `CLOSE`, 10 seconds.
    pub close: Duration,
    /// After a datagram of a UDP flow; IPVS `UDP`, 5 minutes.
    pub udp: Duration,
}

impl Timeouts {
    /// Milliseconds for each protocol in each state, by their numbers and within the bounds.
    pub(crate) fn by_state_ms(&self) -> [[u64; TcpState::ALL.len()]; 2] {
        let millis = |timeout: Duration| {
            let millis = timeout.clamp(TIMEOUT_MIN, TIMEOUT_MAX).as_millis();
            u64::try_from(millis).unwrap_or(u64::MAX)
        };
        let of_tcp = TcpState::ALL.map(|state| match state {
            TcpState::HalfOpen => millis(self.syn),
            TcpState::Established => millis(self.established),
            TcpState::Fin => millis(self.fin),
            TcpState::Reset | TcpState::Closed => millis(self.close),
        });
        [of_tcp, [millis(self.udp); TcpState::ALL.len()]]
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            syn: Duration::from_secs(60),
            established: Duration::from_secs(15 * 60),
            fin: Duration::from_secs(2 * 60),
            close: Duration::from_secs(10),
            udp: Duration::from_secs(5 * 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_their_bounds_count_as_the_nearest_bound() {
        let config = Config { capacity: 0, half_open_capacity: usize::MAX, ..Config::with_seed([1, 2]) };

        assert_eq!((config.capacity_bounded(), config.half_open_capacity_bounded()), (1, 1));
    }
}
