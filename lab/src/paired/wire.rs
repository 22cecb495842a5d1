//! What paired server and client say to each other before the pattern begins.

use crate::breakage::Breakage;
use crate::pattern::mix;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// First words of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Name of the node that the server runs on.
    pub node: String,
    /// The client as the server sees it.
    pub peer: SocketAddr,
    /// The server's own end of the connection; a delivery address if `dpr` delivered it.
    pub local: SocketAddr,
}

/// How the two directions relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The server answers `up` bytes with `down` bytes, again and again, until the client closes.
    Rounds,
    /// Both directions at once, one time; a final byte says that the server found all of `up` correct.
    Duplex,
}

/// First words of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) mode: Mode,
    pub(crate) seed: u64,
    /// Bytes from client to server, per round.
    pub(crate) up: u64,
    /// Bytes from server to client, per round.
    pub(crate) down: u64,
}

/// The byte that ends a duplex transfer.
pub(crate) const ALL_CORRECT: u8 = b'.';

const MAGIC: [u8; 4] = *b"DPRP";
const HEADER_LEN: usize = 29;
const GREETING_LEN_MAX: u16 = 1024;

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = match self.mode {
            Mode::Rounds => 1,
            Mode::Duplex => 2,
        };
        bytes[5..13].copy_from_slice(&self.seed.to_be_bytes());
        bytes[13..21].copy_from_slice(&self.up.to_be_bytes());
        bytes[21..29].copy_from_slice(&self.down.to_be_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Result<Self, Breakage> {
        let [m0, m1, m2, m3, mode, numbers @ ..] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(Breakage::WrongContent(format!("header begins with {:02x?}", &bytes[..4])));
        }
        let mode = match mode {
            1 => Mode::Rounds,
            2 => Mode::Duplex,
            other => return Err(Breakage::WrongContent(format!("mode {other}"))),
        };
        let number = |from: usize| numbers[from..from + 8].iter().fold(0, |n, &b| (n << 8) | u64::from(b));
        Ok(Self { mode, seed: number(0), up: number(8), down: number(16) })
    }

    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self, Breakage> {
        let mut bytes = [0; HEADER_LEN];
        stream.read_exact(&mut bytes).await?;
        Self::from_bytes(&bytes)
    }
}

impl Greeting {
    pub(crate) async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> Result<(), Breakage> {
        let text = serde_json::to_vec(self).map_err(|error| Breakage::Other(error.to_string()))?;
        let length = u16::try_from(text.len()).map_err(|error| Breakage::Other(error.to_string()))?;
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&text);
        Ok(stream.write_all(&bytes).await?)
    }

    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self, Breakage> {
        let length = stream.read_u16().await?;
        if length > GREETING_LEN_MAX {
            return Err(Breakage::WrongContent(format!("a greeting of {length} bytes")));
        }
        let mut text = vec![0; usize::from(length)];
        stream.read_exact(&mut text).await?;
        serde_json::from_slice(&text).map_err(|error| Breakage::WrongContent(error.to_string()))
    }
}

/// Seed of the downward pattern: the connection's, coloured by the node that answers.
pub(crate) fn down_seed(seed: u64, node: &str) -> u64 {
    node.bytes().fold(seed, |seed, byte| mix(seed ^ u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_from_its_bytes() {
        let header = Header { mode: Mode::Duplex, seed: u64::MAX - 3, up: 10 << 20, down: 1 };
        assert_eq!(Header::from_bytes(&header.to_bytes()), Ok(header));
    }

    #[test]
    fn a_header_with_another_magic_or_mode_is_refused() {
        let good = Header { mode: Mode::Rounds, seed: 1, up: 2, down: 3 }.to_bytes();
        for position in [0, 4] {
            let mut bad = good;
            bad[position] = 0xff;
            assert!(matches!(Header::from_bytes(&bad), Err(Breakage::WrongContent(_))));
        }
    }

    #[test]
    fn two_nodes_answer_with_different_patterns() {
        assert_ne!(down_seed(1, "n1"), down_seed(1, "n2"));
    }
}
