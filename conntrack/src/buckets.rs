//! The index: heads of chains of entries, by keyed hash of the flow.

use crate::hash::PairHash;
use crate::key::{Ipv4Key, Key};
use crate::slab::{EntryIndex, Slab};

/// Chained buckets, as many as the greatest power of two that is not above the capacity.
#[derive(Debug)]
pub(crate) struct Buckets {
    heads: Box<[Option<EntryIndex>]>,
    hash: PairHash,
}

impl Buckets {
    pub(crate) fn new(capacity: usize, hash_seed: [u64; 2]) -> Self {
        let count = 1 << capacity.ilog2();
        Self { heads: vec![None; count].into(), hash: PairHash::with_seed(hash_seed) }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.heads)
    }

    #[inline]
    pub(crate) fn find(&self, slab: &Slab, key: &Key) -> Option<EntryIndex> {
        self.find_in(slab, self.bucket(key), |other| other == key)
    }

    /// As [`Self::find`].
    #[inline(always)]
    pub(crate) fn find_ipv4(&self, slab: &Slab, key: &Ipv4Key) -> Option<EntryIndex> {
        self.find_in(slab, self.bucket_of(key.hash(&self.hash)), |other| other.is(key))
    }

    #[inline(always)]
    fn find_in(&self, slab: &Slab, bucket: usize, is_it: impl Fn(&Key) -> bool) -> Option<EntryIndex> {
        let mut at = self.heads[bucket];
        while let Some(index) = at {
            let entry = &slab[index];
            if is_it(&entry.key) {
                return Some(index);
            }
            at = entry.chain_next;
        }
        None
    }

    /// Puts an entry that is in no chain at the front of its own.
    pub(crate) fn insert(&mut self, slab: &mut Slab, index: EntryIndex) {
        let bucket = self.bucket(&slab[index].key);
        let head = &mut self.heads[bucket];
        slab[index].chain_next = head.replace(index);
    }

    /// Takes an entry out of its chain.
    pub(crate) fn remove(&mut self, slab: &mut Slab, index: EntryIndex) {
        let next = slab[index].chain_next.take();
        let bucket = self.bucket(&slab[index].key);
        let head = &mut self.heads[bucket];
        if *head == Some(index) {
            *head = next;
            return;
        }
        let mut at = *head;
        while let Some(before) = at {
            at = slab[before].chain_next;
            if at == Some(index) {
                slab[before].chain_next = next;
                return;
            }
        }
    }

    #[inline]
    fn bucket(&self, key: &Key) -> usize {
        self.bucket_of(key.hash(&self.hash))
    }

    #[inline]
    fn bucket_of(&self, hash: u32) -> usize {
        hash as usize & self.heads.len().wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::{ClientSocket, FlowKey, Protocol, ServiceSocket};
    use std::net::IpAddr;

    fn key(port: u16) -> Key {
        let address = IpAddr::from([192, 0, 2, 1]);
        Key::from(&FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address, port },
            service: ServiceSocket { address, port: 80 },
        })
    }

    #[test]
    fn there_is_at_most_one_bucket_per_connection() {
        for (capacity, buckets) in [(1, 1), (1000, 512), (1024, 1024)] {
            assert_eq!(Buckets::new(capacity, [0; 2]).heads.len(), buckets);
        }
    }

    #[test]
    fn whoever_does_not_know_the_key_cannot_aim_at_a_bucket() {
        let known = Buckets::new(1024, [1, 2]);
        let secret = Buckets::new(1024, [3, 4]);
        let aimed: Vec<Key> = (0..=u16::MAX).map(key).filter(|key| known.bucket(key) == 0).collect();

        let hits = aimed.iter().filter(|key| secret.bucket(key) == 0).count();

        assert!(aimed.len() > 32, "about 64 of 65,536 flows belong to one of 1,024 buckets");
        assert!(hits < 4, "{hits} of {} aimed flows share a bucket under the other key", aimed.len());
    }
}
