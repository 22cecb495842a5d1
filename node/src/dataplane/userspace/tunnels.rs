//! Packets into tunnels to other nodes.

use super::packet_socket::{HEADROOM, Offload};
use dpr_model::{DropReason, Forward};
use dpr_rewrite::fragment::Fragments;
use dpr_rewrite::segment::Segments;
use dpr_rewrite::{ChecksumState, FlowHash, Frame, Packet, Tunnel, parse_ip};

/// Puts the packet of a frame that is one packet into a tunnel, in place; returns where the outer header begins.
pub(super) fn in_place(
    buffer: &mut [u8],
    frame: &Frame,
    forward: &Forward,
    flow: FlowHash,
) -> Result<usize, DropReason> {
    tunnel_of(forward).encapsulate(buffer, HEADROOM + frame.packet.at, forward.hops, flow)
}

/// Cuts a packet that offloads left joined or unfinished, or that is to be fragmented, and puts every piece into a
/// tunnel of its own.
pub(super) fn in_pieces(
    bytes: &[u8],
    packet: &Packet,
    offload: Offload,
    forward: &Forward,
    flow: FlowHash,
) -> Result<Vec<Vec<u8>>, DropReason> {
    let mut wrapper = Wrapper { tunnel: tunnel_of(forward), forward, flow, pieces: Vec::new() };
    if offload.segment_len().is_none() && offload.checksum() == ChecksumState::Complete {
        wrapper.wrap(bytes, packet)?;
        return Ok(wrapper.pieces);
    }
    let segment_len = offload.segment_len().unwrap_or(usize::from(u16::MAX));
    let mut segments = Segments::new(bytes, packet, segment_len)?;
    let mut segment = vec![0; packet.ip.total_len()];
    while let Some(len) = segments.next_into(&mut segment) {
        let segment = &segment[..len?];
        wrapper.wrap(segment, &parse_ip(segment, 0)?.packet)?;
    }
    Ok(wrapper.pieces)
}

struct Wrapper<'a> {
    tunnel: Tunnel,
    forward: &'a Forward,
    flow: FlowHash,
    pieces: Vec<Vec<u8>>,
}

impl Wrapper<'_> {
    /// Wraps `packet` of `bytes`, in fragments if it has to be and does not fit.
    fn wrap(&mut self, bytes: &[u8], packet: &Packet) -> Result<(), DropReason> {
        let overhead = self.tunnel.overhead();
        let Some(mtu) = self.forward.fragment.filter(|mtu| packet.ip.total_len() > usize::from(*mtu)) else {
            let whole = bytes.get(packet.at..packet.end()).ok_or(DropReason::Truncated)?;
            let mut piece = vec![0; overhead];
            piece.extend_from_slice(whole);
            return self.push(piece);
        };
        let mut fragments = Fragments::new(bytes, packet, mtu)?;
        let mut piece = vec![0; overhead + usize::from(mtu)];
        while let Some(len) = fragments.next_into(&mut piece[overhead..]) {
            self.push(piece[..overhead + len?].to_vec())?;
        }
        Ok(())
    }

    /// Takes a packet behind room for its outer headers, and writes those.
    fn push(&mut self, mut piece: Vec<u8>) -> Result<(), DropReason> {
        self.tunnel.encapsulate(&mut piece, self.tunnel.overhead(), self.forward.hops, self.flow)?;
        self.pieces.push(piece);
        Ok(())
    }
}

/// The tunnel through which a packet is forwarded.
pub(super) fn tunnel_of(forward: &Forward) -> Tunnel {
    Tunnel { encapsulation: forward.encapsulation, source: forward.from, destination: forward.to }
}
