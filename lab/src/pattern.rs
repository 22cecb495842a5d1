//! Bytes that can be checked without being kept: a seeded pattern in which every byte depends on its offset.
//!
//! A byte that is lost, doubled, reordered, altered or taken from another connection shows as a mismatch at its offset.
//! Not random in any cryptographic sense.

/// Which way a stream of bytes runs; the two directions of a connection carry different patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Client to server.
    Up,
    /// Server to client.
    Down,
}

/// A position in an endless seeded stream of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    key: u64,
    offset: u64,
}

/// A byte that was not the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset} of the stream is {found:#04x}, expected {expected:#04x}")]
pub struct Mismatch {
    /// Offset within the stream, bytes from its beginning.
    pub offset: u64,
    /// What the pattern says.
    pub expected: u8,
    /// What came.
    pub found: u8,
}

impl Pattern {
    /// The stream of one direction of the connection with this seed, from its first byte.
    pub(crate) fn new(seed: u64, direction: Direction) -> Self {
        let tweak = match direction {
            Direction::Up => 0x5550_5550_5550_5550,
            Direction::Down => 0x444f_574e_444f_574e,
        };
        Self { key: mix(seed ^ tweak), offset: 0 }
    }

    /// Bytes written or checked so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Writes the next bytes of the stream.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            *byte = self.next_byte();
        }
    }

    /// Checks that `bytes` are the next ones of the stream.
    ///
    /// # Errors
    ///
    /// The first byte that differs.
    pub(crate) fn check(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        for &found in bytes {
            let offset = self.offset;
            let expected = self.next_byte();
            if found != expected {
                return Err(Mismatch { offset, expected, found });
            }
        }
        Ok(())
    }

    fn next_byte(&mut self) -> u8 {
        let word = mix(self.key ^ (self.offset / 8)).to_le_bytes();
        let byte = word[(self.offset % 8) as usize];
        self.offset += 1;
        byte
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seed: u64, direction: Direction, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        Pattern::new(seed, direction).fill(&mut bytes);
        bytes
    }

    #[test]
    fn what_was_filled_in_pieces_checks_in_other_pieces() {
        let mut writer = Pattern::new(7, Direction::Up);
        let mut bytes = vec![0; 1000];
        let (head, tail) = bytes.split_at_mut(333);
        writer.fill(head);
        writer.fill(tail);
        let mut reader = Pattern::new(7, Direction::Up);
        assert_eq!(reader.check(&bytes[..500]), Ok(()));
        assert_eq!(reader.check(&bytes[500..]), Ok(()));
        assert_eq!(reader.offset(), 1000);
    }

    #[test]
    fn one_altered_byte_is_found_at_its_offset() {
        let mut bytes = first(7, Direction::Down, 100);
        bytes[41] ^= 1;
        let mismatch = Pattern::new(7, Direction::Down).check(&bytes).unwrap_err();
        assert_eq!((mismatch.offset, mismatch.expected ^ mismatch.found), (41, 1));
    }

    #[test]
    fn a_lost_byte_and_swapped_blocks_are_found() {
        let bytes = first(7, Direction::Up, 3000);
        assert!(Pattern::new(7, Direction::Up).check(&bytes[1..]).is_err());
        let mut swapped = bytes[1448..2896].to_vec();
        swapped.extend_from_slice(&bytes[..1448]);
        assert!(Pattern::new(7, Direction::Up).check(&swapped).is_err());
    }

    #[test]
    fn seeds_and_directions_have_streams_of_their_own() {
        assert_ne!(first(1, Direction::Up, 32), first(2, Direction::Up, 32));
        assert_ne!(first(1, Direction::Up, 32), first(1, Direction::Down, 32));
    }
}
