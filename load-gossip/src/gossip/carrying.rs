//! Messages of others, on their way out and in.

use crate::cargo::{Cargo, CargoError};
use crate::config::Config;
use crate::error::DatagramError;
use crate::gossip::sending::unicast_destinations;
use crate::gossip::{Action, Destination, Gossip};
use crate::message::{self, Header, Via};
use dpr_model::{NodeId, Timestamp};
use std::net::SocketAddr;
use std::sync::Arc;

impl Gossip {
    /// Sends a message of others, once, to one peer or to all. It may get lost, or come twice.
    ///
    /// # Errors
    ///
    /// [`CargoError`] if it is too long, or nobody knows where the peer is.
    pub fn carry(&mut self, to: Option<NodeId>, cargo: &[u8], now: Timestamp) -> Result<(), CargoError> {
        if let Some(to) = to {
            let (peer, bytes) = self.pack(to, cargo)?;
            self.cargo_out.push(Action::Send { to: Destination::Peer(peer), bytes });
            return Ok(());
        }
        check_length(cargo)?;
        let peers = unicast_destinations(&self.config, &self.table, self.sequence, now);
        self.carried += 1;
        if self.config.multicast {
            let bytes = self.encode(Via::Multicast, cargo);
            self.cargo_out.push(Action::Send { to: Destination::Groups, bytes });
        }
        if !peers.is_empty() {
            let bytes = self.encode(Via::Unicast, cargo);
            for peer in peers {
                self.cargo_out.push(Action::Send { to: Destination::Peer(peer), bytes: Arc::clone(&bytes) });
            }
        }
        Ok(())
    }

    /// The datagram in which a message of others goes to one peer, and where to: for a shell that has another way to send
    /// it than by [`Self::poll_action`].
    ///
    /// # Errors
    ///
    /// As those of [`Self::carry`].
    pub fn pack(&mut self, to: NodeId, cargo: &[u8]) -> Result<(SocketAddr, Arc<[u8]>), CargoError> {
        check_length(cargo)?;
        let peer = self.table.get(to).ok_or(CargoError::UnknownPeer(to))?.from;
        self.carried += 1;
        Ok((peer, self.encode(Via::Unicast, cargo)))
    }

    fn encode(&self, via: Via, cargo: &[u8]) -> Arc<[u8]> {
        let Config { node: sender, incarnation, keyring, .. } = &self.config;
        let header = Header { via, sender: *sender, incarnation: *incarnation, sequence: self.carried };
        message::encode_cargo(&header, cargo, keyring).into()
    }

    /// The next message that came for others. To be called until it returns `None`.
    pub fn poll_cargo(&mut self) -> Option<Cargo> {
        self.cargo_in.pop()
    }

    /// A message for others: not of this node itself, and of no life that is known to be over.
    pub(super) fn take_cargo(&mut self, header: &Header, cargo: &[u8]) -> Result<(), DatagramError> {
        let Header { sender: from, incarnation, .. } = *header;
        if from == self.config.node {
            return Ok(());
        }
        if let Some(known) = self.table.get(from).map(|peer| peer.report.incarnation)
            && incarnation < known
        {
            return Err(DatagramError::StaleIncarnation { incarnation, known });
        }
        self.cargo_in.push(Cargo { from, incarnation, bytes: cargo.to_vec() });
        Ok(())
    }
}

fn check_length(cargo: &[u8]) -> Result<(), CargoError> {
    if cargo.len() > message::CARGO_BYTES_MAX { Err(CargoError::TooLong(cargo.len())) } else { Ok(()) }
}
