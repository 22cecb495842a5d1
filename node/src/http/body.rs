//! Bodies of responses: bytes in memory, or a file that is sent piece by piece.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead as _, ReadBuf};

/// Bytes of a file that are read at once.
const PIECE: usize = 64 * 1024;

/// The body of a response; its length is always known, so responses have a Content-Length.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// Bytes in memory.
    Whole(Bytes),
    /// The rest of a file.
    File {
        /// Where it is read from.
        file: tokio::fs::File,
        /// Bytes still to be sent. A file that grows meanwhile is cut there.
        remaining: u64,
    },
}

impl ResponseBody {
    /// Bytes still to be sent.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::File { remaining, .. } => *remaining,
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
            Self::File { remaining: 0, .. } => Poll::Ready(None),
            Self::File { file, remaining } => {
                let length = usize::try_from(*remaining).unwrap_or(PIECE).min(PIECE);
                let mut piece = vec![0; length];
                let mut buffer = ReadBuf::new(&mut piece);
                ready!(Pin::new(file).poll_read(context, &mut buffer))?;
                let read = buffer.filled().len();
                if read == 0 {
                    // The promised length cannot be kept any more: the connection has to end.
                    return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                }
                piece.truncate(read);
                *remaining -= read as u64;
                Poll::Ready(Some(Ok(Frame::data(piece.into()))))
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
