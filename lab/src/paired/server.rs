//! The server of a pair: greets, then verifies what comes and answers with the pattern.

use super::wire::{ALL_CORRECT, Greeting, Header, Mode, down_seed};
use crate::breakage::Breakage;
use crate::error::LabError;
use crate::machine::Machine;
use crate::pattern::{Direction, Pattern};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::sync::watch;

/// A verifying server on every address of a machine; dropping it closes its sockets.
#[derive(Debug)]
pub struct PairedServer {
    port: u16,
    events: mpsc::Receiver<Event>,
    record: ServerRecord,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a server has seen so far.
#[derive(Clone, Debug, Default)]
pub struct ServerRecord {
    /// Every connection that it accepted, in order.
    pub sightings: Vec<Sighting>,
    /// Connections that did not end as their header promised, and why.
    pub breakages: Vec<(SocketAddr, Breakage)>,
    /// Connections that are open now.
    pub open: usize,
}

/// One accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When it was accepted.
    pub at: Instant,
    /// The client as the server sees it.
    pub peer: SocketAddr,
    /// The server's own end.
    pub local: SocketAddr,
}

#[derive(Debug)]
enum Event {
    Accepted(Sighting),
    Ended { peer: SocketAddr, breakage: Option<Breakage> },
}

impl PairedServer {
    /// Starts a server on `port` of every address of `machine` that greets as `node`; it listens when this returns.
    ///
    /// # Errors
    ///
    /// The port cannot be bound.
    pub fn start(machine: &Machine, node: &str, port: u16) -> Result<Self, LabError> {
        let doing = || format!("listen on port {port} of {}", machine.name());
        let listener = machine.exec(move || listen(port))?.map_err(LabError::io(doing))?;
        let (tell, events) = mpsc::channel();
        let (stop, stopped) = watch::channel(());
        let node = node.to_owned();
        let thread = std::thread::Builder::new()
            .name(format!("paired-{node}"))
            .spawn(move || crate::runtime::run(serve(listener, node, tell, stopped)))
            .map_err(LabError::io(doing))?;
        Ok(Self { port, events, record: ServerRecord::default(), stop: Some(stop), thread: Some(thread) })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has seen up to now.
    pub fn record(&mut self) -> &ServerRecord {
        for event in self.events.try_iter() {
            match event {
                Event::Accepted(sighting) => {
                    self.record.open += 1;
                    self.record.sightings.push(sighting);
                }
                Event::Ended { peer, breakage } => {
                    self.record.open -= 1;
                    self.record.breakages.extend(breakage.map(|breakage| (peer, breakage)));
                }
            }
        }
        &self.record
    }
}

impl Drop for PairedServer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn serve(
    listener: TcpListener,
    node: String,
    tell: mpsc::Sender<Event>,
    mut stopped: watch::Receiver<()>,
) {
    let listener = AsyncListener::from_std(listener).expect("a non-blocking listener in a running runtime");
    let accept_all = async {
        loop {
            // Out of descriptors or a connection that died in the queue: the next one may do better.
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            tokio::spawn(attend(stream, peer, node.clone(), tell.clone()));
        }
    };
    tokio::select! {
        () = accept_all => {}
        _ = stopped.changed() => {}
    }
}

async fn attend(mut stream: TcpStream, peer: SocketAddr, node: String, tell: mpsc::Sender<Event>) {
    let Ok(local) = stream.local_addr() else { return };
    let (peer, local) = (canonical(peer), canonical(local));
    // The receiver is gone only when nobody wants to know any more.
    let _ = tell.send(Event::Accepted(Sighting { at: Instant::now(), peer, local }));
    let breakage = converse(&mut stream, Greeting { node, peer, local }).await.err();
    let _ = tell.send(Event::Ended { peer, breakage });
}

/// An IPv4 client of the one socket for both versions.
fn canonical(socket: SocketAddr) -> SocketAddr {
    SocketAddr::new(socket.ip().to_canonical(), socket.port())
}

async fn converse(stream: &mut TcpStream, greeting: Greeting) -> Result<(), Breakage> {
    stream.set_nodelay(true)?;
    greeting.write(stream).await?;
    let header = Header::read(stream).await?;
    let up = Pattern::new(header.seed, Direction::Up);
    let down = Pattern::new(down_seed(header.seed, &greeting.node), Direction::Down);
    match header.mode {
        Mode::Rounds => answer_rounds(stream, header, up, down).await,
        Mode::Duplex => {
            let (mut reader, mut writer) = stream.split();
            tokio::try_join!(receive(&mut reader, up, header.up), send(&mut writer, down, header.down))?;
            Ok(writer.write_all(&[ALL_CORRECT]).await?)
        }
    }
}

async fn answer_rounds(
    stream: &mut TcpStream,
    header: Header,
    mut up: Pattern,
    mut down: Pattern,
) -> Result<(), Breakage> {
    if header.up == 0 {
        return Err(Breakage::WrongContent("rounds of no bytes would never end".to_owned()));
    }
    let mut buffer = vec![0; CHUNK_LEN];
    loop {
        let mut missing = header.up;
        while missing > 0 {
            let want = usize::try_from(missing).unwrap_or(usize::MAX).min(CHUNK_LEN);
            let count = stream.read(&mut buffer[..want]).await?;
            match count {
                0 if missing == header.up => return Ok(()),
                0 => return Err(Breakage::ClosedEarly),
                _ => up.check(&buffer[..count])?,
            }
            missing -= count as u64;
        }
        let mut left = header.down;
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_LEN);
            down.fill(&mut buffer[..count]);
            stream.write_all(&buffer[..count]).await?;
            left -= count as u64;
        }
    }
}

/// Bytes handled at once.
const CHUNK_LEN: usize = 16 * 1024;

/// Reads `length` bytes of `pattern` and verifies each.
pub(super) async fn receive(
    reader: &mut (impl AsyncReadExt + Unpin),
    mut pattern: Pattern,
    length: u64,
) -> Result<(), Breakage> {
    let mut buffer = vec![0; CHUNK_LEN];
    while pattern.offset() < length {
        let want = usize::try_from(length - pattern.offset()).unwrap_or(usize::MAX).min(CHUNK_LEN);
        let count = reader.read(&mut buffer[..want]).await?;
        if count == 0 {
            return Err(Breakage::ClosedEarly);
        }
        pattern.check(&buffer[..count])?;
    }
    Ok(())
}

/// Writes `length` bytes of `pattern`.
pub(super) async fn send(
    writer: &mut (impl AsyncWriteExt + Unpin),
    mut pattern: Pattern,
    length: u64,
) -> Result<(), Breakage> {
    let mut buffer = vec![0; CHUNK_LEN];
    while pattern.offset() < length {
        let count = usize::try_from(length - pattern.offset()).unwrap_or(usize::MAX).min(CHUNK_LEN);
        pattern.fill(&mut buffer[..count]);
        writer.write_all(&buffer[..count]).await?;
    }
    Ok(())
}
