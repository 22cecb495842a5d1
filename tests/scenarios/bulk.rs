//! Bulk data through a forwarding director, at the ordinary MTU, with a tunnel header that does not fit.

use dpr_lab::capture::Capture;
use dpr_lab::paired::Transfer;
use dpr_tests::packet::{complete, is_tcp, is_tunnelled};
use dpr_tests::stage::Stage;
use dpr_tests::variant::Variant;
use std::time::Duration;

const BYTES: u64 = 10 * 1024 * 1024;
const MTU: u64 = 1500;
const ETHERNET_HEADER_LEN: u64 = 14;

pub(crate) fn through_a_director(variant: Variant) {
    let mut stage = Stage::paired_in(variant, 2, 1);
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
    assert!(forwarded * segments >= BYTES / MTU, "only {forwarded} packets came through the director");
    let tunnelled = captured.frames.iter().filter(|frame| is_tunnelled(frame));
    let longest = tunnelled.map(|frame| u64::from(frame.length)).max().unwrap_or_default();
    assert!(longest <= ETHERNET_HEADER_LEN + MTU, "a frame of {longest} bytes fits no Ethernet");
}
