//! What Wireshark says about the wire while a connection is forwarded.

use crate::tshark::{BAD_CHECKSUM, GOOD_TCP_CHECKSUM, MALFORMED, matching};
use crate::web::Web;
use dpr_host::{Offload, Offloads};
use dpr_lab::capture::{Capture, Frame};
use dpr_lab::paired::CrowdPlan;
use dpr_lab::{INTERFACE, Machine};
use dpr_tests::noise::Noise;
use dpr_tests::packet::{Packet, is_tcp, is_tunnelled};
use dpr_tests::stage::{Stage, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use std::fs;
use std::path::Path;

const BYTES: usize = 2 * 1024 * 1024;
const MTU: usize = 1500;
const CONNECTIONS: u16 = 5;
/// Bytes each way in one exchange.
const EXCHANGE: u32 = 20_000;
const ETHERNET_LEN: usize = 14;
const UDP_AND_GUE_LEN: usize = 16;

pub(crate) fn on_the_wire() {
    let web = Web::start(2);
    web.set_loads(&[900, 100]);
    let content = Noise(0xc5).bytes(BYTES);
    fs::write(web.nginxes[1].file("/large"), &content).unwrap();
    let directory = web.lab.directory();
    fs::write(directory.join("large"), content).unwrap();

    // The client leaves checksums and segmentation to an interface that does neither. The director has to do both, as
    // no interface would within a tunnel.
    let from_the_director = sent_in_a_transfer(&web, &[web.nodes[0].machine()], is_tunnelled);
    assert_faultless(&from_the_director, BYTES / MTU, directory);

    // Now the senders do their own work, so that every frame is as it would be on a cable.
    let machines = [&web.clients[0], web.nodes[0].machine(), web.nodes[1].machine()];
    machines.into_iter().for_each(without_offloads);
    let everything = sent_in_a_transfer(&web, &machines, is_tcp);
    assert_faultless(&everything, 3 * BYTES / MTU, directory);
    assert_faults_are_found(&everything, directory);
}

/// Every method in every IP version: what client and nodes put on the wire in small and large exchanges.
pub(crate) fn of_every_method(variant: Variant) {
    let stage = Stage::paired_in(variant, 2, 1);
    stage.set_loads(&[900, 100]);
    let machines = [&stage.clients[0], stage.nodes[0].machine(), stage.nodes[1].machine()];
    machines.into_iter().for_each(without_offloads);
    let wanted = |frame: &Frame| frame.outgoing && is_tcp(frame);
    let captures = machines.map(|machine| Capture::start(machine, wanted).unwrap());

    let plan = crowd_plan(vec![stage.nodes[0].service()], CONNECTIONS);
    let records = stage.open_crowd(0, CrowdPlan { up: EXCHANGE, down: EXCHANGE, ..plan }).finish();
    assert_none_broke(&records);
    assert_eq!(served_by(&records, "n2"), usize::from(CONNECTIONS));

    let captured = captures.map(|capture| capture.finish().unwrap());
    assert!(captured.iter().all(|captured| captured.lost == 0), "incomplete captures prove nothing");
    let frames: Vec<Frame> = captured.into_iter().flat_map(|captured| captured.frames).collect();
    assert_eq!(frames.iter().any(is_tunnelled), variant.tunnels());
    let directory = stage.lab.directory();
    assert_eq!(matching(&frames, BAD_CHECKSUM, directory), [0_usize; 0], "frames with wrong checksums");
    // tshark does not look into GUE.
    let within: Vec<Frame> = frames.iter().map(without_gue).collect();
    assert!(
        within.len() >= usize::from(CONNECTIONS) * EXCHANGE as usize / MTU,
        "only {} frames",
        within.len()
    );
    assert_eq!(matching(&within, BAD_CHECKSUM, directory), [0_usize; 0], "wrong checksums within");
    let good = matching(&within, GOOD_TCP_CHECKSUM, directory).len();
    assert_eq!(good, within.len(), "frames whose TCP checksum is right");
}

/// The frame as it was before it was put into a GUE tunnel, if it is in one.
fn without_gue(frame: &Frame) -> Frame {
    let tunnels = Packet::of(frame).map(|packet| packet.tunnels).unwrap_or_default();
    let Some(outer) = tunnels.first().filter(|outer| outer.is_gue) else { return frame.clone() };
    let header_len = if outer.to.is_ipv4() { 20 } else { 40 } + UDP_AND_GUE_LEN;
    let packet = &frame.bytes[ETHERNET_LEN + header_len..];
    let ethertype = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    let bytes = [&frame.bytes[..ETHERNET_LEN - ethertype.len()], &ethertype, packet].concat();
    Frame { length: bytes.len() as u32, bytes, ..frame.clone() }
}

/// What `filter` wants of the frames that `machines` send for an upload to n2 through n1 and a download from there.
///
/// Each frame is taken where it enters the switch: a bridge may drop those that are wrong before they reach anybody.
fn sent_in_a_transfer(web: &Web, machines: &[&Machine], filter: fn(&Frame) -> bool) -> Vec<Frame> {
    let wanted = move |frame: &Frame| frame.outgoing && filter(frame);
    let captures: Vec<Capture> =
        machines.iter().map(|machine| Capture::start(machine, wanted).unwrap()).collect();
    let source = web.lab.directory().join("large");
    let upload = web.curl(&["--upload-file", source.to_str().unwrap(), &web.url("/uploads/large")]);
    let download = web.curl(&[&web.url("/large")]);
    assert_eq!(upload.transfer().exit_code, 0, "{upload:?}");
    assert_eq!((download.transfer().exit_code, download.output.len()), (0, BYTES));
    let mut frames = Vec::new();
    for capture in captures {
        let captured = capture.finish().unwrap();
        assert_eq!(captured.lost, 0, "the capture is incomplete and proves nothing");
        frames.extend(captured.frames);
    }
    frames
}

/// All of at least `expected` frames are right, and none for the reason that tshark could not judge it.
fn assert_faultless(frames: &[Frame], expected: usize, directory: &Path) {
    assert!(frames.len() >= expected, "only {} frames", frames.len());
    let none: [usize; 0] = [];
    assert_eq!(matching(frames, BAD_CHECKSUM, directory), none, "frames with wrong checksums");
    assert_eq!(matching(frames, MALFORMED, directory), none, "malformed frames");
    let good = matching(frames, GOOD_TCP_CHECKSUM, directory).len();
    assert_eq!(good, frames.len(), "frames whose TCP checksum is right");
}

/// What was just found faultless would not have been, had it been damaged.
fn assert_faults_are_found(frames: &[Frame], directory: &Path) {
    let tunnelled = frames.iter().position(|frame| is_tunnelled(frame) && frame.bytes.len() > 1000).unwrap();
    let reply = frames.iter().rposition(|frame| !is_tunnelled(frame) && frame.bytes.len() > 1000).unwrap();
    let mut damaged = frames.to_vec();
    *damaged[tunnelled].bytes.last_mut().unwrap() ^= 1;
    damaged[reply].bytes[TTL_AT] ^= 1;
    let mut expected = [tunnelled, reply];
    expected.sort_unstable();
    assert_eq!(matching(&damaged, BAD_CHECKSUM, directory), expected);

    let mut shortened = frames.to_vec();
    // A TCP header of four bytes.
    shortened[reply].bytes[TCP_HEADER_LEN_AT] = 0x10;
    assert_eq!(matching(&shortened, MALFORMED, directory), [reply]);
}

/// Offsets in an untunnelled frame.
const TTL_AT: usize = 14 + 8;
const TCP_HEADER_LEN_AT: usize = 14 + 20 + 12;

fn without_offloads(machine: &Machine) {
    let set = || {
        for offload in [Offload::Tso, Offload::Gso, Offload::TxChecksum] {
            Offloads::set(INTERFACE, offload, false).unwrap();
        }
    };
    machine.exec(set).unwrap();
}
