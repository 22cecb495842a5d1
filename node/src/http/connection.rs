//! One client's connection, from its acceptance to its end, and the limits that it has to keep.

use super::site::{Ends, Site};
use super::{Phase, reached};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// How long after the last response, or after connecting, the head of the next request has to be complete: it bounds
/// slow heads and idle connections alike.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Length of a request's head at most, bytes; as in nginx with two large buffers. Header fields are at most 100,
/// which is hyper's limit.
const HEAD_LENGTH_MAX: usize = 16 * 1024;

/// How long a client that idles between requests may take for its last one when the server drains. To close at once would
/// cross with requests that are on their way, and not every request may be sent again (RFC 9112, section 9.3.1).
const LAST_REQUEST_WITHIN: Duration = Duration::from_secs(1);

/// How long sent bytes may stay unacknowledged, or the client's window closed, until the connection is given up
/// (`TCP_USER_TIMEOUT`, RFC 5482).
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client whose request was refused may go on sending what nobody reads.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves requests until client or server has had enough.
///
/// # Errors
/// The connection broke, or the client did not keep to HTTP or to the limits.
pub(super) async fn serve(
    stream: TcpStream,
    client: SocketAddr,
    site: Arc<Site>,
    mut phase: watch::Receiver<Phase>,
) -> anyhow::Result<()> {
    prepare(&stream)?;
    let ends = Ends { local: stream.local_addr()?, client };
    let (asked, refused, phase_now) = (AtomicBool::new(false), AtomicBool::new(false), phase.clone());
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        let (site, refused, phase_now) = (Arc::clone(&site), &refused, &phase_now);
        async move {
            let mut response = site.answer(&request, ends).await;
            refused.store(response.headers().contains_key(CONNECTION), Ordering::Relaxed);
            if *phase_now.borrow() >= Phase::Draining {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LENGTH_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let drained = async {
        reached(&mut phase, Phase::Draining).await;
        tokio::time::sleep(LAST_REQUEST_WITHIN).await;
    };
    let ended = tokio::select! {
        ended = &mut served => Some(ended),
        () = drained => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            // A client that has just connected gets its answer; one that idles between requests has had its own.
            if asked.load(Ordering::Relaxed) {
                Pin::new(&mut served).graceful_shutdown();
            }
            (&mut served).await
        }
    };
    let unread = match &ended {
        Ok(()) => refused.load(Ordering::Relaxed),
        Err(error) => error.is_parse() || error.is_parse_too_large(),
    };
    if unread {
        let stream = served.into_parts().io.into_inner();
        // Whoever goes on sending for longer is cut off.
        drop(tokio::time::timeout(LINGER_TIMEOUT, linger(stream)).await);
    }
    ended.map_err(Into::into)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // hyper writes whole heads and pieces: Nagle's algorithm could only delay the last segment of each.
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT))
}

/// Reads until the client closes. To close with bytes unread would reset the connection, and the client might lose the
/// response that tells it why (RFC 9112 section 9.6).
async fn linger(mut stream: TcpStream) {
    // hyper may have done so already.
    drop(stream.shutdown().await);
    let mut discarded = [0; 4096];
    while stream.read(&mut discarded).await.is_ok_and(|read| read > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn responses_leave_at_once_and_vanished_clients_are_noticed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();

        prepare(&stream).unwrap();

        assert!(stream.nodelay().unwrap());
        assert_eq!(SockRef::from(&stream).tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_TIMEOUT));
    }
}
