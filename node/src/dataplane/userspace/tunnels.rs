//! Packets into tunnels to other nodes.

use super::packet_socket::HEADROOM;
use dpr_model::{DropReason, Forward};
use dpr_rewrite::segment::Segments;
use dpr_rewrite::{FlowHash, Frame, Packet, Tunnel, edit};

/// Puts the packet of a frame that is one segment into a tunnel, in place; returns where the outer header begins.
pub(crate) fn in_place(buffer: &mut [u8], frame: &Frame, forward: &Forward) -> Result<usize, DropReason> {
    let bytes = buffer.get_mut(HEADROOM..).ok_or(DropReason::Truncated)?;
    edit::decrement_hop_limit(bytes, &frame.packet)?;
    let flow = flow_hash(&frame.packet);
    tunnel_of(forward).encapsulate(buffer, HEADROOM + frame.packet.at, forward.hops, flow)
}

/// Cuts a large or unfinished packet and puts every piece into a tunnel of its own.
pub(crate) fn in_pieces(
    bytes: &mut [u8],
    packet: &Packet,
    segment_len: usize,
    forward: &Forward,
) -> Result<Vec<Vec<u8>>, DropReason> {
    edit::decrement_hop_limit(bytes, packet)?;
    let mut pieces = Vec::new();
    let mut segments = Segments::new(bytes, packet, segment_len)?;
    let tunnel = tunnel_of(forward);
    let overhead = tunnel.overhead();
    let mut piece = vec![0; overhead + packet.ip.total_len()];
    while let Some(len) = segments.next_into(&mut piece[overhead..]) {
        let len = len?;
        tunnel.encapsulate(&mut piece, overhead, forward.hops, flow_hash(packet))?;
        pieces.push(piece[..overhead + len].to_vec());
    }
    Ok(pieces)
}

fn tunnel_of(forward: &Forward) -> Tunnel {
    Tunnel { encapsulation: forward.encapsulation, source: forward.from, destination: forward.to }
}

/// An outer IPv4 header of IP in IP has no place for a hash, so its seed is of no use to anybody.
fn flow_hash(packet: &Packet) -> FlowHash {
    FlowHash::of(packet, 0)
}
