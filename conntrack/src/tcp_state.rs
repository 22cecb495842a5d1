//! TCP state from one half of a conversation.
//!
//! With direct replies a director sees only what the client sends: it cannot know the server's window, nor whether
//! the server accepts a segment. The rules are those of IPVS for connections without a way back (Linux
//! `net/netfilter/ipvs/ip_vs_proto_tcp.c`, `tcp_states`, `INPUT-ONLY`), made stricter by the generation, which IPVS
//! does not keep, and milder towards resets, which are easy to forge.

/// TCP facts of one packet that a client sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// SYN flag.
    pub syn: bool,
    /// ACK flag.
    pub ack: bool,
    /// FIN flag.
    pub fin: bool,
    /// RST flag.
    pub rst: bool,
    /// Sequence number field.
    pub sequence: u32,
}

impl Segment {
    /// A datagram of a UDP flow: whoever sends a second one is taken for established, and so is the first.
    pub const DATAGRAM: Self = Self { syn: false, ack: true, fin: false, rst: false, sequence: 1 };

    /// Stands for any segment of an established connection of this generation.
    pub fn going_on(generation: u32) -> Self {
        Self { ack: true, sequence: generation.wrapping_add(1), ..Self::default() }
    }

    /// True for a SYN that asks for a new connection.
    pub fn opens(self) -> bool {
        self.syn && !self.ack && !self.rst
    }

    /// The generation of a connection that begins with this segment: the client's initial sequence number.
    ///
    /// For anything but a SYN it is a guess that holds for the ACK that ends a handshake: one less than its sequence
    /// number (RFC 9293 section 3.5).
    pub fn generation(self) -> u32 {
        if self.opens() { self.sequence } else { self.sequence.wrapping_sub(1) }
    }
}

/// Where a connection stands, as far as the client's half tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// SYN seen, nothing after it.
    HalfOpen,
    /// The client has answered the handshake.
    Established,
    /// The client has closed its half; it may go on to receive, and to acknowledge, for long.
    Fin,
    /// A reset came. If the client sends on, the reset was forged or not acceptable to the real server (RFC 5961
    /// section 3), and the connection is established again.
    Reset,
    /// Over: the real server said so, or a reset came after the client's FIN.
    Closed,
}

impl TcpState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::HalfOpen, Self::Established, Self::Fin, Self::Reset, Self::Closed];

    /// The word for it in status and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::HalfOpen => "half-open",
            Self::Established => "established",
            Self::Fin => "fin",
            Self::Reset => "reset",
            Self::Closed => "closed",
        }
    }

    /// The state of an entry that begins with `segment`.
    pub(crate) fn initial(segment: Segment) -> Self {
        match segment {
            Segment { rst: true, .. } => Self::Closed,
            Segment { syn: true, ack: false, .. } => Self::HalfOpen,
            Segment { fin: true, .. } => Self::Fin,
            _ => Self::Established,
        }
    }

    /// What `segment` does to a connection of `generation` in this state.
    #[inline]
    pub(crate) fn step(self, segment: Segment, generation: u32) -> Step {
        if segment.rst {
            return self.reset();
        }
        if segment.opens() {
            return self.reopen(segment.sequence == generation);
        }
        if segment.syn || !segment.ack {
            // A receiver drops a segment without ACK (RFC 9293 section 3.10.7.4), and no client sends SYN-ACK.
            return Step::Keep;
        }
        match (self, segment.fin) {
            (Self::Closed, _) => Step::Enter(Self::Closed),
            (_, true) | (Self::Fin, _) => Step::Enter(Self::Fin),
            (Self::HalfOpen | Self::Established | Self::Reset, false) => Step::Enter(Self::Established),
        }
    }

    fn reset(self) -> Step {
        match self {
            Self::Established => Step::Enter(Self::Reset),
            Self::Fin => Step::Enter(Self::Closed),
            // As in IPVS. Otherwise pairs of SYN and RST would get around the bound for half-open connections.
            Self::HalfOpen | Self::Reset | Self::Closed => Step::Keep,
        }
    }

    fn reopen(self, same_generation: bool) -> Step {
        match (self, same_generation) {
            (Self::HalfOpen, true) => Step::Enter(Self::HalfOpen),
            // A restarted client: the real server's challenge ACK makes it send RST (RFC 5961 section 4).
            (Self::Established, false) => Step::Keep,
            (_, true) => Step::Keep,
            (Self::HalfOpen | Self::Fin | Self::Reset | Self::Closed, false) => Step::Replace,
        }
    }
}

/// Effect of a segment on an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Neither state nor deadline change.
    Keep,
    /// The state is this from now on, and its timeout starts anew.
    Enter(TcpState),
    /// The segment opens another connection with the same sockets: the entry has to go.
    Replace,
}

#[cfg(test)]
mod tests {
    use super::TcpState::{Closed, Established, Fin, HalfOpen, Reset};
    use super::*;

    const GENERATION: u32 = 1000;
    const NONE: Segment = Segment { syn: false, ack: false, fin: false, rst: false, sequence: 1001 };
    const SYN: Segment = Segment { syn: true, sequence: GENERATION, ..NONE };
    const OTHER_SYN: Segment = Segment { sequence: 77, ..SYN };
    const SYN_ACK: Segment = Segment { ack: true, ..SYN };
    const ACK: Segment = Segment { ack: true, ..NONE };
    const FIN: Segment = Segment { fin: true, ..ACK };
    const BARE_FIN: Segment = Segment { fin: true, ..NONE };
    const RST: Segment = Segment { rst: true, ..NONE };

    #[test]
    fn every_state_has_one_answer_to_every_segment() {
        use Step::{Enter, Keep, Replace};
        #[rustfmt::skip]
        let table = [
            //           half-open            established          fin             reset                closed
            (SYN,       [Enter(HalfOpen),     Keep,                Keep,           Keep,                Keep]),
            (OTHER_SYN, [Replace,             Keep,                Replace,        Replace,             Replace]),
            (SYN_ACK,   [Keep,                Keep,                Keep,           Keep,                Keep]),
            (ACK,       [Enter(Established),  Enter(Established),  Enter(Fin),     Enter(Established),  Enter(Closed)]),
            (FIN,       [Enter(Fin),          Enter(Fin),          Enter(Fin),     Enter(Fin),          Enter(Closed)]),
            (BARE_FIN,  [Keep,                Keep,                Keep,           Keep,                Keep]),
            (RST,       [Keep,                Enter(Reset),        Enter(Closed),  Keep,                Keep]),
            (NONE,      [Keep,                Keep,                Keep,           Keep,                Keep]),
        ];

        for (segment, steps) in table {
            for (state, expected) in [HalfOpen, Established, Fin, Reset, Closed].into_iter().zip(steps) {
                assert_eq!(state.step(segment, GENERATION), expected, "{segment:?} in {state:?}");
            }
        }
    }

    #[test]
    fn an_entry_begins_in_the_state_that_its_first_segment_shows() {
        let begun = [SYN, SYN_ACK, ACK, FIN, RST].map(TcpState::initial);

        assert_eq!(begun, [HalfOpen, Established, Established, Fin, Closed]);
    }

    #[test]
    fn the_ack_of_a_handshake_has_the_generation_of_its_syn() {
        assert_eq!(SYN.generation(), GENERATION);
        assert_eq!(ACK.generation(), GENERATION);
        assert_eq!(Segment { sequence: 0, ..ACK }.generation(), u32::MAX);
    }
}
