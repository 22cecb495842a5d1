//! The built-in server at work: threads of its own, so that no flood of requests delays a heartbeat.

use super::{Phase, Site, serve};
use anyhow::Context as _;
use std::net::TcpListener;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// A server that serves.
#[derive(Debug)]
pub(crate) struct Running {
    /// Taken only by `drop`.
    runtime: Option<Runtime>,
    phase: watch::Sender<Phase>,
    servers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts to serve on every listener, at most `connections_max` connections together.
    ///
    /// # Errors
    /// The system refuses threads, or a listener cannot be registered.
    pub(crate) fn start(
        listeners: Vec<TcpListener>,
        site: &Arc<Site>,
        connections_max: usize,
    ) -> anyhow::Result<Self> {
        let (phase, _) = watch::channel(Phase::Serving);
        let slots = Arc::new(Semaphore::new(connections_max));
        let runtime = Builder::new_multi_thread()
            .thread_name("dpr-http")
            .enable_all()
            .build()
            .context("starting the HTTP server's threads")?;
        let handle = runtime.handle().clone();
        let mut running = Self { runtime: Some(runtime), phase, servers: Vec::new() };
        for listener in listeners {
            let _entered = handle.enter();
            let listener = tokio::net::TcpListener::from_std(listener).context("registering a listener")?;
            let server = serve(listener, Arc::clone(site), Arc::clone(&slots), running.phase.subscribe());
            running.servers.push(handle.spawn(server));
        }
        Ok(running)
    }

    /// Goes on serving, but makes every response the last of its connection.
    pub(crate) fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Accepts no more, lets open requests finish for about a second, and ends.
    pub(crate) async fn close(mut self) {
        self.phase.send_replace(Phase::Closing);
        for server in self.servers.drain(..) {
            if let Err(error) = server.await {
                tracing::error!(%error, "the HTTP server failed");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A runtime that is dropped waits for its threads, which the event loop's runtime forbids.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
