//! Showing vectors to a data plane.

use crate::cluster::{Scene, protocol};
use crate::describe::{describe_frame, describe_packet};
use crate::frame::{NODE_MAC, Words, frame_of};
use crate::table::{Step, Table, Vector};
use dpr_director::{Arrival, Director, LocalSockets};
use dpr_model::{ClientSocket, Protocol, ServiceSocket, Timestamp, Translation, Verdict};
use dpr_rewrite::{Parsed, parse, parse_ip};
use dpr_sim::edits::{Out, Way, carry_out};
use std::net::SocketAddr;
use std::time::Duration;

/// When vectors begin.
const START: Timestamp = Timestamp::from_millis(1_000_000);

/// Sockets of the local stack: protocol, own, the client's.
pub type Sockets = Vec<(Protocol, SocketAddr, SocketAddr)>;

/// What became of a frame: the verdict, or the reason why it could not be parsed or edited, and what leaves.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// Packets and frames that leave.
    pub out: Vec<Out>,
}

/// A data plane that can be shown frames.
pub trait Executor {
    /// A fresh data plane for `scene`.
    fn begin(&mut self, scene: &Scene, now: Timestamp);
    /// What the daemon knows has changed.
    fn tell(&mut self, scene: &Scene, now: Timestamp);
    /// A frame from the network.
    fn receive(&mut self, frame: &[u8], sockets: &Sockets, now: Timestamp) -> Outcome;
    /// A frame of the local stack, to a client.
    fn reply(&mut self, frame: &[u8], now: Timestamp) -> Outcome;
}

/// The definition of correct behaviour: a director, and `rewrite` for its edits.
#[derive(Debug, Default)]
pub struct DirectorExecutor {
    director: Option<Director>,
}

impl Executor for DirectorExecutor {
    fn begin(&mut self, scene: &Scene, now: Timestamp) {
        self.director = Some(scene.director(now));
    }

    fn tell(&mut self, scene: &Scene, now: Timestamp) {
        let director = self.director.as_mut().expect("it has begun");
        director.handle_timeout(now, usize::MAX);
        director.update(&scene.update, now);
    }

    fn receive(&mut self, frame: &[u8], sockets: &Sockets, now: Timestamp) -> Outcome {
        let director = self.director.as_mut().expect("it has begun");
        let parsed = match parse(frame) {
            Ok(parsed) => parsed,
            Err(reason) => return Outcome { verdict: Verdict::Drop(reason), out: vec![] },
        };
        let wire_len = match &parsed {
            Parsed::Ip(ip) => ip.outer.map_or(0, |outer| usize::from(outer.len)) + ip.packet.ip.total_len(),
            _ => frame.len(),
        };
        let arrival = Arrival { parsed: &parsed, wire_len, packets: 1 };
        let verdict = director.handle_frame(arrival, &mut Open(sockets), now);
        outcome(verdict, &parsed, frame)
    }

    fn reply(&mut self, frame: &[u8], _now: Timestamp) -> Outcome {
        let director = self.director.as_mut().expect("it has begun");
        match parse_ip(frame, 14) {
            Ok(parsed) => outcome(director.handle_reply(&parsed, 1), &Parsed::Ip(parsed), frame),
            Err(reason) => Outcome { verdict: Verdict::Drop(reason), out: vec![] },
        }
    }
}

fn outcome(verdict: Verdict, parsed: &Parsed, frame: &[u8]) -> Outcome {
    match carry_out(verdict, parsed, frame.to_vec(), NODE_MAC) {
        Ok(out) => Outcome { verdict, out },
        Err(reason) => Outcome { verdict: Verdict::Drop(reason), out: vec![] },
    }
}

struct Open<'a>(&'a Sockets);

impl LocalSockets for Open<'_> {
    fn holds(&mut self, protocol: Protocol, local: ServiceSocket, client: ClientSocket) -> bool {
        let own = SocketAddr::new(local.address, local.port);
        self.0.contains(&(protocol, own, SocketAddr::new(client.address, client.port)))
    }
}

/// Shows one vector of `table` to `executor`; returns verdict and frames out as text.
///
/// # Panics
/// When the vector is not of the tables' notation.
pub fn run(table: &Table, vector: &Vector, executor: &mut dyn Executor) -> (String, Vec<String>) {
    let cluster = table.clusters.get(&vector.cluster);
    let mut cluster = cluster.unwrap_or_else(|| panic!("there is no cluster {:?}", vector.cluster)).clone();
    let mut now = START;
    let mut sockets = Vec::new();
    executor.begin(&cluster.scene(), now);
    for step in &vector.steps {
        match step {
            Step::Before(frame) => {
                executor.receive(&frame_of(frame), &sockets, now);
            }
            Step::Wait(seconds) => {
                now = now + Duration::from_secs(*seconds);
                executor.tell(&cluster.scene(), now);
            }
            Step::Tell(line) => {
                cluster.say(line);
                executor.tell(&cluster.scene(), now);
            }
            Step::Socket(line) => {
                let words = Words::of(line);
                let ends = (words.at(1).parse().unwrap(), words.at(2).parse().unwrap());
                sockets.push((protocol(words.at(0)), ends.0, ends.1));
            }
        }
    }
    let frame = frame_of(&vector.frame);
    let outcome = match vector.is_reply {
        true => executor.reply(&frame, now),
        false => executor.receive(&frame, &sockets, now),
    };
    (verdict_text(outcome.verdict), outcome.out.iter().map(out_text).collect())
}

fn out_text(out: &Out) -> String {
    match out.way {
        Way::Stack => format!("stack: {}", describe_packet(&out.bytes)),
        Way::Route(to) => format!("route {to}: {}", describe_packet(&out.bytes)),
        Way::Neighbour(to) => format!("neighbour {to}: {}", describe_packet(&out.bytes)),
        Way::Link => format!("link: {}", describe_frame(&out.bytes)),
    }
}

fn verdict_text(verdict: Verdict) -> String {
    match verdict {
        Verdict::Pass => "pass".into(),
        Verdict::Deliver(delivery) => {
            let to = delivery.to.map_or("as it is".into(), |to| format!("to {to}"));
            format!("deliver {to} decapsulate={}", delivery.decapsulate)
        }
        Verdict::Forward(forward) => {
            let cut = forward.fragment.map_or(String::new(), |mtu| format!(" cut to {mtu}"));
            format!(
                "forward {:?} {} > {} hops={} decapsulate={}{cut}",
                forward.encapsulation, forward.from, forward.to, forward.hops, forward.decapsulate
            )
        }
        Verdict::Direct { to } => format!("direct to {to}"),
        Verdict::Nat(nat) => format!("nat {} decapsulate={}", ends_text(&nat.ends), nat.decapsulate),
        Verdict::NatReply(nat) => format!("nat-reply {}", ends_text(&nat.ends)),
        Verdict::Reply(reply) => {
            let mss = reply.mss_max.map_or(String::new(), |mss| format!(" mss at most {mss}"));
            format!("reply from {} to {}{mss}", reply.from, reply.to)
        }
        Verdict::TooBig { mtu, from } => format!("too big for {mtu}, says {from}"),
        Verdict::AnswerArp => "answer arp".into(),
        Verdict::AnswerNeighbour => "answer neighbour".into(),
        Verdict::AnswerEcho => "answer echo".into(),
        Verdict::Ask => "ask".into(),
        Verdict::Drop(reason) => format!("drop {}", reason.label()),
    }
}

fn ends_text(ends: &Translation) -> String {
    let end = |end: Option<dpr_model::End>| match end {
        None => "as it is".to_owned(),
        Some(end) => match end.port {
            Some(port) => SocketAddr::new(end.address, port).to_string(),
            None => end.address.to_string(),
        },
    };
    format!("{} > {}", end(ends.source), end(ends.destination))
}
