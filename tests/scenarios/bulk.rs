//! Bulk data through a forwarding director, at the ordinary MTU, with a tunnel header that does not fit.

use dpr_lab::capture::Capture;
use dpr_lab::paired::Transfer;
use dpr_tests::packet::{complete, is_tunnelled};
use dpr_tests::stage::Stage;
use std::time::Duration;

const BYTES: u64 = 10 * 1024 * 1024;
const MTU: u64 = 1500;
const ETHERNET_HEADER_LEN: u64 = 14;

pub(crate) fn through_a_director() {
    let mut stage = Stage::paired(2, 1);
    stage.set_loads(&[900, 100]);
    let transfer = Transfer {
        target: stage.nodes[0].service(),
        up: BYTES,
        down: BYTES,
        seed: 0x5eed,
        source_port: None,
        timeout: Duration::from_secs(60),
    };

    let capture = Capture::start(stage.nodes[1].machine(), is_tunnelled).unwrap();

    let record = transfer.run(&stage.clients[0]).unwrap().unwrap();

    assert_eq!(record.greeting.node, "n2");
    let server = stage.nodes[1].paired().unwrap().record();
    assert!(server.breakages.is_empty(), "{:?}", server.breakages);
    let captured = capture.finish().unwrap();
    let tunnelled = complete(&captured).len() as u64;
    assert!(tunnelled >= BYTES / MTU, "only {tunnelled} packets came through the director");
    let longest = captured.frames.iter().map(|frame| u64::from(frame.length)).max().unwrap();
    assert!(longest <= ETHERNET_HEADER_LEN + MTU, "a frame of {longest} bytes fits no Ethernet");
}
