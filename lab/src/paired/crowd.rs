//! Many long-lived connections of one client machine, each with small verified exchanges now and then.

use super::client::Conversation;
use super::wire::{Greeting, Header, Mode};
use crate::breakage::{Breakage, within};
use crate::error::LabError;
use crate::machine::Machine;
use crate::pattern::mix;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a crowd does.
#[derive(Clone, Debug)]
pub struct CrowdPlan {
    /// Connection `i` goes to the target `i` modulo their number; never empty.
    pub targets: Vec<SocketAddr>,
    /// How many connections.
    pub connections: u16,
    /// Which ports they come from.
    pub source_ports: SourcePorts,
    /// Time over which they are opened, evenly; zero opens all at once.
    pub opening: Duration,
    /// Pause between two exchanges of a connection.
    pub pause: Duration,
    /// Bytes that the client sends in an exchange; at least 1.
    pub up: u32,
    /// Bytes that the server answers.
    pub down: u32,
    /// Time for connecting, and for each exchange.
    pub timeout: Duration,
    /// Connection `i` uses a seed derived from this one and `i`.
    pub seed: u64,
}

/// Which ports the clients of a crowd come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePorts {
    /// Whatever the kernel chooses.
    Any,
    /// All from this one; the targets have to differ.
    Same(u16),
}

/// Open connections; dropping it closes them.
#[derive(Debug)]
pub struct Crowd {
    records: Vec<ConnectionRecord>,
    events: mpsc::Receiver<(usize, Event)>,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One connection of a crowd, as known now.
#[derive(Clone, Debug)]
pub struct ConnectionRecord {
    /// Where it goes to.
    pub target: SocketAddr,
    /// When its first SYN was sent, once it was.
    pub began: Option<Instant>,
    /// The client's own end, once connected.
    pub local: Option<SocketAddr>,
    /// When the server had greeted it, once it had.
    pub opened: Option<Instant>,
    /// What the server said of itself, once connected.
    pub greeting: Option<Greeting>,
    /// Verified exchanges.
    pub rounds: u64,
    /// When the last exchange was complete.
    pub last_round: Option<Instant>,
    /// The exchange that took longest, since [`Crowd::measure_anew`] if that was asked for.
    pub slowest: Option<Exchange>,
    /// How it stands.
    pub state: ConnectionState,
}

/// One exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When its first byte was sent.
    pub began: Instant,
    /// Until its last byte had come.
    pub took: Duration,
}

/// How a connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Not open yet.
    Connecting,
    /// Open, nothing wrong so far.
    Open,
    /// Ended by the crowd itself.
    Finished,
    /// Ended by anything else.
    Broken {
        /// Why.
        breakage: Breakage,
        /// When it was noticed.
        at: Instant,
    },
}

#[derive(Debug)]
enum Event {
    Began(Instant),
    Opened { at: Instant, local: SocketAddr, greeting: Greeting },
    Round(Exchange),
    Finished,
    Broken { breakage: Breakage, at: Instant },
}

impl Crowd {
    /// Begins to open the connections from `machine`.
    ///
    /// # Errors
    ///
    /// No thread could be started in the machine's namespace.
    pub fn open(machine: &Machine, plan: CrowdPlan) -> Result<Self, LabError> {
        let records = (0..usize::from(plan.connections)).map(|index| plan.blank(index)).collect();
        let (tell, events) = mpsc::channel();
        let (stop, stopped) = watch::channel(());
        let thread = crate::runtime::spawn_in(machine, "crowd", move || live(plan, tell, stopped))?;
        Ok(Self { records, events, stop: Some(stop), thread: Some(thread) })
    }

    /// All connections as they stand now.
    pub fn records(&mut self) -> &[ConnectionRecord] {
        for (index, event) in self.events.try_iter() {
            self.records[index].learn(event);
        }
        &self.records
    }

    /// Forgets how long exchanges took up to now.
    pub fn measure_anew(&mut self) {
        self.records();
        self.records.iter_mut().for_each(|record| record.slowest = None);
    }

    /// Waits until every connection is open.
    ///
    /// # Errors
    ///
    /// One broke, or the limit passed: the numbers say which.
    pub fn wait_until_open(&mut self, limit: Duration) -> Result<&[ConnectionRecord], LabError> {
        let opened = |record: &ConnectionRecord| record.state == ConnectionState::Open;
        let began = Instant::now();
        while !self.records().iter().all(opened) {
            let broken = self.records.iter().find_map(ConnectionRecord::breakage);
            if broken.is_some() || began.elapsed() > limit {
                let open = self.records.iter().filter(|record| opened(record)).count();
                let of = self.records.len();
                let last = format!("{open} of {of} are open, first breakage: {broken:?}");
                let what = "every connection to be open".to_owned();
                return Err(LabError::Waited { what, waited: began.elapsed(), last });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(&self.records)
    }

    /// Closes every connection after the exchange it is in, and says how each fared.
    pub fn finish(mut self) -> Vec<ConnectionRecord> {
        self.join();
        self.records();
        std::mem::take(&mut self.records)
    }

    fn join(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.join();
    }
}

impl CrowdPlan {
    fn blank(&self, index: usize) -> ConnectionRecord {
        ConnectionRecord {
            target: self.targets[index % self.targets.len()],
            began: None,
            local: None,
            opened: None,
            greeting: None,
            rounds: 0,
            last_round: None,
            slowest: None,
            state: ConnectionState::Connecting,
        }
    }
}

impl ConnectionRecord {
    /// Name of the node that serves it, once known.
    pub fn node(&self) -> Option<&str> {
        self.greeting.as_ref().map(|greeting| greeting.node.as_str())
    }

    /// Why it broke, if it did.
    pub fn breakage(&self) -> Option<&Breakage> {
        match &self.state {
            ConnectionState::Broken { breakage, .. } => Some(breakage),
            _ => None,
        }
    }

    fn learn(&mut self, event: Event) {
        match event {
            Event::Began(at) => self.began = Some(at),
            Event::Opened { at, local, greeting } => {
                self.opened = Some(at);
                self.local = Some(local);
                self.greeting = Some(greeting);
                self.state = ConnectionState::Open;
            }
            Event::Round(exchange) => {
                self.rounds += 1;
                self.last_round = Some(exchange.began + exchange.took);
                if self.slowest.is_none_or(|slowest| slowest.took < exchange.took) {
                    self.slowest = Some(exchange);
                }
            }
            Event::Finished => self.state = ConnectionState::Finished,
            Event::Broken { breakage, at } => self.state = ConnectionState::Broken { breakage, at },
        }
    }
}

async fn live(plan: CrowdPlan, tell: mpsc::Sender<(usize, Event)>, stopped: watch::Receiver<()>) {
    let step = plan.opening / u32::from(plan.connections.max(1));
    let mut connections = JoinSet::new();
    for index in 0..usize::from(plan.connections) {
        let (plan, tell, stopped) = (plan.clone(), tell.clone(), stopped.clone());
        connections.spawn(async move {
            tokio::time::sleep(step * u32::try_from(index).expect("fewer connections than 65,536")).await;
            let last = match hold(&plan, index, &tell, stopped).await {
                Ok(()) => Event::Finished,
                Err(breakage) => Event::Broken { breakage, at: Instant::now() },
            };
            // The receiver is gone only when nobody wants to know any more.
            let _ = tell.send((index, last));
        });
    }
    while connections.join_next().await.is_some() {}
}

async fn hold(
    plan: &CrowdPlan,
    index: usize,
    tell: &mpsc::Sender<(usize, Event)>,
    mut stopped: watch::Receiver<()>,
) -> Result<(), Breakage> {
    let target = plan.targets[index % plan.targets.len()];
    let source_port = match plan.source_ports {
        SourcePorts::Any => None,
        SourcePorts::Same(port) => Some(port),
    };
    let seed = mix(plan.seed ^ index as u64);
    let header = Header { mode: Mode::Rounds, seed, up: plan.up.into(), down: plan.down.into() };
    let _ = tell.send((index, Event::Began(Instant::now())));
    let opening = within(plan.timeout, Conversation::open(target, source_port, header));
    let mut conversation = tokio::select! {
        opened = opening => opened?,
        _ = stopped.changed() => return Ok(()),
    };
    let local = conversation.stream.local_addr()?;
    let greeting = conversation.greeting.clone();
    let _ = tell.send((index, Event::Opened { at: Instant::now(), local, greeting }));
    loop {
        let began = Instant::now();
        within(plan.timeout, conversation.round()).await?;
        let _ = tell.send((index, Event::Round(Exchange { began, took: began.elapsed() })));
        tokio::select! {
            () = tokio::time::sleep(plan.pause) => {}
            _ = stopped.changed() => return Ok(()),
            // Nothing is due from the server in a pause: only an end of the connection wakes this.
            ended = conversation.unexpected() => return Err(ended),
        }
    }
}
