//! Whether hosts on the clients' network answer: echo requests to each of them, five times a second.
//!
//! It measures, and judges nothing: what silence means, agreement and the event loop say.

use crate::clock;
use anyhow::Context as _;
use dpr_host::{EchoSocket, EchoToken};
use dpr_model::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::IpAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Between two questions to each host.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Length of a question, bytes: an IPv6 header and an echo message without data, which is as good for IPv4.
const PACKET_LEN: usize = 48;

/// For each host that ever answered, when the latest question was asked that it answered.
pub(crate) type Answered = BTreeMap<IpAddr, Timestamp>;

/// A thread that asks, and what came of it.
#[derive(Debug)]
pub(crate) struct Reach {
    /// Where hosts to ask are named. Closing it ends the thread; `None` if nobody is ever asked, or that is impossible.
    asking: Option<mpsc::Sender<BTreeSet<IpAddr>>>,
    hosts: BTreeSet<IpAddr>,
    answered: watch::Receiver<Answered>,
}

impl Reach {
    /// Of a node that never asks anybody.
    pub(crate) fn nobody() -> Self {
        Self { asking: None, hosts: BTreeSet::new(), answered: watch::channel(Answered::new()).1 }
    }

    /// Begins to ask, nobody at first.
    ///
    /// # Errors
    /// The system refuses a socket or a thread.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let (tell, answered) = watch::channel(Answered::new());
        let (asking, asked) = mpsc::channel();
        let open = |is_v6| EchoSocket::open(is_v6).context("opening a socket for echo requests");
        // Out of keys that the standard library draws from the kernel.
        let identifier = RandomState::new().build_hasher().finish() as u16;
        let mut asker = Asker {
            v4: open(false)?,
            v6: open(true).ok(),
            identifier,
            sequence: 0,
            open: BTreeMap::new(),
            tell,
        };
        std::thread::Builder::new()
            .name("dpr-reach".to_owned())
            .spawn(move || asker.run(&asked))
            .context("starting the thread that asks hosts")?;
        Ok(Self { asking: Some(asking), hosts: BTreeSet::new(), answered })
    }

    /// Asks these hosts from now on.
    pub(crate) fn follow(&mut self, hosts: BTreeSet<IpAddr>) {
        if hosts != self.hosts {
            self.hosts.clone_from(&hosts);
            // One that has ended finds nothing more, which it has logged.
            let _ = self.asking.as_ref().map(|asking| asking.send(hosts));
        }
    }

    /// What came of it.
    pub(crate) fn answered(&self) -> Answered {
        self.answered.borrow().clone()
    }
}

struct Asker {
    v4: EchoSocket,
    /// `None` where the kernel has no IPv6.
    v6: Option<EchoSocket>,
    identifier: u16,
    sequence: u16,
    /// Questions that may still be answered, and when they were asked.
    open: BTreeMap<u16, (IpAddr, Timestamp)>,
    tell: watch::Sender<Answered>,
}

impl Asker {
    fn run(&mut self, asked: &mpsc::Receiver<BTreeSet<IpAddr>>) {
        let mut hosts = BTreeSet::new();
        loop {
            loop {
                match asked.try_recv() {
                    Ok(wanted) => hosts = wanted,
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            let round = Instant::now();
            self.ask(&hosts);
            while let Some(left) = ASK_EVERY.checked_sub(round.elapsed()) {
                if let Err(error) = self.collect(left) {
                    tracing::debug!(%error, "answers of hosts cannot be received");
                    std::thread::sleep(left);
                }
            }
        }
    }

    /// One question to each host; those of the round before have had their time.
    fn ask(&mut self, hosts: &BTreeSet<IpAddr>) {
        self.open.clear();
        self.tell.send_if_modified(|answered| {
            let before = answered.len();
            answered.retain(|host, _| hosts.contains(host));
            answered.len() != before
        });
        for host in hosts {
            self.sequence = self.sequence.wrapping_add(1);
            let token = EchoToken { identifier: self.identifier, sequence: self.sequence };
            let socket = if host.is_ipv6() { self.v6.as_ref() } else { Some(&self.v4) };
            let asked_at = clock::now();
            // A host that is unreachable now does not answer either.
            if socket.is_some_and(|socket| socket.ask(*host, token, PACKET_LEN).is_ok()) {
                self.open.insert(self.sequence, (*host, asked_at));
            }
        }
    }

    /// Takes in answers for at most `time`.
    fn collect(&mut self, time: Duration) -> std::io::Result<()> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
        let mut waiting = vec![PollFd::new(&self.v4, PollFlags::IN)];
        waiting.extend(self.v6.as_ref().map(|v6| PollFd::new(v6, PollFlags::IN)));
        poll(&mut waiting, Some(&timeout))?;
        for socket in [Some(&mut self.v4), self.v6.as_mut()].into_iter().flatten() {
            while let Some(reply) = socket.receive()? {
                if reply.token.identifier != self.identifier {
                    continue;
                }
                let is_its = |(host, _): &(IpAddr, Timestamp)| *host == reply.from;
                let Some((host, asked_at)) = self.open.get(&reply.token.sequence).copied().filter(is_its)
                else {
                    continue;
                };
                self.open.remove(&reply.token.sequence);
                self.tell.send_modify(|answered| {
                    answered.insert(host, asked_at);
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_answers_is_known_and_one_that_does_not_is_not() {
        let Ok(mut reach) = Reach::start() else {
            // Without CAP_NET_RAW nobody can be asked.
            return;
        };
        // Nobody may be asked by broadcast, whatever network this runs in.
        let (near, nobody) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([255; 4]));
        let began = clock::now();
        reach.follow([near, nobody].into());

        let deadline = Instant::now() + Duration::from_secs(5);
        while reach.answered().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }

        let answered = reach.answered();
        assert!(answered.get(&near).is_some_and(|at| *at >= began), "{answered:?}");
        assert_eq!(answered.get(&nobody), None);
    }
}
