//! Tables that nearly every packet looks something up in, by one word.
//!
//! A look-up is a multiplication and, nearly always, one comparison: the general maps take three times as long to find out
//! what they have. That is fit for what is known before packets come and made anew as a whole: such a table removes
//! nothing, has no iteration order, and is filled by this node and its peers, not by clients.

use dpr_model::{NodeId, Protocol};
use std::net::SocketAddrV4;
use std::num::NonZeroU64;

/// Fibonacci hashing (Knuth, "The Art of Computer Programming", volume 3, section 6.4): 2^64 divided by the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Places for each entry: runs of entries that want the same place stay short.
const PLACES_PER_ENTRY: usize = 4;

/// Values by words. The last one that was inserted for a word counts.
#[derive(Debug)]
pub(crate) struct WordMap<T> {
    /// As many as a power of two, most of them empty.
    places: Vec<Place<T>>,
    len: usize,
    blank: T,
}

#[derive(Clone, Copy, Debug)]
struct Place<T> {
    /// Zero where there is nothing.
    word: u64,
    value: T,
}

impl<T: Copy> WordMap<T> {
    /// An empty table. `blank` is nobody's value: it lies where there is nothing.
    pub(crate) fn new(blank: T) -> Self {
        let mut map = Self { places: Vec::new(), len: 0, blank };
        map.begin(0);
        map
    }

    /// Forgets everything; there is room for `entries` entries from now on.
    pub(crate) fn begin(&mut self, entries: usize) {
        let places = (entries * PLACES_PER_ENTRY).next_power_of_two().max(2);
        self.len = 0;
        self.places.clear();
        self.places.resize(places, Place { word: 0, value: self.blank });
    }

    /// Enters a value; without room left it is not entered.
    pub(crate) fn insert(&mut self, word: NonZeroU64, value: T) {
        let mut at = self.first_place(word);
        while self.places[at].word != 0 && self.places[at].word != word.get() {
            at = (at + 1) & self.mask();
        }
        if self.places[at].word == 0 {
            // One place stays empty, so that every search ends.
            if self.len + 1 == self.places.len() {
                return;
            }
            self.len += 1;
        }
        self.places[at] = Place { word: word.get(), value };
    }

    #[inline(always)]
    pub(crate) fn get(&self, word: NonZeroU64) -> Option<&T> {
        let mut at = self.first_place(word);
        loop {
            let place = self.places.get(at)?;
            if place.word == word.get() {
                return Some(&place.value);
            }
            if place.word == 0 {
                return None;
            }
            at = (at + 1) & self.mask();
        }
    }

    #[inline(always)]
    fn first_place(&self, word: NonZeroU64) -> usize {
        // The upper half of a product is the one that depends on every bit.
        (word.get().wrapping_mul(FACTOR) >> 32) as usize & self.mask()
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        self.places.len().wrapping_sub(1)
    }
}

/// Names a protocol's socket.
#[inline(always)]
pub(crate) fn socket_word(protocol: Protocol, socket: SocketAddrV4) -> NonZeroU64 {
    let address = u64::from(u32::from_be_bytes(socket.ip().octets()));
    let word = address << 32 | u64::from(socket.port()) << 16 | u64::from(protocol.number());
    NonZeroU64::new(word).expect("no protocol has number zero")
}

/// Names a node.
#[inline(always)]
pub(crate) fn node_word(node: NodeId) -> NonZeroU64 {
    NonZeroU64::MIN | u64::from(node.0) << 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn what_was_inserted_is_found_and_nothing_else() {
        let mut map = WordMap::new(0);
        for count in [0, 1, 2, 3, 1000] {
            map.begin(count);
            (0..count).for_each(|nth| map.insert(node_word(NodeId(nth as u32 * 7)), nth));

            for nth in 0..count {
                assert_eq!(map.get(node_word(NodeId(nth as u32 * 7))), Some(&nth), "{nth} of {count}");
                assert_eq!(map.get(node_word(NodeId(nth as u32 * 7 + 1))), None);
            }
        }
    }

    #[test]
    fn the_last_value_for_a_word_counts_and_a_full_table_still_answers() {
        let mut map = WordMap::new(0);
        map.begin(1);
        for nth in 0..9 {
            map.insert(node_word(NodeId(nth)), nth);
            map.insert(node_word(NodeId(0)), 100 + nth);
        }

        assert_eq!(map.get(node_word(NodeId(0))), Some(&108));
        assert_eq!(map.get(node_word(NodeId(8))), None);
    }

    #[test]
    fn words_that_differ_little_are_spread() {
        let mut map = WordMap::new(0);
        map.begin(256);
        let word = |nth: u16| socket_word(Protocol::Tcp, SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), nth));
        (0..256).for_each(|port| map.insert(word(port), port));

        let displaced =
            (0..256).filter(|port| map.places[map.first_place(word(*port))].word != word(*port).get());

        assert!(displaced.count() < 64);
    }
}
