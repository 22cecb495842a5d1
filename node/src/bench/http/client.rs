//! Clients that ask as fast as they are answered, each when it has its last answer.
//!
//! No HTTP library: what clients cost is in every figure, and should not hide what differs. They know the server and
//! read no more of a response than they need to see that it is whole.

use super::load::Load;
use super::road::Road;
use anyhow::{Context as _, bail};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Threads that clients share; as many as the smallest machine has processors for them and the server.
const THREADS: usize = 2;
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes read at a time.
const BUFFER_LEN: usize = 64 << 10;
/// What every response begins with.
const SUCCESS: &[u8] = b"HTTP/1.1 200 ";

/// Clients of one machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowd {
    pub(super) load: Load,
    pub(super) connections: u16,
    /// How long they go on.
    pub(super) time: Duration,
}

/// What they saw.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Of each request, with its connection where it has one of its own.
    pub(super) times: Vec<Duration>,
    /// From the first request to the last response.
    pub(super) took: Duration,
}

impl Crowd {
    /// Lets them go.
    ///
    /// # Errors
    /// A request failed.
    pub(super) fn run(self, road: &Road) -> anyhow::Result<Measured> {
        let began = Instant::now();
        let connections = usize::from(self.connections);
        let clients = move |thread: usize| (connections + THREADS - 1 - thread) / THREADS;
        let target = road.target();
        let threads = (0..THREADS)
            .map(|thread| road.client().thread("clients", move || self.several(clients(thread), target)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut times = Vec::new();
        for thread in threads {
            let Ok(seen) = thread.join() else { bail!("a thread of clients panicked") };
            times.append(&mut seen.with_context(|| format!("by {}", road.way().label()))?);
        }
        Ok(Measured { times, took: began.elapsed() })
    }

    fn several(self, clients: usize, target: SocketAddr) -> anyhow::Result<Vec<Duration>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let until = Instant::now() + self.time;
        runtime.block_on(async move {
            let mut running = JoinSet::new();
            for _ in 0..clients {
                running.spawn(client(self.load, target, until));
            }
            let mut times = Vec::new();
            while let Some(ended) = running.join_next().await {
                times.append(&mut ended.context("a client panicked")??);
            }
            Ok(times)
        })
    }
}

async fn client(load: Load, target: SocketAddr, until: Instant) -> anyhow::Result<Vec<Duration>> {
    let request = format!(
        "GET /{} HTTP/1.1\r\nHost: {target}\r\n{}\r\n",
        load.file(),
        if load.closes() { "Connection: close\r\n" } else { "" }
    );
    let mut buffer = vec![0; BUFFER_LEN];
    let mut times = Vec::new();
    let mut kept = None;
    while Instant::now() < until {
        let began = Instant::now();
        let asked = async {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => connect(target).await?,
            };
            stream.write_all(request.as_bytes()).await.context("asking")?;
            read_response(&mut stream, load.length(), &mut buffer).await?;
            anyhow::Ok(stream)
        };
        let mut stream =
            timeout(PATIENCE, asked).await.with_context(|| format!("no answer in {PATIENCE:?}"))??;
        if !load.closes() {
            kept = Some(stream);
        } else if stream.read(&mut buffer).await.context("waiting for the connection's end")? > 0 {
            bail!("the server sent more than it said");
        }
        times.push(began.elapsed());
    }
    Ok(times)
}

async fn connect(target: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(target).await.context("connecting")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads a response whose body has `length` bytes.
async fn read_response(stream: &mut TcpStream, length: usize, buffer: &mut [u8]) -> anyhow::Result<()> {
    let mut filled = 0;
    let head_len = loop {
        let room = buffer.get_mut(filled..).filter(|room| !room.is_empty()).context("an endless header")?;
        let received = stream.read(room).await.context("reading a response")?;
        if received == 0 {
            bail!("the connection ended before the response");
        }
        filled += received;
        if let Some(position) = buffer[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break position + 4;
        }
    };
    if !buffer.starts_with(SUCCESS) {
        bail!("the server said {:?}", String::from_utf8_lossy(&buffer[..head_len.min(40)]));
    }
    let mut left = length.checked_sub(filled - head_len).context("the server sent more than it should")?;
    while left > 0 {
        let room = buffer.len().min(left);
        let received = stream.read(&mut buffer[..room]).await.context("reading a body")?;
        if received == 0 {
            bail!("the connection ended {left} bytes before the response");
        }
        left -= received;
    }
    Ok(())
}
