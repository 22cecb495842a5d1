//! The DNS server's sockets and threads; what is answered is crate `rrdns`'s business.
//!
//! Threads of their own, so that no flood of queries delays a heartbeat: one for each processor and socket by UDP, one
//! for everything by TCP. They get the addresses that can be named from the event loop and give back counts; nobody
//! waits for anybody. It refuses to decide which nodes are healthy, and to answer for anything but its zone.

mod counters;
mod datagrams;
mod publisher;
mod tcp;
mod udp;

pub(crate) use publisher::Publisher;

use crate::clock;
use crate::config::Dns;
use anyhow::Context as _;
use counters::Counters;
use dpr_model::status::DnsStatus;
use dpr_rrdns::{Absence, AddressTable, Now, Responder};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, available_parallelism};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// UDP threads for one socket at most.
const THREADS_MAX: usize = 8;

/// Bytes of a UDP socket's receive buffer: some thousand queries, which come while a thread is not running.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 256;

/// A DNS server at work; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    settings: Dns,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What every thread needs.
#[derive(Clone)]
struct Desk {
    responder: Responder,
    table: watch::Receiver<Arc<AddressTable>>,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Opens every socket and begins to answer, with what `table` has.
    ///
    /// # Errors
    /// An address is not this host's, a port is taken or not permitted, or a thread could not be started.
    pub(crate) fn start(settings: &Dns, table: &watch::Receiver<Arc<AddressTable>>) -> anyhow::Result<Self> {
        let counters = Arc::new(Counters::default());
        let stop = Arc::new(AtomicBool::new(false));
        let threads_each = available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let mut responder = Responder::new(Arc::clone(&settings.zone), settings.answers.clone(), seed()?);
        let mut table = table.clone();
        responder.update(&table.borrow_and_update());
        let desk = Desk { responder, table, counters: Arc::clone(&counters), stop: Arc::clone(&stop) };
        let mut server = Self { settings: settings.clone(), counters, stop, threads: Vec::new() };
        let mut listeners = Vec::new();
        for address in &settings.listen {
            let doing = |what| format!("opening {what} {address} for DNS (dns.listen)");
            for _ in 0..threads_each {
                let socket = udp::open(*address).with_context(|| doing("UDP"))?;
                let worker = udp::Worker::new(socket, desk.clone());
                server.spawn("dpr-dns-udp", move || worker.work())?;
            }
            listeners.push(listen(*address).with_context(|| doing("TCP"))?);
        }
        server.spawn("dpr-dns-tcp", move || tcp::serve(listeners, desk))?;
        Ok(server)
    }

    /// What `dpr status` shows, with what can be named now and what not.
    pub(crate) fn status(&self, table: &AddressTable, left_out: &[(u16, IpAddr, Absence)]) -> DnsStatus {
        self.counters.status(&self.settings, table, left_out)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        self.threads.push(thread.context("starting a thread of the DNS server")?);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the DNS server failed");
            }
        }
    }
}

impl Desk {
    /// Learns what can be named, if that has changed.
    fn renew(&mut self) {
        // Without a sender the node is ending; what was named last is good enough until then.
        if self.table.has_changed().unwrap_or(false) {
            let table = Arc::clone(&self.table.borrow_and_update());
            self.responder.update(&table);
        }
    }

    fn has_to_end(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Whether every socket could be opened: what `dpr check` wants to know.
///
/// # Errors
/// The first one that could not be.
pub(crate) fn probe(settings: &Dns) -> anyhow::Result<()> {
    for address in &settings.listen {
        udp::open(*address).with_context(|| format!("UDP {address}"))?;
        listen(*address).with_context(|| format!("TCP {address}"))?;
    }
    Ok(())
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Modulo 2^32, as cookies have it (RFC 9018 section 4.3).
    Now { monotonic: clock::now(), unix_s: unix.as_secs() as u32 }
}

/// What cookies and hashes are keyed with; nobody else may know it.
fn seed() -> anyhow::Result<[u8; 16]> {
    let mut seed = [0; 16];
    let mut source = std::fs::File::open("/dev/urandom").context("opening /dev/urandom")?;
    source.read_exact(&mut seed).context("reading /dev/urandom")?;
    Ok(seed)
}

fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
