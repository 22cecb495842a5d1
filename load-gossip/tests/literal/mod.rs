//! Datagrams as text, and the key that those of the tests are signed with.

use dpr_load_gossip::{Key, Keyring};

pub(crate) fn hex(lines: &[&str]) -> Vec<u8> {
    let digits: String = lines.concat().split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

pub(crate) fn keyring() -> Keyring {
    let secret: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).expect("less than 32"));
    Keyring::new(Key::new(&secret), None)
}
