//! A stub resolver as C libraries have one: it remembers nothing, asks its servers in turn, and takes what comes.

use crate::breakage::Breakage;
use crate::ip_version::IpVersion;
use dpr_rrdns::stub::{self, RecordType};
use dpr_rrdns::{Name, NameError, parse_name};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Time for a server to answer, before the next one is asked.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// How often every server is asked.
const ROUNDS: usize = 2;

/// Asks for the addresses of one name in one IP version; its copies share nothing but the count of questions.
#[derive(Clone, Debug)]
pub struct StubResolver {
    servers: Vec<SocketAddr>,
    name: Name,
    version: IpVersion,
    asked: Arc<AtomicU16>,
}

impl StubResolver {
    /// A resolver that asks `servers` for the addresses of `name` in `version`.
    ///
    /// # Errors
    ///
    /// The name is none.
    pub fn new(servers: Vec<SocketAddr>, name: &str, version: IpVersion) -> Result<Self, NameError> {
        Ok(Self { servers, name: parse_name(name, None)?, version, asked: Arc::default() })
    }

    /// The addresses in the order of the answer.
    ///
    /// # Errors
    ///
    /// No server answers, or the answer has no address.
    pub(crate) async fn resolve(&self) -> Result<Vec<IpAddr>, Breakage> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        let rtype = match self.version {
            IpVersion::V4 => RecordType::A,
            IpVersion::V6 => RecordType::AAAA,
        };
        let question = stub::question(asked, &self.name, rtype);
        for nth in 0..self.servers.len() * ROUNDS {
            // Every question begins with another server, as `options rotate` of resolv.conf(5) has it.
            let server = self.servers[(usize::from(asked) + nth) % self.servers.len()];
            let Ok(Ok(reply)) = timeout(ANSWER_TIMEOUT, ask(server, &question)).await else { continue };
            let addresses: Vec<IpAddr> = reply.addresses.iter().map(|(address, _)| *address).collect();
            return match (reply.failure, addresses) {
                (Some(failure), _) => Err(Breakage::Unresolved(failure)),
                (None, addresses) if addresses.is_empty() => {
                    Err(Breakage::Unresolved("no address".to_owned()))
                }
                (None, addresses) => Ok(addresses),
            };
        }
        Err(Breakage::Unresolved("no server answers".to_owned()))
    }
}

async fn ask(server: SocketAddr, question: &[u8]) -> std::io::Result<stub::Reply> {
    let socket = UdpSocket::bind((IpVersion::of(server.ip()).unspecified(), 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = [0; 2048];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if !stub::is_reply_to(&buffer[..length], question) {
            continue;
        }
        let reply = stub::read(&buffer[..length]).map_err(std::io::Error::other)?;
        return if reply.truncated { ask_by_tcp(server, question).await } else { Ok(reply) };
    }
}

async fn ask_by_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<stub::Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let mut reply = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut reply).await?;
    stub::read(&reply).map_err(std::io::Error::other)
}
