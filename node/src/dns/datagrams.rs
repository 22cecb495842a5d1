//! Many datagrams with one system call: in, and out again to where they came from.

use socket2::{SockAddr, SockAddrStorage, Socket};
use std::io;
use std::mem::zeroed;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

/// Datagrams of one call.
const BATCH: usize = 32;

/// Bytes of a query at most; one with the longest name and every option that means something has fewer.
const QUERY_MAX: usize = 1024;

/// Received datagrams, and the replies to them.
pub(super) struct Batch {
    queries: Vec<[u8; QUERY_MAX]>,
    lengths: Vec<usize>,
    /// Where each came from, as the kernel said it.
    sources: Vec<libc::sockaddr_storage>,
    source_lengths: Vec<libc::socklen_t>,
    /// An empty one is not sent.
    replies: Vec<Vec<u8>>,
}

/// A query and where its reply goes.
pub(super) struct Received<'a> {
    pub(super) query: &'a [u8],
    pub(super) from: SocketAddr,
    pub(super) reply: &'a mut Vec<u8>,
}

impl Batch {
    pub(super) fn new() -> Self {
        // SAFETY: sockaddr_storage is plain data for which all zeroes are a valid value.
        let source: libc::sockaddr_storage = unsafe { zeroed() };
        Self {
            queries: vec![[0; QUERY_MAX]; BATCH],
            lengths: Vec::with_capacity(BATCH),
            sources: vec![source; BATCH],
            source_lengths: Vec::with_capacity(BATCH),
            replies: vec![Vec::new(); BATCH],
        }
    }

    /// Waits for a datagram as long as the socket's timeout says, and takes those that are there with it.
    pub(super) fn receive(&mut self, socket: &Socket) -> io::Result<()> {
        self.lengths.clear();
        self.source_lengths.clear();
        let mut pieces: [libc::iovec; BATCH] = std::array::from_fn(|nth| libc::iovec {
            iov_base: self.queries[nth].as_mut_ptr().cast(),
            iov_len: QUERY_MAX,
        });
        let mut messages: [libc::mmsghdr; BATCH] =
            std::array::from_fn(|nth| message(&mut pieces[nth], &mut self.sources[nth], ADDRESS_LENGTH));
        // SAFETY: every message points to one piece of QUERY_MAX bytes and to a sockaddr_storage, which live until the
        // end of this function and which nothing else uses meanwhile.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for received in &messages[..count] {
            let truncated = received.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            self.lengths.push(if truncated { 0 } else { received.msg_len as usize });
            self.source_lengths.push(received.msg_hdr.msg_namelen);
        }
        Ok(())
    }

    /// What was received, each with the place for its reply.
    pub(super) fn received(&mut self) -> impl Iterator<Item = Received<'_>> {
        let sources = self.sources.iter().zip(&self.source_lengths);
        let queries = self.queries.iter().zip(&self.lengths).map(|(query, length)| &query[..*length]);
        queries.zip(sources).zip(&mut self.replies).filter_map(|((query, (source, length)), reply)| {
            reply.clear();
            let from = socket_address(source, *length)?;
            Some(Received { query, from, reply })
        })
    }

    /// Sends all replies.
    ///
    /// # Errors
    /// Why one of them could not be sent; the others are.
    pub(super) fn send(&mut self, socket: &Socket) -> io::Result<()> {
        let count = self.lengths.len();
        let wanted = (0..count).filter(|nth| !self.replies[*nth].is_empty());
        let wanted: Vec<usize> = wanted.collect();
        let mut pieces: Vec<libc::iovec> = wanted
            .iter()
            .map(|nth| libc::iovec {
                iov_base: self.replies[*nth].as_mut_ptr().cast(),
                iov_len: self.replies[*nth].len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = Vec::with_capacity(wanted.len());
        for (piece, nth) in pieces.iter_mut().zip(&wanted) {
            messages.push(message(piece, &mut self.sources[*nth], self.source_lengths[*nth]));
        }
        let (mut rest, mut result) = (&mut messages[..], Ok(()));
        while !rest.is_empty() {
            // SAFETY: every message points to one piece, a reply, and to an address, which live until the end of this
            // function; the kernel only reads them.
            let sent = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0)
            };
            // After an error, the message that made it is left out.
            let done = usize::try_from(sent).unwrap_or_else(|_| {
                result = Err(io::Error::last_os_error());
                1
            });
            let done = done.clamp(1, rest.len());
            rest = &mut rest[done..];
        }
        result
    }
}

const ADDRESS_LENGTH: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;

/// What the kernel wrote, if it is an address of the Internet.
fn socket_address(source: &libc::sockaddr_storage, length: libc::socklen_t) -> Option<SocketAddr> {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_storage is one of the types that the storage may be viewed as.
    *unsafe { storage.view_as::<libc::sockaddr_storage>() } = *source;
    // SAFETY: the kernel said that the address has this length.
    unsafe { SockAddr::new(storage, length) }.as_socket()
}

fn message(
    piece: &mut libc::iovec,
    address: &mut libc::sockaddr_storage,
    address_length: libc::socklen_t,
) -> libc::mmsghdr {
    // SAFETY: mmsghdr is plain data for which all zeroes (no name, no pieces, no control data) are a valid value.
    let mut message: libc::mmsghdr = unsafe { zeroed() };
    message.msg_hdr.msg_iov = piece;
    message.msg_hdr.msg_iovlen = 1;
    message.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
    message.msg_hdr.msg_namelen = address_length;
    message
}
