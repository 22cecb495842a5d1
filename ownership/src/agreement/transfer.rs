//! Maps in chunks: sent to all by who made one, asked for by who missed it.

use crate::agreement::message::{CHUNK_BYTES, Chunk, Request};
use crate::encoding::MapHash;
use crate::map::OwnershipMap;
use dpr_model::{MapVersion, NodeId, Timestamp};
use std::sync::Arc;

/// Chunks sent in answer to one request: what a socket's buffer takes without loss.
const CHUNKS_PER_REQUEST: usize = 32;

/// A map and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct EncodedMap {
    pub(crate) map: Arc<OwnershipMap>,
    bytes: Vec<u8>,
    pub(crate) hash: MapHash,
}

impl EncodedMap {
    pub(crate) fn new(map: OwnershipMap) -> Self {
        let bytes = map.to_bytes();
        Self { hash: MapHash::of(&bytes), bytes, map: Arc::new(map) }
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = Chunk> {
        self.bytes.chunks(CHUNK_BYTES).zip(0..).map(|(bytes, number)| Chunk {
            version: self.map.version(),
            hash: self.hash,
            map_length: u32::try_from(self.bytes.len()).expect("maps are bounded by MAP_BYTES_MAX"),
            number,
            bytes: bytes.to_vec(),
        })
    }

    /// What a request lacks, if it is about this map.
    pub(crate) fn answer(&self, request: &Request) -> Vec<Chunk> {
        if request.version != self.map.version() {
            return Vec::new();
        }
        let is_present = |number: u16| {
            let byte = request.present.get(usize::from(number / 8)).copied().unwrap_or(0);
            byte >> (number % 8) & 1 == 1
        };
        self.chunks().filter(|chunk| !is_present(chunk.number)).take(CHUNKS_PER_REQUEST).collect()
    }
}

/// A map that comes in, one at a time: the newest that anybody has.
#[derive(Clone, Debug)]
pub(crate) struct Assembly {
    pub(crate) version: MapVersion,
    hash: MapHash,
    chunks: Vec<Option<Vec<u8>>>,
    /// Whom it was asked of last, and when.
    pub(crate) asked: Option<(NodeId, Timestamp)>,
}

impl Assembly {
    /// Of a map of which nothing is there yet.
    pub(crate) fn new(version: MapVersion, hash: MapHash) -> Self {
        Self { version, hash, chunks: Vec::new(), asked: None }
    }

    /// Takes in a chunk. The map when it is whole; chunks that do not add up to the hash are thrown away.
    pub(crate) fn add(&mut self, chunk: Chunk) -> Option<OwnershipMap> {
        if (chunk.version, chunk.hash) != (self.version, self.hash) {
            return None;
        }
        let count = (chunk.map_length as usize).div_ceil(CHUNK_BYTES);
        if self.chunks.len() != count {
            self.chunks = vec![None; count];
        }
        self.chunks[usize::from(chunk.number)] = Some(chunk.bytes);
        let bytes = self.chunks.iter().map(Option::as_deref).collect::<Option<Vec<&[u8]>>>()?.concat();
        let map = (MapHash::of(&bytes) == self.hash).then(|| OwnershipMap::from_bytes(&bytes).ok()).flatten();
        let map = map.filter(|map| map.version() == self.version);
        if map.is_none() {
            self.chunks.clear();
        }
        map
    }

    pub(crate) fn request(&self) -> Request {
        let (eights, rest) = self.chunks.as_chunks::<8>();
        let bits = |chunks: &[Option<Vec<u8>>]| {
            chunks.iter().rev().fold(0_u8, |bits, chunk| bits << 1 | u8::from(chunk.is_some()))
        };
        let mut present: Vec<u8> = eights.iter().map(|eight| bits(eight)).collect();
        if !rest.is_empty() {
            present.push(bits(rest));
        }
        Request { version: self.version, present }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::SlotCount;

    fn encoded() -> EncodedMap {
        EncodedMap::new(OwnershipMap::genesis(SlotCount::default(), &[NodeId(1)]))
    }

    fn assembly(of: &EncodedMap) -> Assembly {
        Assembly::new(of.map.version(), of.hash)
    }

    #[test]
    fn chunks_in_any_order_make_the_map_and_only_the_missing_are_sent_again() {
        let encoded = encoded();
        let mut assembly = assembly(&encoded);
        let mut chunks: Vec<Chunk> = encoded.chunks().collect();
        let lost = chunks.remove(3);
        chunks.reverse();
        for chunk in chunks {
            assert_eq!(assembly.add(chunk), None);
        }

        let missing = encoded.answer(&assembly.request());

        assert_eq!(missing, std::slice::from_ref(&lost));
        assert_eq!(assembly.add(lost), Some(OwnershipMap::clone(&encoded.map)));
    }

    #[test]
    fn a_damaged_map_is_thrown_away_and_asked_for_anew() {
        let encoded = encoded();
        let mut assembly = assembly(&encoded);
        for mut chunk in encoded.chunks() {
            chunk.bytes[0] ^= u8::from(chunk.number == 2);
            assert_eq!(assembly.add(chunk), None);
        }

        assert_eq!(encoded.answer(&assembly.request()).len(), encoded.chunks().count());
    }

    #[test]
    fn nobody_answers_about_another_map() {
        let request = Request { version: MapVersion { term: 9, ..MapVersion::default() }, present: vec![] };

        assert!(encoded().answer(&request).is_empty());
    }
}
