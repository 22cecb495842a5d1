//! Fields of what nodes send each other: big-endian integers, one after another.
//!
//! Shared by everything that has a wire format of ours. It knows no message, and refuses nothing but to read beyond
//! the end: what bytes mean, and which of them are wrong, is up to those who read.

#![no_std]

extern crate alloc;

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Reads fixed fields one after another; bytes that are left over belong to later versions.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Begins at the first byte.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next N bytes; `None`, and nothing is read, if there are fewer.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*array)
    }

    /// The next `length` bytes; `None`, and nothing is read, if there are fewer.
    #[inline]
    pub fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    /// The next byte.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    /// The next 2 bytes.
    #[inline]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next 4 bytes.
    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next 8 bytes.
    #[inline]
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// An IPv4 address, 4 bytes.
    #[inline]
    pub fn ipv4(&mut self) -> Option<IpAddr> {
        self.array::<4>().map(|octets| Ipv4Addr::from(octets).into())
    }

    /// An IPv6 address, 16 bytes.
    #[inline]
    pub fn ipv6(&mut self) -> Option<IpAddr> {
        self.array::<16>().map(|octets| Ipv6Addr::from(octets).into())
    }

    /// What was not read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// Writes fixed fields one after another into an array; the counterpart of [`Fields`].
///
/// # Panics
///
/// If the fields do not fit: N is the sum of their lengths, which the caller knows.
pub fn concat<const N: usize>(fields: &[&[u8]]) -> [u8; N] {
    let mut array = [0; N];
    let mut at = 0;
    for field in fields {
        array[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
    debug_assert_eq!(at, N);
    array
}

/// Appends an address, its length tells the family: 4 or 16, then that many bytes.
pub fn push_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            bytes.push(4);
            bytes.extend(v4.octets());
        }
        IpAddr::V6(v6) => {
            bytes.push(16);
            bytes.extend(v6.octets());
        }
    }
}

/// Reads what [`push_address`] wrote.
pub fn read_address(fields: &mut Fields<'_>) -> Option<IpAddr> {
    match fields.u8()? {
        4 => fields.ipv4(),
        16 => fields.ipv6(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn fields_are_read_in_order_and_never_beyond_the_end() {
        let mut fields = Fields::new(&[1, 0, 2, 0, 0, 0, 3, 192, 0, 2, 1, 9]);

        assert_eq!((fields.u8(), fields.u16(), fields.u32()), (Some(1), Some(2), Some(3)));
        assert_eq!(fields.ipv4(), Some(IpAddr::from([192, 0, 2, 1])));
        assert_eq!((fields.u64(), fields.bytes(2)), (None, None));
        assert_eq!(fields.rest(), [9]);
    }

    #[test]
    fn fields_are_written_as_they_are_read() {
        assert_eq!(concat::<3>(&[&7_u16.to_be_bytes(), &[1]]), [0, 7, 1]);
    }

    #[test]
    fn addresses_of_both_families_come_back() {
        for address in [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])] {
            let mut bytes = vec![];
            push_address(&mut bytes, address);

            assert_eq!(read_address(&mut Fields::new(&bytes)), Some(address));
        }
        assert_eq!(read_address(&mut Fields::new(&[5, 0, 0, 0, 0, 0])), None);
    }
}
