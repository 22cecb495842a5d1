//! The hash that all nodes and both data planes have to agree on.

/// A running hash of 64-bit words.
///
/// Each word goes through the finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014): two multiplications and three shifts, which kernel programs can afford. Another function than
/// the one by which tunnels are spread over paths, so that the flows of a slot do not all take the same path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash(u64);

impl Hash {
    /// Begins a hash; different seeds give unrelated hashes.
    pub(crate) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Takes in a word.
    pub(crate) const fn word(self, word: u64) -> Self {
        let mut mixed = (self.0 ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(mixed ^ (mixed >> 31))
    }

    /// The hash.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}
