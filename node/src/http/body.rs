//! Bodies of responses: bytes in memory, or parts of a file that are read piece by piece while they are sent.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::collections::VecDeque;
use std::fs::File;
use std::future::Future as _;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// Bytes of a file that are read at once, and so the most of it that a connection holds.
const PIECE: u64 = 64 * 1024;

/// The body of a response; its length is always known, so responses have a Content-Length.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// Bytes in memory.
    Whole(Bytes),
    /// Several segments, or one of a file.
    Segments(Box<Segments>),
}

/// Part of a body.
#[derive(Debug)]
pub(crate) enum Segment {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Part of a file.
    File {
        /// Where it is read from.
        file: Arc<File>,
        /// From where on.
        offset: u64,
        /// Bytes still to be sent. A file that grows meanwhile is cut there.
        length: u64,
    },
}

/// Segments that are sent one after another.
#[derive(Debug)]
pub(crate) struct Segments {
    waiting: VecDeque<Segment>,
    /// Bytes still to be sent.
    remaining: u64,
    /// A piece that the page cache did not have, on its way from the disk.
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl ResponseBody {
    /// A body without bytes.
    pub(crate) const EMPTY: Self = Self::Whole(Bytes::new());

    /// A body of segments.
    pub(crate) fn of(segments: Vec<Segment>) -> Self {
        let remaining = segments.iter().map(Segment::length).sum();
        Self::Segments(Box::new(Segments { waiting: segments.into(), remaining, reading: None }))
    }

    /// Bytes still to be sent.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Segments(segments) => segments.remaining,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Segments(segments) => {
                segments.poll_next(context).map(|next| next.map(|bytes| bytes.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.length() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length())
    }
}

impl Segment {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

impl Segments {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        while self.waiting.front().is_some_and(|segment| segment.length() == 0) {
            self.waiting.pop_front();
        }
        let Some(segment) = self.waiting.front_mut() else { return Poll::Ready(None) };
        let bytes = match segment {
            Segment::Bytes(bytes) => std::mem::take(bytes),
            Segment::File { file, offset, length } => {
                let piece = ready!(poll_read(&mut self.reading, file, *offset, *length, context))?;
                *offset += piece.len() as u64;
                *length -= piece.len() as u64;
                piece
            }
        };
        self.remaining -= bytes.len() as u64;
        Poll::Ready(Some(Ok(bytes)))
    }
}

/// The next piece of a file: at once if the page cache has it, else from a thread that may block.
///
/// # Errors
/// The disk's, or the file has become shorter: then the promised length cannot be kept, and the connection has to end.
fn poll_read(
    reading: &mut Option<JoinHandle<io::Result<Bytes>>>,
    file: &Arc<File>,
    offset: u64,
    length: u64,
    context: &mut Context<'_>,
) -> Poll<io::Result<Bytes>> {
    if reading.is_none() {
        if let Some(piece) = read_cached(file, offset, length)? {
            return Poll::Ready(Ok(piece));
        }
        let file = Arc::clone(file);
        *reading = Some(tokio::task::spawn_blocking(move || read_waiting(&file, offset, length)));
    }
    let Some(read) = reading.as_mut() else { return Poll::Pending };
    let piece = ready!(Pin::new(read).poll(context));
    *reading = None;
    Poll::Ready(piece.map_err(io::Error::other).flatten())
}

/// What the page cache has of the next piece, or `None` if that is nothing or the file system cannot say.
fn read_cached(file: &File, offset: u64, length: u64) -> io::Result<Option<Bytes>> {
    let mut piece = buffer(length);
    match preadv2(file, &mut [IoSliceMut::new(&mut piece)], offset, ReadWriteFlags::NOWAIT) {
        Ok(read) => shorten(piece, read).map(Some),
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn read_waiting(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut piece = buffer(length);
    let read = file.read_at(&mut piece, offset)?;
    shorten(piece, read)
}

fn buffer(length: u64) -> Vec<u8> {
    vec![0; usize::try_from(length.min(PIECE)).unwrap_or(0)]
}

fn shorten(mut piece: Vec<u8>, read: usize) -> io::Result<Bytes> {
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    piece.truncate(read);
    Ok(piece.into())
}

impl From<Vec<u8>> for ResponseBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(bytes.into())
    }
}

impl From<String> for ResponseBody {
    fn from(text: String) -> Self {
        Self::Whole(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    fn file_of(bytes: &[u8]) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Arc::new(file)
    }

    #[tokio::test]
    async fn segments_are_sent_one_after_another_in_pieces() {
        let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let file = file_of(&bytes);
        let body = ResponseBody::of(vec![
            Segment::Bytes(Bytes::from_static(b"head")),
            Segment::File { file: Arc::clone(&file), offset: 7, length: 200_000 },
            Segment::Bytes(Bytes::new()),
            Segment::File { file, offset: 0, length: 1 },
        ]);
        assert_eq!(body.length(), 200_005);

        let sent = body.collect().await.unwrap().to_bytes();

        assert_eq!(sent, [b"head", &bytes[7..200_007], &bytes[..1]].concat());
    }

    #[tokio::test]
    async fn a_file_that_has_become_shorter_ends_the_body_with_an_error() {
        let body = ResponseBody::of(vec![Segment::File { file: file_of(b"abc"), offset: 0, length: 4 }]);

        let error = body.collect().await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
