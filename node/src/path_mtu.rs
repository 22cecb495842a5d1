//! The largest packet that fits on the way to each peer, found by asking: echo requests that nobody may fragment.
//!
//! Tunnels between nodes must not be fragmented, and no router's error about a tunnel comes to anybody who remembers it.
//! Networks between nodes that swallow large packets silently are common (overlays, a switch port without jumbo frames),
//! and then small connections work and large ones hang. A peer's kernel answers, so nothing has to run there. A false
//! answer makes this node believe in the link's own MTU, which is what it believes without any answer.
//!
//! To ask, the kernel had to find out the peer's MAC address: a node that is on the same link is shown with it.

use anyhow::Context as _;
use dpr_host::{EchoSocket, EchoToken, LinkIndex, Netlink};
use dpr_model::MacAddress;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::IpAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Time between rounds; a new peer is asked at once.
const ROUND_INTERVAL: Duration = Duration::from_secs(30);
/// How often a size is tried before it is taken not to fit: packets get lost for other reasons as well.
const ATTEMPTS: u32 = 3;
/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_millis(300);
/// MTUs of common links, bytes, from the largest: jumbo frames; RFC 1191, section 7.1; Ethernet with PPPoE, 6in4, VXLAN
/// over IPv4 and IPv6, WireGuard; the least for IPv6 (RFC 8200, section 5) and what every IPv4 host takes (RFC 791).
const PLATEAUS: [u16; 14] =
    [9000, 8166, 4352, 2002, 1500, 1492, 1480, 1450, 1430, 1420, 1400, 1280, 1006, 576];
/// The least MTU of IPv6, bytes.
const IPV6_MTU_MIN: u16 = 1280;

/// Path MTUs by node address.
type MtuByPeer = BTreeMap<IpAddr, u16>;

/// What is known of the ways to peers.
#[derive(Debug, Default)]
struct Found {
    mtu_by_peer: MtuByPeer,
    /// Those on the same link.
    mac_by_peer: BTreeMap<IpAddr, MacAddress>,
}

/// The daemon's end of the prober.
#[derive(Debug)]
pub(crate) struct PathMtus {
    /// `None` where the system does not let it ask.
    asking: Option<mpsc::Sender<BTreeSet<IpAddr>>>,
    peers: BTreeSet<IpAddr>,
    found: watch::Receiver<Found>,
}

impl PathMtus {
    /// Starts the prober's thread for peers of one IP version behind a link with this MTU. Without the right to ask,
    /// nothing is ever found, and the log says so.
    pub(crate) fn start(node_address: IpAddr, link: LinkIndex, link_mtu: u16) -> Self {
        let (tell, found) = watch::channel(Found::default());
        let asking = Prober::open(node_address.is_ipv6(), link, link_mtu, tell).and_then(Prober::start);
        let asking = asking
            .inspect_err(|error| tracing::warn!(error = %format_args!("{error:#}"), "path MTUs stay unknown"))
            .ok();
        Self { asking, peers: BTreeSet::new(), found }
    }

    /// Asks these peers from now on.
    pub(crate) fn follow(&mut self, peers: BTreeSet<IpAddr>) {
        if peers != self.peers {
            self.peers.clone_from(&peers);
            // A prober that has ended finds nothing more, which it has logged.
            let _ = self.asking.as_ref().map(|asking| asking.send(peers));
        }
    }

    /// What is known of the way to a peer, bytes.
    pub(crate) fn to(&self, peer: IpAddr) -> Option<u16> {
        self.found.borrow().mtu_by_peer.get(&peer).copied()
    }

    /// A peer's MAC address, if it is on the same link and the kernel knows it.
    pub(crate) fn mac_of(&self, peer: IpAddr) -> Option<MacAddress> {
        self.found.borrow().mac_by_peer.get(&peer).copied()
    }
}

struct Prober {
    socket: EchoSocket,
    netlink: Netlink,
    link: LinkIndex,
    identifier: u16,
    sequence: u16,
    link_mtu: u16,
    plateaus: Vec<u16>,
    tell: watch::Sender<Found>,
}

impl Prober {
    fn open(is_v6: bool, link: LinkIndex, link_mtu: u16, tell: watch::Sender<Found>) -> anyhow::Result<Self> {
        let socket = EchoSocket::open(is_v6).context("opening a socket for echo requests")?;
        let netlink = Netlink::open().context("opening a socket to ask for neighbours")?;
        // Out of keys that the standard library draws from the kernel.
        let identifier = RandomState::new().build_hasher().finish() as u16;
        let plateaus = plateaus_below(link_mtu, is_v6);
        Ok(Self { socket, netlink, link, identifier, sequence: 0, link_mtu, plateaus, tell })
    }

    fn start(mut self) -> anyhow::Result<mpsc::Sender<BTreeSet<IpAddr>>> {
        let (asking, asked) = mpsc::channel();
        std::thread::Builder::new()
            .name("dpr-path-mtu".to_owned())
            .spawn(move || self.run(&asked))
            .context("starting the thread that probes path MTUs")?;
        Ok(asking)
    }

    fn run(&mut self, asked: &mpsc::Receiver<BTreeSet<IpAddr>>) {
        let mut peers = BTreeSet::new();
        let mut next_round = Instant::now() + ROUND_INTERVAL;
        loop {
            let new: BTreeSet<IpAddr> = match asked.recv_timeout(next_round.duration_since(Instant::now())) {
                Ok(wanted) => {
                    let new = wanted.difference(&peers).copied().collect();
                    peers = wanted;
                    self.tell.send_modify(|found| {
                        found.mtu_by_peer.retain(|peer, _| peers.contains(peer));
                        found.mac_by_peer.retain(|peer, _| peers.contains(peer));
                    });
                    new
                }
                Err(RecvTimeoutError::Timeout) => {
                    next_round = Instant::now() + ROUND_INTERVAL;
                    peers.clone()
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = self.round(&new) {
                tracing::debug!(%error, "path MTUs could not be probed");
            }
            self.look_for_macs(&new);
        }
    }

    /// Asks each of `peers`: whether the link's MTU fits, and where it does not, which of the plateaus do.
    fn round(&mut self, peers: &BTreeSet<IpAddr>) -> std::io::Result<()> {
        let at_most = self.largest_answered(peers, &[self.link_mtu])?;
        let others: BTreeSet<IpAddr> =
            peers.iter().filter(|peer| !at_most.contains_key(peer)).copied().collect();
        let less = self.largest_answered(&others, &self.plateaus.clone())?;
        for (&peer, &mtu) in &less {
            if self.tell.borrow().mtu_by_peer.get(&peer) != Some(&mtu) {
                let link_mtu = self.link_mtu;
                tracing::warn!(%peer, mtu, link_mtu, "the way to a peer takes smaller packets than the link; tunnels adapt");
            }
        }
        self.tell.send_modify(|found| {
            // Who answers nothing may be down, or be told not to: what was known of the way stays.
            found.mtu_by_peer.extend(at_most.into_iter().chain(less));
        });
        Ok(())
    }

    /// Takes over what the kernel has learned about `peers` while they were asked.
    fn look_for_macs(&mut self, peers: &BTreeSet<IpAddr>) {
        for &peer in peers {
            match self.netlink.neighbour(self.link, peer) {
                Ok(neighbour) => {
                    let usable = neighbour.filter(|neighbour| neighbour.state.is_usable());
                    let mac = usable.and_then(|neighbour| neighbour.mac);
                    self.tell.send_modify(|found| match mac {
                        Some(mac) => drop(found.mac_by_peer.insert(peer, mac)),
                        None => drop(found.mac_by_peer.remove(&peer)),
                    });
                }
                Err(error) => tracing::debug!(%peer, %error, "the kernel does not say a peer's MAC address"),
            }
        }
    }

    /// The largest of `sizes` that each of `peers` answered; nothing for those that answered none.
    fn largest_answered(&mut self, peers: &BTreeSet<IpAddr>, sizes: &[u16]) -> std::io::Result<MtuByPeer> {
        let mut answered = MtuByPeer::new();
        for _ in 0..ATTEMPTS {
            let mut asked: BTreeMap<u16, (IpAddr, u16)> = BTreeMap::new();
            for peer in peers {
                let missing = sizes.iter().filter(|size| answered.get(peer) < Some(*size));
                for &size in missing {
                    self.sequence = self.sequence.wrapping_add(1);
                    let token = EchoToken { identifier: self.identifier, sequence: self.sequence };
                    // A host that is unreachable now, or a size that the kernel knows not to fit, is no answer either.
                    if self.socket.ask(*peer, token, usize::from(size)).is_ok() {
                        asked.insert(self.sequence, (*peer, size));
                    }
                }
            }
            self.collect(&mut asked, &mut answered)?;
        }
        Ok(answered)
    }

    /// Takes in answers until all are there or their time is over.
    fn collect(
        &mut self,
        asked: &mut BTreeMap<u16, (IpAddr, u16)>,
        answered: &mut MtuByPeer,
    ) -> std::io::Result<()> {
        let deadline = Instant::now() + ANSWER_TIME;
        while !asked.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
            poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout))?;
            while let Some(reply) = self.socket.receive()? {
                let is_ours = reply.token.identifier == self.identifier;
                let Some((peer, size)) = asked.get(&reply.token.sequence).copied().filter(|_| is_ours) else {
                    continue;
                };
                if (peer, usize::from(size)) == (reply.from, reply.packet_len) {
                    asked.remove(&reply.token.sequence);
                    let largest = answered.entry(peer).or_default();
                    *largest = size.max(*largest);
                }
            }
        }
        Ok(())
    }
}

fn plateaus_below(link_mtu: u16, is_v6: bool) -> Vec<u16> {
    let least = if is_v6 { IPV6_MTU_MIN } else { 0 };
    PLATEAUS.into_iter().filter(|mtu| (least..link_mtu).contains(mtu)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_is_less_than_the_link_and_enough_for_the_version() {
        assert_eq!(plateaus_below(1500, true), [1492, 1480, 1450, 1430, 1420, 1400, 1280]);
        assert_eq!(plateaus_below(1400, false), [1280, 1006, 576]);
        assert!(plateaus_below(1280, true).is_empty());
        assert!(PLATEAUS.is_sorted_by(|larger, smaller| larger > smaller));
    }
}
