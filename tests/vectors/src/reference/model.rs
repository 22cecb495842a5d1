//! What was promised, without tables and clocks.

use dpr_model::DropReason;
use std::collections::BTreeMap;

/// The node whose pipeline it is.
pub(crate) const A: usize = 0;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Carrying {
    /// A SYN with this sequence number.
    Syn(u32),
    /// A segment that no client sends.
    SynAck,
    /// An ordinary segment.
    Ack,
    /// A segment that ends the client's half.
    Fin,
    /// A segment that ends the connection.
    Rst,
    /// UDP.
    Datagram,
    /// An ICMP error about a TCP segment to the client.
    Error,
    /// The first piece of a datagram, of which there are several.
    FirstFragment(u8),
    /// Its other piece.
    LaterFragment(u8),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum State {
    HalfOpen,
    Established,
    Fin,
    Reset,
    Closed,
    Udp,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) server: usize,
    pub(crate) state: State,
    pub(crate) generation: u32,
    pub(crate) until_s: u64,
}

/// What has to become of a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Here,
    /// To a real server, by the service's method.
    Server(usize),
    /// In a tunnel with so many hops left.
    Owner(usize, u8),
    Drop(DropReason),
}

pub(crate) struct Model {
    pub(crate) method: &'static str,
    pub(crate) now_s: u64,
    pub(crate) entries: BTreeMap<(u8, bool), Entry>,
    /// The TCP service keeps clients on their real server.
    pub(crate) is_persistent: bool,
    /// Real server by client host, and until when.
    pub(crate) clients: BTreeMap<u8, (usize, u64)>,
    /// When the first fragment of a client's packet came.
    pub(crate) fragments: BTreeMap<(u8, u8, usize), u64>,
    pub(crate) loads: [u16; 3],
    pub(crate) alive: [bool; 3],
    pub(crate) frozen: bool,
}

impl Model {
    pub(crate) fn direct(&mut self, client: u8, carrying: Carrying) -> Fate {
        let is_udp = is_udp(carrying);
        match carrying {
            Carrying::Error => self.known(client, false).map_or(Fate::Here, |entry| self.to(entry.server)),
            Carrying::FirstFragment(id) => {
                self.fragments.insert((client, id, A), self.now_s);
                let fate = self.flow(client, Carrying::Datagram);
                self.in_fragments(fate)
            }
            Carrying::LaterFragment(id) => match self.fragments.get(&(client, id, A)) {
                Some(seen) if self.now_s - seen <= 30 => {
                    let entry = self.known(client, true);
                    self.in_fragments(entry.map_or(Fate::Here, |entry| self.to(entry.server)))
                }
                _ => Fate::Drop(DropReason::Fragment),
            },
            carrying => {
                debug_assert!(is_udp == (carrying == Carrying::Datagram));
                self.flow(client, carrying)
            }
        }
    }

    pub(crate) fn in_fragments(&self, fate: Fate) -> Fate {
        match fate {
            Fate::Server(_) if self.method == "nat" => Fate::Drop(DropReason::Fragment),
            fate => fate,
        }
    }

    pub(crate) fn to(&self, server: usize) -> Fate {
        if server == A { Fate::Here } else { Fate::Server(server) }
    }

    pub(crate) fn known(&mut self, client: u8, is_udp: bool) -> Option<Entry> {
        let now_s = self.now_s;
        self.entries.get(&(client, is_udp)).copied().filter(|entry| entry.until_s > now_s)
    }

    pub(crate) fn flow(&mut self, client: u8, carrying: Carrying) -> Fate {
        let key = (client, is_udp(carrying));
        let opens = matches!(carrying, Carrying::Syn(_) | Carrying::Datagram);
        if let Some(mut entry) = self.known(client, key.1) {
            if step(&mut entry, carrying, self.now_s) {
                let is_gone = entry.server != A && !self.alive[entry.server];
                let is_late = matches!(carrying, Carrying::Syn(generation) if generation == entry.generation)
                    && entry.state != State::HalfOpen;
                if !(opens && is_gone && !is_late) {
                    self.entries.insert(key, entry);
                    let stays = self.is_persistent && !key.1;
                    if entry.server == A && !stays && !matches!(entry.state, State::HalfOpen | State::Udp) {
                        self.entries.remove(&key);
                    }
                    if !matches!(entry.state, State::Reset | State::Closed) {
                        self.renew(key, entry.server);
                    }
                    return self.to(entry.server);
                }
            }
            self.entries.remove(&key);
        }
        if !opens {
            return self.answer(key, carrying);
        }
        let server =
            self.server_of(key).filter(|server| self.alive[*server]).unwrap_or_else(|| self.decide());
        self.give(key, server);
        let (state, generation) = match carrying {
            Carrying::Syn(generation) => (State::HalfOpen, generation),
            _ => (State::Udp, 0),
        };
        let until_s = self.now_s + timeout_s(state);
        self.entries.insert(key, Entry { server, state, generation, until_s });
        self.to(server)
    }

    /// The answer to a connection from the service, as FTP has them, goes where its client is.
    fn answer(&mut self, key: (u8, bool), carrying: Carrying) -> Fate {
        match self.server_of(key) {
            Some(server) if carrying == Carrying::SynAck => {
                let until_s = self.now_s + timeout_s(State::HalfOpen);
                self.entries.insert(
                    key,
                    Entry { server, state: State::HalfOpen, generation: SYN_ACK_NUMBER, until_s },
                );
                self.to(server)
            }
            _ => Fate::Here,
        }
    }

    /// The real server that persistence names for a client of the TCP service.
    fn server_of(&self, (client, is_udp): (u8, bool)) -> Option<usize> {
        let (server, until_s) = self.clients.get(&host_of(client)).filter(|_| !is_udp)?;
        (*until_s > self.now_s).then_some(*server)
    }

    fn give(&mut self, (client, is_udp): (u8, bool), server: usize) {
        if self.is_persistent && !is_udp {
            self.clients.insert(host_of(client), (server, self.now_s + CLIENT_TIMEOUT_S));
        }
    }

    /// A connection that goes on keeps its client where it is, but takes nobody away from another server.
    fn renew(&mut self, key: (u8, bool), server: usize) {
        if self.server_of(key).is_none_or(|known| known == server) {
            self.give(key, server);
        }
    }

    /// Below `maxload` or lightest: here. Otherwise the lightest; loads are never equal.
    pub(crate) fn decide(&self) -> usize {
        let lightest = (0..3).filter(|node| self.alive[*node]).min_by_key(|node| self.loads[*node]).unwrap();
        if self.frozen || self.loads[A] < 700 { A } else { lightest }
    }
}

/// Sequence number of segments that are given none.
const SYN_ACK_NUMBER: u32 = 1;

/// How long the service's clients stay after their last packet.
pub(crate) const CLIENT_TIMEOUT_S: u64 = 360;

/// Several clients are on one host, which is what persistence counts as one.
pub(crate) fn host_of(client: u8) -> u8 {
    client % 2
}

pub(crate) fn is_udp(carrying: Carrying) -> bool {
    matches!(carrying, Carrying::Datagram | Carrying::FirstFragment(_) | Carrying::LaterFragment(_))
}

pub(crate) fn timeout_s(state: State) -> u64 {
    match state {
        State::HalfOpen => 60,
        State::Established => 900,
        State::Fin => 120,
        State::Reset | State::Closed => 10,
        State::Udp => 300,
    }
}

/// What a packet does to an entry; false when it begins another connection.
pub(crate) fn step(entry: &mut Entry, carrying: Carrying, now_s: u64) -> bool {
    use State::{Closed, Established, Fin, HalfOpen, Reset, Udp};
    let next = match (carrying, entry.state) {
        (Carrying::Datagram, _) => Some(Udp),
        (Carrying::Syn(generation), HalfOpen) if generation == entry.generation => Some(HalfOpen),
        (Carrying::Syn(_), Established) => None,
        (Carrying::Syn(generation), _) if generation == entry.generation => None,
        (Carrying::Syn(_), _) => return false,
        (Carrying::Rst, Established) => Some(Reset),
        (Carrying::Rst, Fin) => Some(Closed),
        (Carrying::Ack | Carrying::Fin, Closed) => Some(Closed),
        (Carrying::Fin, _) | (Carrying::Ack, Fin) => Some(Fin),
        (Carrying::Ack, _) => Some(Established),
        _ => None,
    };
    if let Some(state) = next {
        entry.state = state;
        entry.until_s = now_s + timeout_s(state);
    }
    true
}
