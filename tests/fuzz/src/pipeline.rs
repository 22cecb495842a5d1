//! The pipeline and its naive model, through whatever the bytes make happen.

use crate::input::Input;
use dpr_vectors::reference::{Carrying, METHODS, Operation, Run};

/// Nodes B and C: peers of A.
const PEERS: u8 = 2;
const CLIENTS: u8 = 6;

/// Does what the bytes say, and compares the director with the model after each packet.
///
/// Bytes: method, IP version and whether clients stay with their real server (1); then operations of 4 bytes each.
///
/// # Panics
/// When the director and the model disagree.
pub fn pipeline(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let setting = input.u8();
    let mut run = Run::begin(METHODS[usize::from(setting >> 1 & 3)], setting & 1 == 1, setting & 8 != 0);
    let mut position = 0;
    while !input.is_empty() {
        let operation = operation(&mut input);
        if let Err(error) = run.perform(&operation) {
            panic!("operation {position}, {operation:?}: {error}");
        }
        position += 1;
    }
}

fn operation(input: &mut Input<'_>) -> Operation {
    let (kind, what, number) = (input.u8(), input.u8(), input.u16());
    let client = what % CLIENTS;
    let carrying = carrying(number);
    let peer = usize::from(what >> 4 & 1) + 1;
    match kind & 15 {
        0..=7 => Operation::Direct { client, carrying },
        8 | 9 => Operation::Tunnelled { from: peer, hops: kind >> 4 & 1, client, carrying },
        10 => Operation::Astray { home: peer, client, carrying },
        11 => Operation::Load { node: usize::from(what % (PEERS + 1)), load: number % 1000 },
        12 => Operation::Alive { node: peer, alive: number & 1 == 0 },
        13 => Operation::Freeze(number & 1 == 1),
        _ => Operation::Wait { seconds: number % 400 },
    }
}

fn carrying(number: u16) -> Carrying {
    let [which, kind] = number.to_be_bytes();
    match kind % 9 {
        0 => Carrying::Syn(u32::from(which % 3)),
        1 => Carrying::SynAck,
        2 => Carrying::Ack,
        3 => Carrying::Fin,
        4 => Carrying::Rst,
        5 => Carrying::Datagram,
        6 => Carrying::Error,
        7 => Carrying::FirstFragment(which % 3),
        _ => Carrying::LaterFragment(which % 3),
    }
}
