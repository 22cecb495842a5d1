//! The source: data packets of one TCP connection, so many a second and no more.

use super::lane::{Destination, Lane, SOURCE};
use crate::dataplane::packet_socket::{Offload, Outgoing, Sender};
use anyhow::{Context as _, bail};
use dpr_host::LinkIndex;
use dpr_model::MacAddress;
use dpr_rewrite::checksum::{fold, pseudo_header, sum_of};
use dpr_rewrite::ethernet::{self, ethertype};
use dpr_rewrite::ipv4::{self, Fields};
use dpr_rewrite::protocol;
use dpr_rewrite::tcp::{self, flag};
use std::time::{Duration, Instant};

/// Where the service listens.
pub(super) const SERVICE_PORT: u16 = 80;
const CLIENT_PORT: u16 = 40_000;
/// Frames that go out together, as they would come from a network card's queue.
const BURST: u32 = 32;
/// The client's initial sequence number.
const INITIAL_SEQUENCE: u32 = 1000;

/// A client whose handshake is done.
pub(super) struct Source {
    socket: Sender,
    link: LinkIndex,
    /// A data packet, as it is sent.
    data: Vec<u8>,
}

impl Source {
    /// Opens the connection as the director sees it: SYN and ACK of the client. `payload_len` is in bytes.
    pub(super) fn connect(lane: &Lane, payload_len: u16) -> anyhow::Result<Self> {
        let socket =
            lane.at_source(|| Sender::open(lane.link.0))?.context("opening packet sockets for sending")?;
        let frame = |flags, payload_len| segment(lane.route, flags, payload_len);
        let source = Self { socket, link: lane.link, data: frame(flag::ACK | flag::PSH, payload_len) };
        if lane.way.needs_a_handshake() {
            source.send(&frame(flag::SYN, 0), 1)?;
            // The decision is made before anything else of the connection arrives.
            std::thread::sleep(Duration::from_millis(100));
            source.send(&frame(flag::ACK, 0), 1)?;
        }
        Ok(source)
    }

    /// Sends data packets for `time` at `rate` packets per second; returns how many.
    pub(super) fn send_for(&self, time: Duration, rate: u32) -> anyhow::Result<u64> {
        let bursts = (time.as_secs_f64() * f64::from(rate) / f64::from(BURST)).ceil() as u32;
        let pause = Duration::from_secs_f64(f64::from(BURST) / f64::from(rate));
        let began = Instant::now();
        for nth in 0..bursts {
            let due = began + pause * nth;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.burst()?;
        }
        Ok(u64::from(bursts) * u64::from(BURST))
    }

    /// Sends some data packets at once.
    fn burst(&self) -> anyhow::Result<()> {
        self.send(&self.data, BURST)
    }

    fn send(&self, bytes: &[u8], copies: u32) -> anyhow::Result<()> {
        let outgoing = Outgoing { bytes, link: self.link.0 };
        let frames = [outgoing; BURST as usize];
        let wanted = &frames[..copies as usize];
        let (sent, error) = self.socket.send(wanted);
        if let Some(error) = error {
            return Err(error).context("sending packets");
        }
        if sent < wanted.len() {
            bail!("the source's interface took {sent} of {} packets", wanted.len());
        }
        Ok(())
    }
}

/// A frame of which nothing is left undone, as a packet socket wants it.
fn segment(route: Destination, flags: u8, payload_len: u16) -> Vec<u8> {
    let tcp_len = tcp::HEADER_LEN as u16 + payload_len;
    let fields = Fields {
        tos: 0,
        total_len: ipv4::HEADER_LEN as u16 + tcp_len,
        id: 0,
        ttl: 64,
        protocol: protocol::TCP,
        source: SOURCE,
        destination: route.address,
    };
    let sequence = INITIAL_SEQUENCE + u32::from(flags & flag::SYN == 0);
    let mut frame = Offload::default().to_bytes().to_vec();
    frame.extend(ethernet::header(route.mac, MacAddress([2, 0, 0, 78, 1, 1]), ethertype::IPV4));
    frame.extend(ipv4::header(&fields));
    let tcp_at = frame.len();
    frame.extend(CLIENT_PORT.to_be_bytes());
    frame.extend(SERVICE_PORT.to_be_bytes());
    frame.extend(sequence.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(frame.len() + usize::from(payload_len), 0x61);
    let pseudo = pseudo_header(fields.source.into(), fields.destination.into(), fields.protocol, tcp_len);
    let checksum = !fold(pseudo + sum_of(&frame[tcp_at..]));
    let checksum_at = tcp_at + tcp::field::CHECKSUM;
    frame[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    frame
}
