//! What nodes tell each other at an operator's word, as cargo of load gossip; `docs/wire-format.md` has the bytes.
//!
//! Gossip says who sent a message, and does not refuse a repetition: [`super::ledger`] does.

use dpr_model::{Incarnation, NodeId, NodeState};
use dpr_wire::{Fields, push_address, read_address};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Addresses in one order at most.
pub(crate) const ADDRESSES_MAX: usize = 32;
/// Longest explanation of a refusal, bytes; what is longer is cut.
const REASON_MAX: usize = 400;

/// Kinds of messages: other than those of agreement (below) and of copies of connections (above).
const ORDER: u8 = 8;
const ANSWER: u8 = 9;

/// Outcomes.
const REFUSED: u8 = 0;
const DONE: u8 = 1;
const DONE_CURRENT: u8 = 2;

/// Orders.
const REPORT: u8 = 0;
const DRAIN: u8 = 1;
const UNDRAIN: u8 = 2;
const FORGET: u8 = 3;
const TAKE_OVER: u8 = 4;
const GIVE_BACK: u8 = 5;

/// What an operator wants of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// Say how far it is; nothing else.
    Report,
    /// Take no new connections.
    Drain,
    /// Take them again.
    Undrain,
    /// This silent node is gone for good.
    Forget(NodeId),
    /// Have a node own all slots of service addresses; only the coordinator can.
    TakeOver {
        /// Which, at most [`ADDRESSES_MAX`].
        addresses: Vec<IpAddr>,
        /// Who, or nobody in particular: what has a home goes back there, what is shared to all.
        to: Option<NodeId>,
    },
}

/// How far a node is from being unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Whether it takes new connections.
    pub(crate) state: NodeState,
    /// Connections that it serves or forwards.
    pub(crate) open_connections: u64,
    /// They were counted after peers had heard of this state.
    pub(crate) is_current: bool,
}

/// A message about an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// An order, to one life of a node.
    Order {
        /// The life of the receiver that it is for.
        to: Incarnation,
        /// Grows with every order of the sender's life.
        number: u64,
        /// What to do.
        order: Order,
    },
    /// What became of an order.
    Answer {
        /// The life of the node that gave the order.
        to: Incarnation,
        /// The order's number.
        number: u64,
        /// How things are now, or why it was refused.
        outcome: Result<Progress, String>,
    },
}

/// True for the first byte of a message about an order.
pub(crate) fn is_about_orders(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(&(ORDER | ANSWER)))
}

impl Message {
    /// The message as cargo.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (kind, to, number) = match self {
            Self::Order { to, number, .. } => (ORDER, to, number),
            Self::Answer { to, number, .. } => (ANSWER, to, number),
        };
        let mut bytes = vec![kind];
        bytes.extend(to.0.to_be_bytes());
        bytes.extend(number.to_be_bytes());
        match self {
            Self::Order { order, .. } => push_order(&mut bytes, order),
            Self::Answer { outcome, .. } => push_outcome(&mut bytes, outcome),
        }
        bytes
    }

    /// Reads a message; `None` if it makes no sense, or is of a later version of `dpr`.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let kind = fields.u8()?;
        let (to, number) = (Incarnation(fields.u64()?), fields.u64()?);
        match kind {
            ORDER => Some(Self::Order { to, number, order: read_order(&mut fields)? }),
            ANSWER => Some(Self::Answer { to, number, outcome: read_outcome(&mut fields)? }),
            _ => None,
        }
    }
}

fn push_order(bytes: &mut Vec<u8>, order: &Order) {
    match order {
        Order::Report => bytes.push(REPORT),
        Order::Drain => bytes.push(DRAIN),
        Order::Undrain => bytes.push(UNDRAIN),
        Order::Forget(node) => {
            bytes.push(FORGET);
            bytes.extend(node.0.to_be_bytes());
        }
        Order::TakeOver { addresses, to } => {
            bytes.push(if to.is_some() { TAKE_OVER } else { GIVE_BACK });
            bytes.extend(to.iter().flat_map(|to| to.0.to_be_bytes()));
            addresses.iter().take(ADDRESSES_MAX).for_each(|address| push_address(bytes, *address));
        }
    }
}

fn read_order(fields: &mut Fields<'_>) -> Option<Order> {
    match fields.u8()? {
        REPORT => Some(Order::Report),
        DRAIN => Some(Order::Drain),
        UNDRAIN => Some(Order::Undrain),
        FORGET => Some(Order::Forget(NodeId(fields.u32()?))),
        TAKE_OVER => {
            let to = Some(NodeId(fields.u32()?));
            Some(Order::TakeOver { to, addresses: read_addresses(fields)? })
        }
        GIVE_BACK => Some(Order::TakeOver { to: None, addresses: read_addresses(fields)? }),
        _ => None,
    }
}

fn read_addresses(fields: &mut Fields<'_>) -> Option<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    while !fields.rest().is_empty() {
        addresses.push(read_address(fields)?);
    }
    (addresses.len() <= ADDRESSES_MAX).then_some(addresses)
}

fn push_outcome(bytes: &mut Vec<u8>, outcome: &Result<Progress, String>) {
    match outcome {
        Ok(Progress { state, open_connections, is_current }) => {
            bytes.push(if *is_current { DONE_CURRENT } else { DONE });
            bytes.push(code_of(*state));
            bytes.extend(open_connections.to_be_bytes());
        }
        Err(reason) => {
            bytes.push(REFUSED);
            let whole = reason.char_indices().map(|(at, character)| at + character.len_utf8());
            let end = whole.take_while(|end| *end <= REASON_MAX).last().unwrap_or(0);
            bytes.extend(&reason.as_bytes()[..end]);
        }
    }
}

fn read_outcome(fields: &mut Fields<'_>) -> Option<Result<Progress, String>> {
    let code = fields.u8()?;
    if code != REFUSED {
        let (is_current, state) = (code == DONE_CURRENT, state_of(fields.u8()?)?);
        return Some(Ok(Progress { state, open_connections: fields.u64()?, is_current }));
    }
    let reason = fields.rest();
    let reason = String::from_utf8_lossy(&reason[..reason.len().min(REASON_MAX)]);
    // It is shown on a terminal.
    Some(Err(reason.chars().filter(|character| !character.is_control()).collect()))
}

fn code_of(state: NodeState) -> u8 {
    match state {
        NodeState::Joining => 0,
        NodeState::Active => 1,
        NodeState::Draining => 2,
        NodeState::Leaving => 3,
    }
}

fn state_of(code: u8) -> Option<NodeState> {
    let states = [NodeState::Joining, NodeState::Active, NodeState::Draining, NodeState::Leaving];
    states.into_iter().find(|state| code_of(*state) == code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn messages() -> Vec<Message> {
        let to = Incarnation(7);
        let addresses = vec![[192, 0, 2, 99].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 9].into()];
        let orders = [
            Order::Report,
            Order::Drain,
            Order::Undrain,
            Order::Forget(NodeId(3)),
            Order::TakeOver { addresses: addresses.clone(), to: Some(NodeId(3)) },
            Order::TakeOver { addresses, to: None },
        ];
        let progress = |is_current| Progress { state: NodeState::Draining, open_connections: 12, is_current };
        let outcomes = [Ok(progress(false)), Ok(progress(true)), Err("it is about to end".to_owned())];
        let orders = orders.into_iter().map(|order| Message::Order { to, number: 1, order });
        orders.chain(outcomes.into_iter().map(|outcome| Message::Answer { to, number: 2, outcome })).collect()
    }

    #[test]
    fn messages_come_back_as_they_were() {
        for message in messages() {
            let bytes = message.to_bytes();

            assert!(is_about_orders(&bytes));
            assert_eq!(Message::from_bytes(&bytes), Some(message));
        }
    }

    #[test]
    fn a_reason_is_cut_and_has_nothing_that_a_terminal_obeys() {
        let reason = format!("\u{1b}[2J{}", "ä".repeat(300));
        let bytes =
            Message::Answer { to: Incarnation(1), number: 1, outcome: Err(reason.clone()) }.to_bytes();

        let Some(Message::Answer { outcome: Err(read), .. }) = Message::from_bytes(&bytes) else {
            panic!("{bytes:?}")
        };

        assert_eq!(read, format!("[2J{}", "ä".repeat(198)));
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>, kind in 8..10_u8, cut in 0..40_usize) {
            let _ = Message::from_bytes(&[[kind].as_slice(), &bytes].concat());
            for message in messages() {
                let bytes = message.to_bytes();
                let _ = Message::from_bytes(&bytes[..cut.min(bytes.len())]);
            }
        }
    }
}
