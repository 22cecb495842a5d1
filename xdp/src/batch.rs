//! Many entries of a hash map with one system call: aya 0.14 reads them one by one, with two calls each.

use crate::error::XdpError;
use aya::Pod;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd` (linux/bpf.h).
const LOOKUP_BATCH: libc::c_long = 24;
/// A bucket with more entries than a batch has room for is never read: the kernel says ENOSPC. Keys that strangers choose
/// cannot fill one, as every map has a secret hash key.
const BATCH_MAX: usize = 4096;

/// `union bpf_attr`, the part for batches.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Where a walk through a map stands; the bucket that comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor(Option<u32>);

/// Entries from `cursor` on, which is moved behind them; back at the beginning when the end was reached.
pub(crate) fn next<K: Pod + Default, V: Pod + Default>(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
) -> Result<Vec<(K, V)>, XdpError> {
    let mut keys = vec![K::default(); BATCH_MAX];
    let mut values = vec![V::default(); BATCH_MAX];
    let from = cursor.0;
    let mut to = 0_u32;
    let mut attributes = Attributes {
        in_batch: from.as_ref().map_or(0, |from| std::ptr::from_ref(from) as u64),
        out_batch: std::ptr::from_mut(&mut to) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: BATCH_MAX as u32,
        map_fd: map.as_raw_fd() as u32,
        ..Attributes::default()
    };
    // SAFETY: the attributes name live buffers of `count` keys and values, whose types are as long as the map's (checked
    // when it was opened), and two live numbers of four bytes, which is how long a hash map's cursor is.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            LOOKUP_BATCH,
            std::ptr::from_mut(&mut attributes),
            size_of::<Attributes>(),
        )
    };
    cursor.0 = Some(to);
    if result < 0 {
        let error = io::Error::last_os_error();
        // The end of the map.
        if error.raw_os_error() != Some(libc::ENOENT) {
            return Err(XdpError::Listing(error));
        }
        cursor.0 = None;
    }
    let count = (attributes.count as usize).min(BATCH_MAX);
    Ok(keys.into_iter().zip(values).take(count).collect())
}

impl Cursor {
    /// True before the first entry, and again behind the last one.
    pub(crate) fn is_at_start(self) -> bool {
        self.0.is_none()
    }
}
