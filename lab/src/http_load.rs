//! HTTP/1.1 load against `/.dpr/whoami`, with a record of every request: when, by whom, or why not.
//!
//! Each connection carries one or more requests; every failure keeps its reason. Nothing is retried, so that no failure
//! hides. Not a benchmark client.

mod exchange;
mod tally;

pub use exchange::Whoami;
pub use tally::{Kill, Tally};

use crate::breakage::{Breakage, within};
use crate::error::LabError;
use crate::machine::Machine;
use crate::resolver::StubResolver;
use exchange::Exchange;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a load client does.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// Where workers connect to.
    pub targets: Targets,
    /// Workers; each has at most one connection at a time.
    pub concurrency: u16,
    /// Requests on one connection before it is closed; 1 makes a new connection for each. At least 1.
    pub requests_per_connection: u32,
    /// Pause after each request, while the connection stays open.
    pub think: Duration,
    /// Pause between two connections of a worker.
    pub rest: Duration,
    /// How long new requests are begun; begun ones are finished.
    pub duration: Duration,
    /// Time for connecting, and for each request.
    pub timeout: Duration,
}

/// Where the workers of a load client connect to.
#[derive(Clone, Debug)]
pub enum Targets {
    /// Worker `i` connects to the one at `i` modulo their number; never empty.
    Fixed(Vec<SocketAddr>),
    /// Every connection asks DNS first, and tries the addresses of the answer in their order, each for `patience`.
    Named {
        /// Who to ask, and for what.
        resolver: StubResolver,
        /// Port of the service.
        port: u16,
        /// Time for an address to accept the connection before the next one is tried.
        patience: Duration,
    },
}

/// A running load client; dropping it ends it.
#[derive(Debug)]
pub struct HttpLoad {
    events: mpsc::Receiver<RequestRecord>,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// Where it went to; unspecified if the name could not be resolved.
    pub target: SocketAddr,
    /// The client's own end, once connected.
    pub client: Option<SocketAddr>,
    /// When the connection that carried it was begun (its first SYN).
    pub connection_began: Instant,
    /// When the request itself was begun; for the first of a connection, when the connection was.
    pub began: Instant,
    /// When it was answered or failed.
    pub ended: Instant,
    /// Name of the node that answered an earlier request of the same connection.
    pub known_server: Option<String>,
    /// Who answered, or why nobody did.
    pub outcome: Result<Whoami, Breakage>,
}

/// Stands where no address is known yet.
const UNRESOLVED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl HttpLoad {
    /// Starts the load from `machine`.
    ///
    /// # Errors
    ///
    /// No thread could be started in the machine's namespace.
    pub fn start(machine: &Machine, plan: LoadPlan) -> Result<Self, LabError> {
        let (tell, events) = mpsc::channel();
        let (stop, stopped) = watch::channel(());
        let thread = crate::runtime::spawn_in(machine, "http-load", move || run(plan, tell, stopped))?;
        Ok(Self { events, stop: Some(stop), thread: Some(thread) })
    }

    /// The requests that ended since this was asked last, in the order of their ends.
    pub fn take(&mut self) -> Vec<RequestRecord> {
        self.events.try_iter().collect()
    }

    /// True once every worker has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the planned duration is over and every begun request has ended; returns what was not taken yet.
    pub fn wait(mut self) -> Vec<RequestRecord> {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.take()
    }

    /// Begins no more requests and waits for those begun; returns what was not taken yet.
    pub fn finish(mut self) -> Vec<RequestRecord> {
        self.stop = None;
        self.wait()
    }
}

impl Drop for HttpLoad {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(plan: LoadPlan, tell: mpsc::Sender<RequestRecord>, stopped: watch::Receiver<()>) {
    let end = Instant::now() + plan.duration;
    let mut workers = JoinSet::new();
    for index in 0..usize::from(plan.concurrency) {
        let worker = Worker { index, plan: plan.clone(), end, tell: tell.clone(), stopped: stopped.clone() };
        // A start spread over one connection's life keeps workers out of step.
        let share =
            f64::from(u32::try_from(index).expect("fewer workers than 65,536")) / f64::from(plan.concurrency);
        let cycle = plan.think * plan.requests_per_connection + plan.rest;
        workers.spawn(worker.work(cycle.min(plan.duration / 4).mul_f64(share)));
    }
    while workers.join_next().await.is_some() {}
}

struct Worker {
    plan: LoadPlan,
    index: usize,
    end: Instant,
    tell: mpsc::Sender<RequestRecord>,
    stopped: watch::Receiver<()>,
}

impl Worker {
    async fn work(mut self, delay: Duration) {
        if !self.pause(delay).await {
            return;
        }
        loop {
            self.one_connection().await;
            if !self.pause(self.plan.rest).await {
                return;
            }
        }
    }

    /// Opens a connection and makes its requests, as far as it and the plan last.
    async fn one_connection(&mut self) {
        let connection_began = Instant::now();
        let mut record = RequestRecord {
            target: UNRESOLVED,
            client: None,
            connection_began,
            began: connection_began,
            ended: connection_began,
            known_server: None,
            outcome: Err(Breakage::TimedOut),
        };
        let mut exchange = match self.connect(&mut record.target).await {
            Ok(exchange) => exchange,
            Err(breakage) => {
                record.outcome = Err(breakage);
                return self.note(record);
            }
        };
        record.client = exchange.client();
        for request in 1..=self.plan.requests_per_connection {
            let last = request == self.plan.requests_per_connection;
            record.outcome = within(self.plan.timeout, exchange.whoami(last)).await;
            let server = record.outcome.as_ref().ok().map(|whoami| whoami.name.clone());
            self.note(record.clone());
            if server.is_none() || exchange.is_over() || !self.pause(self.plan.think).await {
                return;
            }
            record.known_server = server;
            record.began = Instant::now();
        }
    }

    /// Connects, to the first address of several that accepts; `target` says which was tried last.
    async fn connect(&self, target: &mut SocketAddr) -> Result<Exchange, Breakage> {
        let (targets, patience) = match &self.plan.targets {
            Targets::Fixed(targets) => (vec![targets[self.index % targets.len()]], self.plan.timeout),
            Targets::Named { resolver, port, patience } => {
                let addresses = within(self.plan.timeout, resolver.resolve()).await?;
                (addresses.into_iter().map(|address| SocketAddr::from((address, *port))).collect(), *patience)
            }
        };
        let mut last = Err(Breakage::Unreachable);
        for one in targets {
            *target = one;
            last = within(patience, Exchange::open(one)).await;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    fn note(&self, mut record: RequestRecord) {
        record.ended = Instant::now();
        // The receiver is gone only when nobody wants to know any more.
        let _ = self.tell.send(record);
    }

    /// Sleeps; false when nothing more is to be begun.
    async fn pause(&mut self, pause: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => Instant::now() < self.end,
            _ = self.stopped.changed() => false,
        }
    }
}
