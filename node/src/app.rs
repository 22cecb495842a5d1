//! `dpr run`: puts the daemon together, in an order in which everything can still be refused without a trace.

use crate::cli::{LogArgs, RunArgs};
use crate::clock;
use crate::cluster_link::{BoundToLink, cluster_link};
use crate::config::{Config, Defaults, Server};
use crate::control::ControlSocket;
use crate::dataplane;
use crate::dns::{self, Publisher};
use crate::event_loop::{EventLoop, ExclusionMemory, NodeView, Observer, Ownership, Parts, Reloader};
use crate::http::{self, Deliveries, Directory, Figures, FileCache, Site};
use crate::incarnation::Life;
use crate::key_file;
use crate::load_sampler::LoadSampler;
use crate::logging::Log;
use crate::server_probes::ServerProbes;
use crate::service_manager::{Announcement, announce};
use crate::signals::Signals;
use anyhow::Context as _;
use dpr_host::Link;
use dpr_load_gossip::{Gossip, Keyring};
use dpr_model::{Incarnation, Protocol};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Descriptors that are not for clients: sockets of the data plane, gossip, control, files.
const DESCRIPTORS_RESERVED: u64 = 128;

/// Clients of the built-in server at most.
const CLIENTS_MAX: u64 = 65_536;

/// Runs a node until it is asked to stop.
///
/// # Errors
/// The configuration is wrong, the host refuses something, or the data plane failed; with what to do about it.
pub(crate) fn run(args: &RunArgs, log: &LogArgs) -> anyhow::Result<()> {
    let defaults = Defaults::of_this_host();
    let config = Config::load(&args.config, &defaults)?;
    let log = Log::start(log, &config.log_filter)?;
    let link = cluster_link(&config)?;
    let keyring = key_file::read(config.gossip.key_file.as_deref())?;
    if !keyring.is_authenticating() {
        tracing::warn!("load reports are not authenticated: set gossip.key-file");
    }
    let life = Life::begin(&config.control_socket)?;
    let control = ControlSocket::bind(&config.control_socket)?;
    let clients_max = raise_descriptor_limit();
    let built_in = built_in_server(&config)?;
    let reloader = Reloader::new(args.config.clone(), defaults, log, &config);
    let start = Start {
        config,
        link,
        keyring,
        incarnation: life.incarnation,
        control,
        clients_max,
        built_in,
        reloader,
        allow_load_override: args.allow_load_override,
        drain_timeout: Duration::from_secs(args.drain_timeout_s.into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the event loop")?.block_on(start.run())
}

/// Everything that was acquired before there are threads.
struct Start {
    config: Config,
    link: Link,
    keyring: Keyring,
    incarnation: Incarnation,
    control: ControlSocket,
    clients_max: usize,
    built_in: Option<BuiltIn>,
    reloader: Reloader,
    allow_load_override: bool,
    drain_timeout: Duration,
}

/// What the built-in server needs.
struct BuiltIn {
    listeners: Vec<std::net::TcpListener>,
    files: Option<Arc<Directory>>,
}

impl Start {
    async fn run(mut self) -> anyhow::Result<()> {
        // First of all, so that no signal ends the process before the host is restored.
        let signals = Signals::heed()?;
        let now = clock::now();
        let probes = ServerProbes::start(&self.config.services);
        let BoundToLink { socket, foreign, paths } = BoundToLink::open(&self.config, &self.link)?;
        let (interface, node) = (self.link.name.clone(), self.config.node.id);
        let view = NodeView::new(self.config.clone(), self.incarnation, interface, probes, paths, now);
        let mut gossip = gossip(&self.config, self.incarnation, self.keyring.clone())?;
        gossip.set_report(&view.report()).context("the first load report")?;
        let exclusions = ExclusionMemory::recall(&self.config.control_socket, &mut gossip);
        let ownership = Ownership::start(&self.config, self.incarnation, now)?;
        let (deliveries, deliveries_of_site) = watch::channel(Arc::<Deliveries>::default());
        let (server, figures) = self.start_server(deliveries_of_site)?;
        let publisher = Publisher::new(&self.config);
        let settings = self.config.dns.as_ref();
        let dns = settings.map(|dns| dns::Server::start(dns, &publisher.subscribe())).transpose()?;
        let (asking, questions) = mpsc::channel(1);
        self.control.serve(asking)?;
        let sampler = LoadSampler::start(figures, &self.config.services, self.config.delivery_ranges)?;
        let plane = dataplane::start(self.config.dataplane, &self.dataplane_settings())?;
        let observer = Observer { line: plane.line(), sampler, node };
        announce(Announcement::Ready);
        tracing::info!(
            node = %node, name = self.config.node.name, address = %self.config.node.address,
            interface = self.link.name, incarnation = self.incarnation.0, "the node has started"
        );
        let parts = Parts {
            view,
            gossip,
            socket,
            foreign,
            link: self.link.index,
            ownership,
            exclusions,
            plane,
            server,
            deliveries,
            dns,
            publisher,
            observer,
            questions,
            signals,
            reloader: self.reloader,
            allow_load_override: self.allow_load_override,
            drain_timeout: self.drain_timeout,
        };
        EventLoop::new(parts).run().await
    }

    fn start_server(
        &mut self,
        deliveries: watch::Receiver<Arc<Deliveries>>,
    ) -> anyhow::Result<(Option<http::Running>, Option<Arc<Figures>>)> {
        let Some(BuiltIn { listeners, files }) = self.built_in.take() else { return Ok((None, None)) };
        let figures = Arc::new(Figures::default());
        let site = Site {
            node: self.config.node.id,
            name: self.config.node.name.clone(),
            files: files.map(FileCache::new),
            deliveries,
            figures: Arc::clone(&figures),
        };
        let running = http::Running::start(listeners, &Arc::new(site), self.clients_max)?;
        Ok((Some(running), Some(figures)))
    }

    fn dataplane_settings(&self) -> dataplane::Settings {
        dataplane::Settings {
            node: self.config.node.id,
            address: self.config.node.address,
            interface: self.link.name.clone(),
            vlans: self.config.node.vlans.clone(),
            services: self.config.services.clone(),
            delivery_ranges: self.config.delivery_ranges,
            nat_ports: self.config.nat_ports,
            conntrack: self.config.conntrack,
            program_mode: self.config.program_mode,
            pin_directory: self.config.pin_directory.clone(),
        }
    }
}

fn gossip(config: &Config, incarnation: Incarnation, keyring: Keyring) -> anyhow::Result<Gossip> {
    let peers = config.gossip.peers.clone();
    let configured = dpr_load_gossip::Config::new(config.node.id, incarnation)
        .with_interval(config.gossip.interval)?
        .with_multicast(!config.gossip.groups.is_empty())
        .with_peers(peers)?
        .with_keyring(keyring);
    Ok(Gossip::new(configured, clock::now()))
}

fn built_in_server(config: &Config) -> anyhow::Result<Option<BuiltIn>> {
    let files = match &config.server {
        Server::External => return Ok(None),
        Server::Page => None,
        Server::Files(root) => {
            let directory = Directory::open(root);
            Some(Arc::new(directory.with_context(|| format!("opening http.root {}", root.display()))?))
        }
    };
    let listeners =
        config.service_ports(Protocol::Tcp).into_iter().map(http::listen).collect::<anyhow::Result<_>>()?;
    Ok(Some(BuiltIn { listeners, files }))
}

/// Raises the soft limit of descriptors to the hard one. Returns how many clients fit, each with a socket and a file.
fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit of descriptors stays as it is");
            limit.current
        }
    };
    let for_clients = current.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_RESERVED);
    let clients = (for_clients / 2).clamp(16, CLIENTS_MAX);
    usize::try_from(clients).unwrap_or(usize::MAX)
}
