//! Whether servers without `dpr` answer: a TCP connection to each of them, once a second.
//!
//! It only connects and hangs up, so that it fits any protocol; what a server says is nobody's business here. Servers of UDP
//! services cannot be asked that way and are taken on trust.

use crate::config::Service;
use dpr_model::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Time between connections to one server.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a server may take to accept; shorter than the interval, so that rounds do not overlap.
const TIMEOUT: Duration = Duration::from_millis(800);
/// One lost SYN is no reason to give up a server: it takes two failures in a row. One success brings it back.
const FAILURES_MAX: u32 = 2;

/// Which servers answer; the probes end with the last copy.
#[derive(Clone, Debug)]
pub(crate) struct ServerProbes {
    answering: watch::Receiver<BTreeSet<SocketAddr>>,
}

impl ServerProbes {
    /// Begins to probe the servers of `services`. Must be called within a tokio runtime.
    pub(crate) fn start(services: &[Service]) -> Self {
        let (tell, answering) = watch::channel(BTreeSet::new());
        let over_tcp = services.iter().filter(|service| service.protocol == Protocol::Tcp);
        let servers: BTreeSet<SocketAddr> =
            over_tcp.flat_map(|service| service.servers.iter().map(|server| server.socket)).collect();
        if !servers.is_empty() {
            tokio::spawn(probe(servers, tell));
        }
        Self { answering }
    }

    /// Whether connections may be given to a server.
    pub(crate) fn is_healthy(&self, protocol: Protocol, server: SocketAddr) -> bool {
        match protocol {
            Protocol::Tcp => self.answering.borrow().contains(&server),
            Protocol::Udp => true,
        }
    }
}

async fn probe(servers: BTreeSet<SocketAddr>, tell: watch::Sender<BTreeSet<SocketAddr>>) {
    let mut health: BTreeMap<SocketAddr, Health> =
        servers.into_iter().map(|server| (server, Health::default())).collect();
    let mut rounds = interval(INTERVAL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !tell.is_closed() {
        rounds.tick().await;
        let mut connecting = JoinSet::new();
        for &server in health.keys() {
            connecting.spawn(async move { (server, answers(server).await) });
        }
        while let Some(probed) = connecting.join_next().await {
            // A probe that panicked says nothing about its server.
            let Ok((server, answered)) = probed else { continue };
            let Some(health) = health.get_mut(&server) else { continue };
            if health.record(answered) {
                tracing::info!(%server, healthy = health.is_up, "a server without dpr changed");
                let up = health.is_up;
                tell.send_modify(|answering| match up {
                    true => answering.extend([server]),
                    false => answering.retain(|other| *other != server),
                });
            }
        }
    }
}

async fn answers(server: SocketAddr) -> bool {
    let began = Instant::now();
    match timeout(TIMEOUT, TcpStream::connect(server)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            tracing::debug!(%server, %error, "a server without dpr refuses connections");
            false
        }
        Err(_) => {
            tracing::debug!(%server, waited = ?began.elapsed(), "a server without dpr does not answer");
            false
        }
    }
}

/// What probes have said about one server; it is down until one succeeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Health {
    is_up: bool,
    failures: u32,
}

impl Health {
    /// Takes in a probe; true if the verdict changes.
    fn record(&mut self, answered: bool) -> bool {
        let before = self.is_up;
        self.failures = if answered { 0 } else { self.failures.saturating_add(1) };
        self.is_up = answered || self.is_up && self.failures < FAILURES_MAX;
        self.is_up != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_forgiven_and_two_are_not() {
        let mut health = Health::default();
        let changes: Vec<bool> = [false, true, false, true, false, false, false, true]
            .map(|answered| health.record(answered))
            .into();
        assert_eq!(changes, [false, true, false, false, false, true, false, true]);
        assert!(health.is_up);
    }

    #[tokio::test]
    async fn a_server_is_healthy_while_it_accepts() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        assert!(answers(server).await);
        drop(listener);
        assert!(!answers(server).await);
    }
}
