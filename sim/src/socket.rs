//! One end of a TCP connection, as small as it may be and still be TCP to everything in between.
//!
//! Both ends are this: servers' sockets and clients'. It keeps one segment on its way and retransmits it as RFC 6298
//! says; it is strict where a director's mistakes would show: sequence numbers, acknowledgements, resets (RFC 5961),
//! TIME_WAIT. It has no window, no congestion control and nothing to reassemble, because no invariant needs them.

use crate::segment::Segment;
use dpr_model::Timestamp;
use dpr_rewrite::Version;
use dpr_rewrite::tcp::{self, flag};
use std::net::SocketAddr;
use std::time::Duration;

/// First retransmission timeout (RFC 6298, section 2.1); doubles with every retransmission.
const TIMEOUT_FIRST: Duration = Duration::from_secs(1);
/// Retransmissions of one segment before an end gives up, 127 seconds in all; Linux sends as many SYNs.
const RETRANSMISSIONS_MAX: u32 = 6;
/// How long the end that closed first remembers, as in Linux (`TCP_TIMEWAIT_LEN`).
const TIME_WAIT: Duration = Duration::from_secs(60);
/// How long an end that has nothing on its way waits for the other one.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// Shortest time between challenge ACKs of one socket, as in Linux (`tcp_invalid_ratelimit`).
const CHALLENGE_PAUSE: Duration = Duration::from_millis(500);
/// MTU of every link, bytes.
const MTU: u16 = 1500;
/// What a SYN without the option means (RFC 9293, section 3.7.1).
const MSS_DEFAULT: u16 = 536;
/// Larger differences of sequence numbers are outside of any window.
const WINDOW: u32 = 65_535;

/// Where a connection stands for one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    SynSent,
    SynReceived,
    Established,
    /// This end has closed and the other one has not.
    FinSent,
    /// The other end closed first, and this one has closed as well.
    LastAck,
    TimeWait,
}

/// How a connection ended for one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Reset,
    TimedOut,
}

/// What a segment led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reaction {
    pub(crate) reply: Option<Segment>,
    /// The handshake is complete for this end.
    pub(crate) connected: bool,
    /// New data, in order.
    pub(crate) data: Option<Vec<u8>>,
    /// The socket is no more.
    pub(crate) end: Option<End>,
}

/// One end.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    pub(crate) state: State,
    /// Sequence number of the next byte to send.
    next_out: u32,
    /// Largest [`Self::next_out`] so far: what was sent before it was cut may have arrived as a whole.
    sent: u32,
    /// Sequence number of the next byte expected.
    next_in: u32,
    pending: Option<Pending>,
    /// Largest amount of data that fits into a segment on its way out, bytes.
    pub(crate) mss: u16,
    heard_at: Timestamp,
    challenged_at: Option<Timestamp>,
}

/// The segment that is on its way.
#[derive(Clone, Debug)]
struct Pending {
    segment: Segment,
    retransmissions: u32,
    due: Timestamp,
}

impl Socket {
    /// Asks for a connection; returns the SYN to send.
    pub(crate) fn connect(
        local: SocketAddr,
        remote: SocketAddr,
        initial: u32,
        now: Timestamp,
    ) -> (Self, Segment) {
        let mut socket = Self::new(local, remote, State::SynSent, initial, now);
        let syn = socket.launch(flag::SYN, Vec::new(), now);
        (socket, syn)
    }

    /// Accepts a connection; returns the SYN-ACK to send.
    pub(crate) fn accept(syn: &Segment, initial: u32, now: Timestamp) -> (Self, Segment) {
        let mut socket = Self::new(syn.destination, syn.source, State::SynReceived, initial, now);
        socket.next_in = syn.sequence.wrapping_add(1);
        socket.mss = syn.mss.unwrap_or(MSS_DEFAULT).min(mss_own(syn.destination));
        let syn_ack = socket.launch(flag::SYN | flag::ACK, Vec::new(), now);
        (socket, syn_ack)
    }

    fn new(local: SocketAddr, remote: SocketAddr, state: State, initial: u32, now: Timestamp) -> Self {
        Self {
            local,
            remote,
            state,
            next_out: initial,
            sent: initial,
            next_in: 0,
            pending: None,
            mss: MSS_DEFAULT,
            heard_at: now,
            challenged_at: None,
        }
    }

    /// True while something that was sent has not been acknowledged.
    pub(crate) fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// Sends data, and closes with it if `last`. Nothing may be on its way.
    pub(crate) fn send(&mut self, data: Vec<u8>, last: bool, now: Timestamp) -> Segment {
        debug_assert!(!self.is_waiting(), "one segment at a time");
        let fin = if last { flag::FIN } else { 0 };
        if last {
            self.state = State::FinSent;
        }
        self.launch(flag::ACK | fin, data, now)
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        match (&self.pending, self.state) {
            (Some(pending), _) => pending.due,
            (None, State::TimeWait) => self.heard_at + TIME_WAIT,
            (None, _) => self.heard_at + IDLE_MAX,
        }
    }

    /// Retransmits, or gives up.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Reaction {
        if now < self.poll_timeout() {
            return Reaction::default();
        }
        match &mut self.pending {
            Some(pending) if pending.retransmissions < RETRANSMISSIONS_MAX => {
                pending.retransmissions += 1;
                pending.due = now + TIMEOUT_FIRST * (1 << pending.retransmissions);
                // A retransmission acknowledges what has come since (RFC 9293, section 3.10.7.4).
                if self.state != State::SynSent {
                    pending.segment.acknowledgement = self.next_in;
                }
                Reaction { reply: Some(pending.segment.clone()), ..Reaction::default() }
            }
            Some(_) => Reaction { end: Some(End::TimedOut), ..Reaction::default() },
            None => Reaction { end: Some(End::Closed), ..Reaction::default() },
        }
    }

    /// A smaller packet size became known on the way out (RFC 1191); the segment on its way is cut accordingly.
    pub(crate) fn handle_too_big(&mut self, mss: u16) -> Option<Segment> {
        if mss >= self.mss {
            return None;
        }
        self.mss = mss;
        let pending = self.pending.as_mut()?;
        let cut = pending.segment.data.len().saturating_sub(usize::from(mss));
        pending.segment.data.truncate(usize::from(mss));
        self.next_out = self.next_out.wrapping_sub(u32::try_from(cut).unwrap_or(0));
        Some(pending.segment.clone())
    }

    /// True when a SYN may open a new connection in place of this one (RFC 9293, section 3.10.7.4, TIME-WAIT).
    pub(crate) fn gives_way_to(&self, syn: &Segment) -> bool {
        let newer = syn.sequence.wrapping_sub(self.next_in);
        self.state == State::TimeWait && (1..u32::MAX / 2).contains(&newer)
    }

    /// Takes in a segment for this socket.
    pub(crate) fn handle(&mut self, segment: &Segment, now: Timestamp) -> Reaction {
        self.heard_at = if self.state == State::TimeWait { self.heard_at } else { now };
        if self.state == State::SynSent {
            return self.handle_answer(segment, now);
        }
        if segment.has(flag::RST) {
            return self.handle_reset(segment, now);
        }
        if segment.has(flag::SYN) {
            return self.handle_syn(segment, now);
        }
        if !segment.has(flag::ACK) {
            return Reaction::default();
        }
        if self.covers_what_was_cut(segment.acknowledgement) {
            self.next_out = segment.acknowledgement;
        }
        let ahead = segment.acknowledgement.wrapping_sub(self.next_out);
        if ahead != 0 && self.state == State::SynReceived {
            return Reaction::reply(self.reset_for(segment.acknowledgement));
        }
        if ahead > u32::MAX / 2 {
            return self.handle_old(segment);
        }
        if ahead != 0 {
            return self.challenge(now);
        }
        self.pending = None;
        let mut reaction = self.acknowledged();
        if reaction.end.is_none() {
            self.take_in(segment, &mut reaction, now);
        }
        reaction
    }

    /// True for an acknowledgement of a segment as it was before it was cut.
    fn covers_what_was_cut(&self, acknowledgement: u32) -> bool {
        let ahead = acknowledgement.wrapping_sub(self.next_out);
        ahead <= self.sent.wrapping_sub(self.next_out)
    }

    /// What a client makes of the answer to its SYN.
    fn handle_answer(&mut self, segment: &Segment, now: Timestamp) -> Reaction {
        let acknowledges = segment.has(flag::ACK) && segment.acknowledgement == self.next_out;
        if segment.has(flag::RST) {
            let end = acknowledges.then_some(End::Reset);
            return Reaction { end, ..Reaction::default() };
        }
        if segment.has(flag::ACK) && !acknowledges {
            return Reaction::reply(self.reset_for(segment.acknowledgement));
        }
        if !acknowledges || !segment.has(flag::SYN) {
            return Reaction::default();
        }
        self.pending = None;
        self.heard_at = now;
        self.next_in = segment.sequence.wrapping_add(1);
        self.mss = segment.mss.unwrap_or(MSS_DEFAULT).min(mss_own(self.local));
        self.state = State::Established;
        Reaction { reply: Some(self.ack()), connected: true, ..Reaction::default() }
    }

    /// RFC 5961, section 3.2: only the exact sequence number resets, others in the window are asked about.
    fn handle_reset(&mut self, segment: &Segment, now: Timestamp) -> Reaction {
        let offset = segment.sequence.wrapping_sub(self.next_in);
        match (self.state, offset) {
            // Linux has a reset end TIME_WAIT as well, unless it is told to keep to RFC 1337.
            (_, 0) => Reaction { end: Some(End::Reset), ..Reaction::default() },
            (_, 1..=WINDOW) => self.challenge(now),
            _ => Reaction::default(),
        }
    }

    /// RFC 5961, section 4.2: a SYN is asked about, unless it is the one that began the connection.
    fn handle_syn(&mut self, segment: &Segment, now: Timestamp) -> Reaction {
        let is_own = segment.sequence.wrapping_add(1) == self.next_in && !segment.has(flag::ACK);
        match &self.pending {
            Some(pending) if self.state == State::SynReceived && is_own => {
                Reaction::reply(pending.segment.clone())
            }
            _ => self.challenge(now),
        }
    }

    /// A segment that acknowledges less than was sent: its data can only be old as well.
    fn handle_old(&mut self, segment: &Segment) -> Reaction {
        let advance = segment.len();
        let is_duplicate = advance > 0 && segment.sequence.wrapping_add(advance) == self.next_in;
        if is_duplicate { Reaction::reply(self.ack()) } else { Reaction::default() }
    }

    /// Everything that was sent has arrived.
    fn acknowledged(&mut self) -> Reaction {
        match self.state {
            State::SynReceived => {
                self.state = State::Established;
                Reaction { connected: true, ..Reaction::default() }
            }
            State::LastAck => Reaction { end: Some(End::Closed), ..Reaction::default() },
            _ => Reaction::default(),
        }
    }

    fn take_in(&mut self, segment: &Segment, reaction: &mut Reaction, now: Timestamp) {
        if segment.len() == 0 {
            return;
        }
        if segment.sequence != self.next_in {
            reaction.reply = Some(self.ack());
            return;
        }
        self.next_in = self.next_in.wrapping_add(segment.len());
        if !segment.data.is_empty() {
            reaction.data = Some(segment.data.clone());
        }
        reaction.reply = Some(match (segment.has(flag::FIN), self.state) {
            (true, State::Established) => {
                self.state = State::LastAck;
                self.launch(flag::FIN | flag::ACK, Vec::new(), now)
            }
            (true, State::FinSent) => {
                self.state = State::TimeWait;
                self.ack()
            }
            _ => self.ack(),
        });
    }

    fn launch(&mut self, flags: u8, data: Vec<u8>, now: Timestamp) -> Segment {
        let mss = (flags & flag::SYN != 0).then_some(mss_own(self.local));
        let segment = Segment { flags, data, mss, ..self.bare(self.next_out) };
        self.next_out = self.next_out.wrapping_add(segment.len());
        self.sent = self.next_out;
        self.pending =
            Some(Pending { segment: segment.clone(), retransmissions: 0, due: now + TIMEOUT_FIRST });
        segment
    }

    fn ack(&self) -> Segment {
        Segment { flags: flag::ACK, ..self.bare(self.next_out) }
    }

    fn challenge(&mut self, now: Timestamp) -> Reaction {
        if self.challenged_at.is_some_and(|before| now.since(before) < CHALLENGE_PAUSE) {
            return Reaction::default();
        }
        self.challenged_at = Some(now);
        Reaction::reply(self.ack())
    }

    fn reset_for(&self, sequence: u32) -> Segment {
        Segment { flags: flag::RST, acknowledgement: 0, ..self.bare(sequence) }
    }

    fn bare(&self, sequence: u32) -> Segment {
        Segment {
            source: self.local,
            destination: self.remote,
            sequence,
            acknowledgement: self.next_in,
            flags: 0,
            mss: None,
            data: Vec::new(),
        }
    }
}

impl Reaction {
    fn reply(segment: Segment) -> Self {
        Self { reply: Some(segment), ..Self::default() }
    }
}

/// What an end announces.
fn mss_own(local: SocketAddr) -> u16 {
    tcp::mss_max(MTU, 0, Version::of(local.ip()))
}

/// The answer to a segment that no socket is for (RFC 9293, section 3.10.7.1); a reset gets none.
pub(crate) fn refusal_of(segment: &Segment) -> Option<Segment> {
    if segment.has(flag::RST) {
        return None;
    }
    let (sequence, acknowledgement, flags) = match segment.has(flag::ACK) {
        true => (segment.acknowledgement, 0, flag::RST),
        false => (0, segment.sequence.wrapping_add(segment.len()), flag::RST | flag::ACK),
    };
    Some(Segment {
        source: segment.destination,
        destination: segment.source,
        sequence,
        acknowledgement,
        flags,
        mss: None,
        data: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
