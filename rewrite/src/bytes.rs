//! Checked access to bytes, and replacing some of them together with the checksums that cover them.

use crate::checksum::Checksum;
use crate::edit::ChecksumState;
use crate::{ipv4, udp};
use dpr_model::DropReason;

/// A checksum field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    /// Where it is.
    pub(crate) at: usize,
    pub(crate) state: ChecksumState,
    /// Zero says that there is no checksum.
    pub(crate) optional: bool,
}

impl Sum {
    /// A checksum that is always there and complete.
    pub(crate) fn complete(at: usize) -> Self {
        Self { at, state: ChecksumState::Complete, optional: false }
    }

    /// The checksum of the IPv4 header that begins at `header_at`.
    pub(crate) fn of_ipv4_header(header_at: usize) -> Self {
        Self::complete(header_at + ipv4::field::CHECKSUM)
    }

    /// The checksum for bytes of which `old` became `new`.
    #[inline]
    pub(crate) fn edit<const N: usize>(
        self,
        bytes: &mut [u8],
        old: &[u8; N],
        new: &[u8; N],
    ) -> Result<(), DropReason> {
        let value = u16::from_be_bytes(array_at(bytes, self.at)?);
        if self.optional && value == 0 {
            return Ok(());
        }
        let edited = match self.state {
            ChecksumState::Complete => Checksum::from_header(value).replace(old, new).finish(),
            ChecksumState::Partial => Checksum::from_partial(value).replace(old, new).finish_partial(),
        };
        let edited = if self.optional { udp::checksum_to_send(edited) } else { edited };
        write_at(bytes, self.at, &edited.to_be_bytes())
    }
}

/// Replaces the bytes at `at`, which is an even number of bytes behind where the `sums` begin to count.
#[inline]
pub(crate) fn replace<const N: usize>(
    bytes: &mut [u8],
    at: usize,
    new: &[u8; N],
    sums: &[Sum],
) -> Result<(), DropReason> {
    let old: [u8; N] = array_at(bytes, at)?;
    write_at(bytes, at, new)?;
    sums.iter().try_for_each(|sum| sum.edit(bytes, &old, new))
}

#[inline]
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], DropReason> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(DropReason::Truncated)
}

#[inline]
pub(crate) fn write_at<const N: usize>(bytes: &mut [u8], at: usize, new: &[u8; N]) -> Result<(), DropReason> {
    *bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()).ok_or(DropReason::Truncated)? = *new;
    Ok(())
}
