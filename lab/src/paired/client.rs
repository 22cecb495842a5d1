//! The client of a pair: one verified connection.

use super::server::{receive, send};
use super::wire::{ALL_CORRECT, Greeting, Header, Mode, down_seed};
use crate::breakage::{Breakage, within};
use crate::error::LabError;
use crate::ip_version::IpVersion;
use crate::machine::Machine;
use crate::pattern::{Direction, Pattern};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A bulk transfer, both directions at once.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Where to.
    pub target: SocketAddr,
    /// Bytes from client to server.
    pub up: u64,
    /// Bytes from server to client.
    pub down: u64,
    /// Seed of both patterns.
    pub seed: u64,
    /// The client's port; `None` lets the kernel choose.
    pub source_port: Option<u16>,
    /// Time for everything.
    pub timeout: Duration,
}

/// A bulk transfer that arrived, byte for byte.
#[derive(Clone, Debug)]
pub struct TransferRecord {
    /// What the server said of itself.
    pub greeting: Greeting,
    /// From the first SYN to the server's word that all was correct.
    pub took: Duration,
}

impl Transfer {
    /// Runs the transfer from `machine` and waits for its end.
    ///
    /// # Errors
    ///
    /// The outer error: the lab could not start it. The inner one: why the transfer failed.
    pub fn run(self, machine: &Machine) -> Result<Result<TransferRecord, Breakage>, LabError> {
        machine.exec(move || crate::runtime::run(within(self.timeout, self.converse())))
    }

    async fn converse(self) -> Result<TransferRecord, Breakage> {
        let began = Instant::now();
        let header = Header { mode: Mode::Duplex, seed: self.seed, up: self.up, down: self.down };
        let mut conversation = Conversation::open(self.target, self.source_port, header).await?;
        let Conversation { stream, greeting, up, down, .. } = &mut conversation;
        let (mut reader, mut writer) = stream.split();
        tokio::try_join!(
            send(&mut writer, up.clone(), header.up),
            receive(&mut reader, down.clone(), header.down)
        )?;
        match reader.read_u8().await? {
            ALL_CORRECT => Ok(TransferRecord { greeting: greeting.clone(), took: began.elapsed() }),
            other => Err(Breakage::WrongContent(format!("the transfer ended with {other:#04x}"))),
        }
    }
}

/// An open connection to a paired server.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) stream: TcpStream,
    pub(super) greeting: Greeting,
    header: Header,
    up: Pattern,
    down: Pattern,
}

impl Conversation {
    /// Connects, says what is to follow, and hears who answers.
    pub(super) async fn open(
        target: SocketAddr,
        source_port: Option<u16>,
        header: Header,
    ) -> Result<Self, Breakage> {
        let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(port) = source_port {
            // Two connections to different targets may share a port if both sockets allow it.
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::new(IpVersion::of(target.ip()).unspecified(), port))?;
        }
        let mut stream = socket.connect(target).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&header.to_bytes()).await?;
        let greeting = Greeting::read(&mut stream).await?;
        let up = Pattern::new(header.seed, Direction::Up);
        let down = Pattern::new(down_seed(header.seed, &greeting.node), Direction::Down);
        Ok(Self { stream, greeting, header, up, down })
    }

    /// One verified exchange.
    pub(super) async fn round(&mut self) -> Result<(), Breakage> {
        let mut buffer = vec![0; self.header.up.max(self.header.down) as usize];
        let (up, down) = (self.header.up as usize, self.header.down as usize);
        self.up.fill(&mut buffer[..up]);
        self.stream.write_all(&buffer[..up]).await?;
        self.stream.read_exact(&mut buffer[..down]).await?;
        Ok(self.down.check(&buffer[..down])?)
    }

    /// Waits for what must not happen between two exchanges: an end, an error or bytes.
    pub(super) async fn unexpected(&mut self) -> Breakage {
        match self.stream.read(&mut [0; 64]).await {
            Ok(0) => Breakage::ClosedEarly,
            Ok(count) => Breakage::WrongContent(format!("{count} bytes that nobody asked for")),
            Err(error) => error.into(),
        }
    }
}
