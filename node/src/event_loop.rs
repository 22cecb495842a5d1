//! The one task that owns the node's state: gossip, observations, data plane, control.
//!
//! In each round it does, in this order: actions that gossip wants done; datagrams, a bounded batch; timers;
//! observations; questions of the control socket; wishes of the operating system. After some batches of datagrams in
//! a row everything else gets its turn, so that a flood of datagrams cannot silence the node. Nothing here waits for
//! disk or network, and nobody else has the state, so there are no locks.

mod claims;
mod clients_network;
mod cluster;
mod departure;
mod exclusions;
mod explain;
mod link_watch;
mod node_view;
mod observation;
mod orders;
mod ownership;
mod reload;

pub(crate) use exclusions::ExclusionMemory;
pub(crate) use node_view::NodeView;
pub(crate) use observation::Observer;
pub(crate) use ownership::Ownership;
pub(crate) use reload::Reloader;

use crate::clock;
use crate::control::Question;
use crate::control::protocol::{CONNECTIONS_MAX, Request, Response};
use crate::dataplane::{self, Word};
use crate::dns::{self, Publisher};
use crate::foreign_sockets::ForeignSockets;
use crate::gossip_socket::GossipSocket;
use crate::http::{self, Deliveries};
use crate::orders::{Ledger, is_about_orders};
use crate::signals::{Signals, Wish};
use crate::source_probes;
use claims::Claims;
use cluster::Cluster;
use departure::Departure;
use dpr_director::SyncMessage;
use dpr_host::LinkIndex;
use dpr_load_gossip::Gossip;
use dpr_model::status::DnsStatus;
use dpr_model::{LoadPermille, NodeState, Timestamp};
use link_watch::LinkWatch;
use observation::{Observation, Observing};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Longest time between observations and between updates of the data plane, whose lease they renew (at most 250 ms).
const TICK_MAX: Duration = Duration::from_millis(100);

/// Shortest time between updates of the data plane, however often peers speak.
const UPDATE_PAUSE: Duration = Duration::from_millis(20);

/// Batches of datagrams in a row.
const BATCHES_MAX: u32 = 4;

/// Messages about connections in a row.
const SYNC_BATCH_MAX: usize = 256;

/// Intervals for which a node listens before it offers itself.
const JOINING_INTERVALS: u32 = 3;

/// What the event loop is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// What the node knows about itself.
    pub(crate) view: NodeView,
    /// The gossip state machine, with a report set.
    pub(crate) gossip: Gossip,
    /// Where it speaks.
    pub(crate) socket: GossipSocket,
    /// Where it speaks and hears with another source than its own, if the system lets it.
    pub(crate) foreign: Option<ForeignSockets>,
    /// The interface that these are bound to.
    pub(crate) link: LinkIndex,
    /// Its part in the agreement on owners, if there is one.
    pub(crate) ownership: Option<Ownership>,
    /// What it remembers of addresses that DNS must not name.
    pub(crate) exclusions: ExclusionMemory,
    /// The data plane, running.
    pub(crate) plane: dataplane::Handle,
    /// The built-in server, if it runs.
    pub(crate) server: Option<http::Running>,
    /// Where the built-in server looks delivery addresses up.
    pub(crate) deliveries: watch::Sender<Arc<Deliveries>>,
    /// The DNS server, if it runs.
    pub(crate) dns: Option<dns::Server>,
    /// What tells it which addresses can be named.
    pub(crate) publisher: Publisher,
    /// What makes observations.
    pub(crate) observer: Observer,
    /// Questions of the control socket.
    pub(crate) questions: mpsc::Receiver<Question>,
    /// Wishes of the operating system.
    pub(crate) signals: Signals,
    /// What reads the configuration again.
    pub(crate) reloader: Reloader,
    /// Whether the load may be overridden.
    pub(crate) allow_load_override: bool,
    /// How long open connections get to finish.
    pub(crate) drain_timeout: Duration,
}

/// The node at work.
pub(crate) struct EventLoop {
    view: NodeView,
    claims: Claims,
    cluster: Cluster,
    ownership: Option<Ownership>,
    exclusions: ExclusionMemory,
    plane: dataplane::Handle,
    server: Option<http::Running>,
    deliveries: watch::Sender<Arc<Deliveries>>,
    dns: Option<dns::Server>,
    publisher: Publisher,
    observer: Observer,
    questions: mpsc::Receiver<Question>,
    signals: Signals,
    reloader: Reloader,
    allow_load_override: bool,
    drain_timeout: Duration,
    interval: Duration,
    active_at: Timestamp,
    observing: Option<Observing>,
    observe_at: Timestamp,
    /// When the observation began that is under way, and the one before it.
    observing_since: Timestamp,
    observation_began: Timestamp,
    /// When the node came to be in its state.
    entered_at: Timestamp,
    update_at: Timestamp,
    updated: Timestamp,
    departure: Option<Departure>,
    /// Explanations that wait for what owners know.
    explaining: Vec<explain::Waiting>,
    /// Orders to other nodes, and of them.
    ledger: Ledger<oneshot::Sender<Response>>,
    /// An operator wants it to take no new connections.
    wants_to_drain: bool,
    link: LinkWatch,
}

enum Event {
    Datagrams(std::io::Result<()>),
    Timer,
    /// The disk has what is to outlive the node.
    Kept,
    /// The data plane says something unasked.
    Said(Word),
    Observed(anyhow::Result<Box<Observation>>),
    Asked(Question),
    Wished(Wish),
    /// Everything had its turn since the last batches of datagrams.
    Rested,
}

impl EventLoop {
    /// A node that begins to work now.
    pub(crate) fn new(parts: Parts) -> Self {
        let now = clock::now();
        let interval = parts.view.config().gossip.interval;
        Self {
            ledger: Ledger::new(parts.view.report().incarnation),
            cluster: Cluster::new(parts.gossip, parts.socket, parts.foreign),
            ownership: parts.ownership,
            exclusions: parts.exclusions,
            view: parts.view,
            claims: Claims::default(),
            plane: parts.plane,
            server: parts.server,
            deliveries: parts.deliveries,
            dns: parts.dns,
            publisher: parts.publisher,
            observer: parts.observer,
            questions: parts.questions,
            signals: parts.signals,
            reloader: parts.reloader,
            allow_load_override: parts.allow_load_override,
            drain_timeout: parts.drain_timeout,
            interval,
            active_at: now + interval * JOINING_INTERVALS,
            observing: None,
            observe_at: now,
            observing_since: now,
            observation_began: now,
            entered_at: now,
            update_at: now,
            updated: now,
            departure: None,
            explaining: Vec::new(),
            wants_to_drain: false,
            link: LinkWatch::of(parts.link, now),
        }
    }

    /// Works until it is asked to stop, then takes leave and restores the host.
    ///
    /// # Errors
    /// The data plane failed, or the host could not be restored.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let worked = self.work().await;
        if let Err(error) = &worked {
            tracing::error!(error = %format_args!("{error:#}"), "the node has to end");
        }
        worked.and(self.leave().await)
    }

    async fn work(&mut self) -> anyhow::Result<()> {
        let mut batches = 0;
        loop {
            self.carry_out_actions();
            let event = self.next_event(batches < BATCHES_MAX).await;
            batches = if matches!(event, Event::Datagrams(_)) { batches + 1 } else { 0 };
            match event {
                Event::Datagrams(Ok(())) => self.want_update(),
                Event::Datagrams(Err(error)) => tracing::debug!(%error, "receiving load reports"),
                Event::Timer => self.handle_timers(),
                // What had to wait for it is carried out now.
                Event::Kept => {}
                Event::Said(Word::Sync(message)) => self.send_sync(message),
                Event::Said(Word::ActsBy(serial)) => {
                    // New owners hear from this one before they may act.
                    if let Some(message) = self.plane.further_sync() {
                        self.send_sync(message);
                    }
                    if let Some(ownership) = &mut self.ownership {
                        ownership.confirm(serial, clock::now());
                    }
                }
                Event::Observed(observation) => self.handle_observation(observation)?,
                Event::Asked(question) => self.answer(question),
                Event::Wished(Wish::Reload) => self.reload(),
                Event::Wished(Wish::Stop) if self.departure.is_some() => {
                    tracing::info!("asked twice to stop: not waiting for open connections");
                    return Ok(());
                }
                Event::Wished(Wish::Stop) => self.begin_departure(),
                Event::Rested => {}
            }
            if self.may_go() {
                return Ok(());
            }
        }
    }

    async fn next_event(&mut self, datagrams: bool) -> Event {
        let sleep = self.next_deadline().since(clock::now());
        let observing = async {
            match &mut self.observing {
                Some(observing) => observing.await,
                None => pending().await,
            }
        };
        let kept = async {
            match &mut self.ownership {
                Some(ownership) => ownership.kept().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = kept => Event::Kept,
            () = self.exclusions.kept() => Event::Kept,
            received = self.cluster.receive(), if datagrams => Event::Datagrams(received),
            () = tokio::time::sleep(sleep) => Event::Timer,
            word = self.plane.next_word() => Event::Said(word),
            observation = observing => Event::Observed(observation),
            Some(question) = self.questions.recv() => Event::Asked(question),
            wish = self.signals.next() => Event::Wished(wish),
            () = std::future::ready(()), if !datagrams => Event::Rested,
        }
    }

    fn next_deadline(&self) -> Timestamp {
        let departure = self.departure.map(|departure| departure.next_deadline(clock::now()));
        let observe_at = self.observing.is_none().then_some(self.observe_at);
        let gossip = self.cluster.gossip.poll_timeout();
        let agreement = self.ownership.as_ref().map(Ownership::poll_timeout);
        let explanation = self.explanation_deadline();
        let orders = self.ledger.deadline();
        let deadlines = [Some(self.update_at), gossip, agreement, observe_at, departure, explanation, orders];
        deadlines.into_iter().flatten().min().unwrap_or(self.update_at)
    }

    fn handle_timers(&mut self) {
        let now = clock::now();
        if self.view.state == NodeState::Joining && now >= self.active_at {
            let state = if self.wants_to_drain { NodeState::Draining } else { NodeState::Active };
            self.enter(state);
        }
        if self.cluster.gossip.poll_timeout().is_some_and(|deadline| now >= deadline) {
            self.cluster.gossip.handle_timeout(now);
        }
        if let Some(ownership) = &mut self.ownership {
            ownership.handle_timeout(now);
        }
        self.end_explanations(now);
        self.send_orders(now);
        self.follow_link(now);
        if now >= self.observe_at && self.observing.is_none() {
            self.observing = Some(self.observer.observe());
            self.observing_since = now;
            self.observe_at = now + self.interval.min(TICK_MAX);
        }
        if now >= self.update_at {
            self.update_plane(now);
        }
    }

    fn update_plane(&mut self, now: Timestamp) {
        self.view.probe_paths(&self.cluster.gossip, now);
        self.cluster.probe_sources(&mut self.view.sources, now);
        let duty = self.ownership.as_ref().map(|ownership| ownership.duty().clone());
        self.plane.update(duty, self.view.update(&self.cluster.gossip, now));
        if let Some(ownership) = &mut self.ownership {
            ownership.follow(&self.view.report(), &self.cluster.gossip, now);
        }
        self.publish_addresses();
        self.claims.note(self.view.contested(&self.cluster.gossip, now));
        self.updated = now;
        self.update_at = now + TICK_MAX;
    }

    /// Sends what the data plane has to say, a bounded batch.
    fn send_sync(&mut self, first: SyncMessage) {
        let now = clock::now();
        let mut next = Some(first);
        for _ in 0..SYNC_BATCH_MAX {
            let Some(message) = next else { break };
            if let Err(error) = self.cluster.gossip.carry(message.to, &message.bytes, now) {
                tracing::debug!(%error, "a message about connections is not sent");
            }
            next = self.plane.further_sync();
        }
    }

    /// Does everything that agreement and gossip want done.
    fn carry_out_actions(&mut self) {
        let now = clock::now();
        while let Some(cargo) = self.cluster.gossip.poll_cargo() {
            if source_probes::is_probe(&cargo.bytes) {
                self.cluster.hear_probe(&cargo, &mut self.view.sources, now);
                continue;
            }
            match &mut self.ownership {
                _ if is_about_orders(&cargo.bytes) => self.hear_order(&cargo, now),
                _ if ownership::is_about_connections(&cargo) => {
                    self.hear_answer(&cargo);
                    self.plane.take_sync((cargo.from, cargo.incarnation), cargo.bytes);
                }
                Some(ownership) => ownership.handle_cargo(&cargo, now),
                None => {}
            }
        }
        if let Some(ownership) = &mut self.ownership
            && ownership.carry_out_actions(&mut self.cluster.gossip)
        {
            self.view.map_version = ownership.map_version();
            self.update_at = now;
        }
        if self.cluster.carry_out_actions() {
            self.want_update();
        }
        self.exclusions.note(&self.cluster.gossip);
    }

    /// Brings the next update of the data plane forward.
    fn want_update(&mut self) {
        self.update_at = self.update_at.min(self.updated + UPDATE_PAUSE);
    }

    fn handle_observation(&mut self, observation: anyhow::Result<Box<Observation>>) -> anyhow::Result<()> {
        self.observing = None;
        match observation {
            Ok(observation) => {
                if let Some(ownership) = &mut self.ownership {
                    ownership.note_copies(&observation.snapshot);
                }
                self.view.observe(*observation);
                self.observation_began = self.observing_since;
                self.publish_deliveries();
                self.set_report();
            }
            Err(error) if self.plane.has_ended() => return Err(error),
            Err(error) => {
                tracing::warn!(error = %format_args!("{error:#}"), "the node could not be observed");
            }
        }
        Ok(())
    }

    fn publish_addresses(&mut self) {
        if self.dns.is_some() {
            self.publisher.publish(&self.view.report(), &self.cluster.gossip, clock::now());
        }
    }

    fn dns_status(&self) -> Option<DnsStatus> {
        let dns = self.dns.as_ref()?;
        let left_out = self.publisher.left_out(&self.view.report(), &self.cluster.gossip, clock::now());
        Some(dns.status(&self.publisher.table(), &left_out))
    }

    fn publish_deliveries(&self) {
        let deliveries = self.view.deliveries();
        self.deliveries.send_if_modified(|published| {
            let changed = **published != deliveries;
            if changed {
                *published = Arc::new(deliveries);
            }
            changed
        });
    }

    fn set_report(&mut self) {
        if let Err(error) = self.cluster.gossip.set_report(&self.view.report()) {
            tracing::error!(%error, "the load report cannot be sent; peers still see the one before");
        }
    }

    /// Changes the node's state and tells everybody at once.
    fn enter(&mut self, state: NodeState) {
        tracing::info!(from = self.view.state.label(), to = state.label(), "the node's state changes");
        self.view.state = state;
        self.entered_at = clock::now();
        self.set_report();
        self.cluster.gossip.send_now(clock::now());
        self.publish_addresses();
        self.want_update();
    }

    fn answer(&mut self, Question { request, reply }: Question) {
        let response = match request {
            Request::Status => {
                let mut status = self.view.status(&self.cluster.gossip, clock::now());
                let snapshot = &self.view.observation.snapshot;
                let ownership = self.ownership.as_ref();
                status.ownership = ownership.map(|ownership| ownership.status(snapshot, clock::now()));
                status.dns = self.dns_status();
                Response::Status(Box::new(status))
            }
            Request::Exclude { address, excluded } => self.exclude(address, excluded),
            Request::OverrideLoad { permille } if self.allow_load_override => {
                tracing::info!(?permille, "the load is overridden");
                self.view.override_load(permille.map(LoadPermille));
                self.set_report();
                self.want_update();
                Response::Done
            }
            Request::OverrideLoad { .. } => {
                Response::Error("start it with `dpr run --allow-load-override`, for tests only".to_owned())
            }
            Request::Conns { limit } => {
                let line = self.plane.line();
                let limit = limit.min(CONNECTIONS_MAX) as usize;
                tokio::spawn(async move {
                    let connections = line.connections(limit).await;
                    let response =
                        connections.map_or_else(|e| Response::Error(format!("{e:#}")), Response::Conns);
                    // Who does not wait any more has no use for it.
                    let _ = reply.send(response);
                });
                return;
            }
            Request::Explain { flow } => return self.explain(flow, reply),
            Request::Tell { node, order } => return self.tell(node, order, reply),
            Request::Stop { at_once } => {
                if self.departure.is_none() {
                    self.begin_departure();
                }
                if at_once {
                    self.hasten_departure();
                }
                Response::Done
            }
        };
        // Who does not wait any more has no use for it.
        let _ = reply.send(response);
    }

    fn reload(&mut self) {
        match self.reloader.reload() {
            Ok(reloaded) => {
                self.view.reconfigure(&reloaded.config);
                self.publisher.reconfigure(&reloaded.config.balance);
                self.cluster.gossip.set_keyring(reloaded.keyring);
                self.set_report();
                self.want_update();
            }
            Err(error) => {
                tracing::error!(error = %format_args!("{error:#}"), "nothing changes: the configuration is wrong");
            }
        }
    }
}
