//! Bulk data through a forwarding director, at MTUs for which a tunnel header does not fit, and at one for which it does.

use dpr_lab::NodePlan;
use dpr_lab::capture::Capture;
use dpr_lab::paired::Transfer;
use dpr_tests::packet::{complete, is_tcp, is_tunnelled};
use dpr_tests::stage::{PAIRED_PORT, Stage};
use dpr_tests::variant::Variant;
use std::time::Duration;

const BYTES: u64 = 10 * 1024 * 1024;
const MTU: u32 = 1500;
const ETHERNET_HEADER_LEN: u64 = 14;

pub(crate) fn through_a_director(variant: Variant) {
    between_nodes_of(MTU, variant);
}

/// Tunnels fit whatever clients send.
pub(crate) fn with_large_frames_between_nodes(variant: Variant) {
    between_nodes_of(9000, variant);
}

/// The least that IPv6 knows (RFC 8200, section 5): no answer can make a client send packets that fit into a tunnel, and
/// only the lowered MSS helps.
pub(crate) fn at_the_least_mtu_of_ipv6(variant: Variant) {
    between_nodes_of(1280, variant);
}

fn between_nodes_of(mtu: u32, variant: Variant) {
    let plan = NodePlan { mtu, ..variant.plan(NodePlan::paired(PAIRED_PORT)) };
    let mut stage = Stage::start(2, 1, plan);
    stage.set_loads(&[900, 100]);
    let transfer = Transfer {
        target: stage.nodes[0].service(),
        up: BYTES,
        down: BYTES,
        seed: 0x5eed,
        source_port: None,
        timeout: Duration::from_secs(60),
    };

    let capture = Capture::start(stage.nodes[1].machine(), is_tcp).unwrap();

    let record = transfer.run(&stage.clients[0]).unwrap().unwrap();

    assert_eq!(record.greeting.node, "n2");
    let server = stage.nodes[1].paired().unwrap().record();
    assert!(server.breakages.is_empty(), "{:?}", server.breakages);
    let captured = capture.finish().unwrap();
    let director = stage.nodes[0].machine().mac().0;
    let forwarded = complete(&captured).iter().filter(|packet| packet.macs.0 == director).count() as u64;
    // Without a tunnel, joined segments stay together on a wire that takes them.
    let segments = if variant.tunnels() { 1 } else { 64 };
    assert!(
        forwarded * segments >= BYTES / u64::from(MTU),
        "only {forwarded} packets came through the director"
    );
    let tunnelled = captured.frames.iter().filter(|frame| is_tunnelled(frame));
    let longest = tunnelled.map(|frame| u64::from(frame.length)).max().unwrap_or_default();
    assert!(longest <= ETHERNET_HEADER_LEN + u64::from(mtu), "a frame of {longest} bytes fits no Ethernet");
}
