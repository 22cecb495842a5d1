//! A keyed hash that costs a handful of multiplications, and that nobody can aim at who does not know the key.
//!
//! Pair-multiply-shift (Thorup, "High speed hashing for integers and strings", 2015), which is the NH of UMAC (Black et
//! al., "UMAC: fast and secure message authentication", 1999) with an addend. It is *strongly universal*: of any two
//! different messages that are chosen without knowledge of the key, the hashes are independent and uniform. So each of n
//! flows in m buckets shares its own with n / m others in the mean, whoever chose them, as with a perfect hash. That is a
//! theorem and not, as with foldhash or ahash, an observation.
//!
//! It is no pseudo-random function. Who saw hashes could solve for the key, so it may serve only where they show
//! nowhere: buckets do not. What remains is time: a flow that shares a bucket with another one takes a cache line
//! longer to find, some 100 ns in a packet's journey through two machines, and whoever wanted to learn the key would need
//! to tell that apart for thousands of pairs of flows. SipHash would make that useless, for 80 instructions a packet.

use siphasher::sip::SipHasher13;
use std::hash::Hasher as _;

/// Words of the longest message.
const WORDS_MAX: usize = 10;

/// The key: a random number for each word of a message, and one more.
#[derive(Clone, Debug)]
pub(crate) struct PairHash {
    factors: [u64; WORDS_MAX],
    addend: u64,
}

impl PairHash {
    /// Expands a seed by SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012).
    pub(crate) fn with_seed([low, high]: [u64; 2]) -> Self {
        let hasher = SipHasher13::new_with_keys(low, high);
        let number = |nth: usize| {
            let mut hasher = hasher;
            hasher.write_u64(nth as u64);
            hasher.finish()
        };
        Self { factors: std::array::from_fn(number), addend: number(WORDS_MAX) }
    }

    /// 32 uniform bits for a message of at most [`WORDS_MAX`] words, which have to be an even number. Where lengths differ,
    /// words that both messages have must differ as well.
    #[inline]
    pub(crate) fn hash<const N: usize>(&self, words: [u32; N]) -> u32 {
        const { assert!(N <= WORDS_MAX && N.is_multiple_of(2)) };
        let (pairs, _) = words.as_chunks::<2>();
        let (factors, _) = self.factors.as_chunks::<2>();
        let products = pairs.iter().zip(factors).map(|([first, second], [a, b])| {
            a.wrapping_add(u64::from(*second)).wrapping_mul(b.wrapping_add(u64::from(*first)))
        });
        let sum = products.fold(self.addend, u64::wrapping_add);
        (sum >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_hash_alike_and_others_do_not() {
        let hash = |seed| PairHash::with_seed(seed).hash([1, 2, 3, 4]);

        assert_eq!(hash([1, 2]), hash([1, 2]));
        assert_ne!(hash([1, 2]), hash([1, 3]));
        assert_ne!(hash([1, 2]), hash([3, 2]));
    }

    #[test]
    fn messages_that_an_attacker_would_try_are_spread_under_every_key() {
        const BUCKETS: usize = 1024;
        for seed in 0..16 {
            let hash = PairHash::with_seed([seed, 7]);
            // One bit, one port, one address, two words at once that cancel each other out in a plain sum.
            let attempts: [fn(u32) -> [u32; 4]; 4] = [
                |nth| [nth << 16, 0, 0, 0],
                |nth| [5, nth, 9, 9],
                |nth| [5, 6, nth << 8, u32::MAX - nth],
                |nth| [nth, nth.wrapping_neg(), nth, nth.wrapping_neg()],
            ];
            for attempt in attempts {
                let mut found = [0_u32; BUCKETS];
                for nth in 0..4 * BUCKETS as u32 {
                    found[hash.hash(attempt(nth)) as usize % BUCKETS] += 1;
                }
                let longest = found.iter().max().copied().unwrap_or_default();
                assert!(longest < 40, "{longest} of 4 messages a bucket share one, seed {seed}");
            }
        }
    }
}
