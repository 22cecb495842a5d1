//! Response-rate limiting: nobody's network is flooded with answers to questions that it may never have asked.
//!
//! A token bucket for each client network, in a table that does not grow (the idea: Vixie and Schryver 2012, "DNS
//! response rate limiting"). Answers over the limit are dropped, but every second one is sent truncated, so that a real
//! client behind the network can come by TCP.

use crate::prefix::Prefix;
use dpr_model::Timestamp;
use siphasher::sip::SipHasher13;
use std::hash::{Hash as _, Hasher as _};
use std::net::IpAddr;

/// Buckets; a power of two. 24 bytes each.
const BUCKETS: usize = 16_384;

/// A bucket holds this many seconds of answers, so that short bursts pass.
const BURST_S: u64 = 2;

/// Bits of a client network: what one attacker's victim or one resolver's operator has (BIND's defaults).
const IPV4_BITS: u8 = 24;
const IPV6_BITS: u8 = 56;

/// Fractions of an answer that a bucket counts.
const ANSWER: u64 = 1000;

/// What may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// The answer.
    Answer,
    /// The question with TC set.
    Truncated,
    /// Nothing.
    Nothing,
}

/// The network that is counted for a client.
pub(crate) fn network_of(client: IpAddr) -> Prefix {
    Prefix::of(client, if client.is_ipv4() { IPV4_BITS } else { IPV6_BITS })
}

/// Limits answers by client network.
#[derive(Clone, Debug)]
pub(crate) struct Limiter {
    /// Answers per second and network; 0 limits nothing.
    rate: u64,
    seed: [u8; 16],
    buckets: Vec<Bucket>,
    limited: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Which network, by a keyed hash; 0 is nobody's.
    tag: u64,
    /// In thousandths of an answer.
    tokens: u64,
    renewed_ms: u64,
}

impl Limiter {
    pub(crate) fn new(rate: u32, seed: [u8; 16]) -> Self {
        let count = if rate == 0 { 0 } else { BUCKETS };
        Self { rate: rate.into(), seed, buckets: vec![Bucket::default(); count], limited: 0 }
    }

    /// Asks to send one answer to `client`.
    pub(crate) fn ask(&mut self, client: IpAddr, now: Timestamp) -> Permit {
        if self.rate == 0 {
            return Permit::Answer;
        }
        let full = self.rate * ANSWER * BURST_S;
        let (rate, now_ms) = (self.rate, now.as_millis());
        let bucket = self.bucket(client, full, now_ms);
        let gained = now_ms.saturating_sub(bucket.renewed_ms).saturating_mul(rate);
        bucket.tokens = bucket.tokens.saturating_add(gained).min(full);
        bucket.renewed_ms = now_ms;
        if bucket.tokens >= ANSWER {
            bucket.tokens -= ANSWER;
            return Permit::Answer;
        }
        self.limited += 1;
        if self.limited.is_multiple_of(2) { Permit::Truncated } else { Permit::Nothing }
    }

    /// The bucket of a client's network: one of two places, and of strangers the one that loses least.
    fn bucket(&mut self, client: IpAddr, full: u64, now_ms: u64) -> &mut Bucket {
        let mut hasher = SipHasher13::new_with_key(&self.seed);
        network_of(client).hash(&mut hasher);
        let tag = hasher.finish().max(1);
        let (first, second) = (place(tag), place(tag >> 32));
        let known = [first, second].into_iter().find(|place| self.buckets[*place].tag == tag);
        let rate = self.rate;
        let fill = |bucket: &Bucket| {
            bucket.tokens.saturating_add(now_ms.saturating_sub(bucket.renewed_ms).saturating_mul(rate))
        };
        let at = known.unwrap_or_else(|| {
            let fuller =
                if fill(&self.buckets[first]) >= fill(&self.buckets[second]) { first } else { second };
            self.buckets[fuller] = Bucket { tag, tokens: full, renewed_ms: now_ms };
            fuller
        });
        &mut self.buckets[at]
    }
}

fn place(tag: u64) -> usize {
    // The lower bits, of which there are enough.
    tag as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

    fn answered(limiter: &mut Limiter, client: IpAddr, asked: u32, now: Timestamp) -> usize {
        (0..asked).filter(|_| limiter.ask(client, now) == Permit::Answer).count()
    }

    #[test]
    fn a_network_gets_its_rate_and_a_short_burst() {
        let mut limiter = Limiter::new(100, [1; 16]);
        let start = Timestamp::from_millis(5);

        assert_eq!(answered(&mut limiter, CLIENT, 1000, start), 200);
        assert_eq!(answered(&mut limiter, CLIENT, 1000, start + Duration::from_millis(500)), 50);
        // Neighbours share, others do not.
        assert_eq!(answered(&mut limiter, "198.51.100.8".parse().unwrap(), 9, start), 0);
        assert_eq!(answered(&mut limiter, "198.51.101.8".parse().unwrap(), 9, start), 9);
    }

    #[test]
    fn a_long_silence_saves_nothing_up_beyond_the_burst() {
        let mut limiter = Limiter::new(100, [1; 16]);
        assert_eq!(answered(&mut limiter, CLIENT, 1000, Timestamp::from_millis(0)), 200);

        let much_later = Timestamp::from_millis(3_600_000);

        assert_eq!(answered(&mut limiter, CLIENT, 1000, much_later), 200);
    }

    #[test]
    fn an_ipv6_network_is_what_one_site_has() {
        let mut limiter = Limiter::new(10, [1; 16]);
        let mut from =
            |address: &str| answered(&mut limiter, address.parse().unwrap(), 100, Timestamp::default());

        assert_eq!(from("2001:db8::1"), 20);
        assert_eq!(from("2001:db8:0:ff::1"), 0, "the same /56");
        assert_eq!(from("2001:db8:0:100::1"), 20, "the next one");
    }

    #[test]
    fn every_second_answer_over_the_limit_is_sent_truncated() {
        let mut limiter = Limiter::new(1, [1; 16]);
        let now = Timestamp::from_millis(0);

        let permits: Vec<Permit> = (0..6).map(|_| limiter.ask(CLIENT, now)).collect();

        use Permit::{Answer, Nothing, Truncated};
        assert_eq!(permits, [Answer, Answer, Nothing, Truncated, Nothing, Truncated]);
    }

    #[test]
    fn a_flood_from_everywhere_does_not_free_a_network_that_is_limited() {
        let mut limiter = Limiter::new(10, [1; 16]);
        let now = Timestamp::from_millis(0);
        assert_eq!(answered(&mut limiter, CLIENT, 1000, now), 20);

        for network in 0..100_000_u32 {
            limiter.ask(Ipv4Addr::from(network << 8).into(), now);
        }

        assert_eq!(answered(&mut limiter, CLIENT, 100, now), 0);
    }

    #[test]
    fn without_a_rate_nothing_is_limited() {
        let mut limiter = Limiter::new(0, [1; 16]);

        assert_eq!(answered(&mut limiter, CLIENT, 10_000, Timestamp::default()), 10_000);
    }
}
