//! Length-prefixed sections: type (2 bytes), length (2 bytes), that many bytes.
//!
//! Lists begin with the length of one entry, so that entries can grow and old nodes skip what is new.

use crate::error::DatagramError;
use dpr_wire::Fields;

/// Bytes of a section's type and length.
pub(super) const SECTION_HEADER_LENGTH: usize = 4;

/// Appends one section.
pub(super) fn push_section(bytes: &mut Vec<u8>, section: u16, content: &[u8]) {
    let length = u16::try_from(content.len()).expect("sections are bounded by DATAGRAM_MAX");
    bytes.extend(section.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(content);
}

/// Appends a list of equally long entries; an empty list is left out.
pub(super) fn push_list<const N: usize>(
    bytes: &mut Vec<u8>,
    section: u16,
    entries: impl Iterator<Item = [u8; N]>,
) {
    let mut content = vec![u8::try_from(N).expect("an entry has fewer than 256 bytes")];
    content.extend(entries.flatten());
    if content.len() > 1 {
        push_section(bytes, section, &content);
    }
}

/// The sections of a datagram, in order; ends after the first that is cut off.
pub(super) struct Sections<'a> {
    rest: &'a [u8],
}

impl<'a> Sections<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Result<(u16, &'a [u8]), DatagramError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.rest);
        let mut fields = Fields::new(bytes);
        let (Some(section), Some(length)) = (fields.u16(), fields.u16()) else {
            let available = bytes.len();
            return Some(Err(DatagramError::TruncatedSection { section: 0, claimed: 0, available }));
        };
        let Some(content) = fields.bytes(length.into()) else {
            let available = fields.rest().len();
            return Some(Err(DatagramError::TruncatedSection { section, claimed: length, available }));
        };
        self.rest = fields.rest();
        Some(Ok((section, content)))
    }
}

/// The first N bytes of each entry of a list section: what this version knows of them. At most `count_max` entries.
#[inline]
pub(super) fn entries<const N: usize>(
    section: u16,
    content: &[u8],
    count_max: usize,
) -> Result<impl Iterator<Item = &[u8; N]>, DatagramError> {
    let bad_length = DatagramError::BadSectionLength { section, length: content.len() };
    let (entry_length, list) = content.split_first().ok_or(bad_length)?;
    let entry_length = usize::from(*entry_length);
    if entry_length < N || list.len() % entry_length != 0 {
        return Err(bad_length);
    }
    let count = list.len() / entry_length;
    if count > count_max {
        return Err(DatagramError::TooManyEntries { section, count });
    }
    Ok(list.chunks_exact(entry_length).filter_map(|entry| entry.first_chunk()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_come_in_order_until_one_is_cut_off() {
        let bytes = [0, 1, 0, 2, 7, 8, 0, 9, 0, 0, 0, 5, 0, 3, 1];

        let sections: Vec<_> = Sections::new(&bytes).collect();

        assert_eq!(
            sections,
            [
                Ok((1, &[7, 8][..])),
                Ok((9, &[][..])),
                Err(DatagramError::TruncatedSection { section: 5, claimed: 3, available: 1 }),
            ]
        );
    }

    #[test]
    fn a_section_header_that_is_cut_off_is_an_error() {
        let sections: Vec<_> = Sections::new(&[0, 1, 0]).collect();

        assert_eq!(sections, [Err(DatagramError::TruncatedSection { section: 0, claimed: 0, available: 3 })]);
    }

    #[test]
    fn entries_may_be_longer_than_known_but_not_shorter() {
        let read = |content: &[u8]| {
            entries(5, content, 2).map(|list| list.copied().map(u16::from_be_bytes).collect::<Vec<_>>())
        };

        assert_eq!(read(&[3, 0, 1, 99, 0, 2, 99]), Ok(vec![1, 2]));
        assert_eq!(read(&[2]), Ok(vec![]));
        for content in [&[][..], &[0], &[1, 1], &[3, 0, 1]] {
            let length = content.len();
            assert_eq!(read(content), Err(DatagramError::BadSectionLength { section: 5, length }));
        }
        assert_eq!(read(&[2, 0, 1, 0, 2, 0, 3]), Err(DatagramError::TooManyEntries { section: 5, count: 3 }));
    }
}
