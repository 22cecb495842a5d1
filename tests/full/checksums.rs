//! What Wireshark says about the wire while a connection is forwarded.

use crate::tshark::{BAD_CHECKSUM, GOOD_TCP_CHECKSUM, MALFORMED, matching};
use crate::web::Web;
use dpr_host::{Offload, Offloads};
use dpr_lab::capture::{Capture, Frame};
use dpr_lab::{INTERFACE, Machine};
use dpr_tests::noise::Noise;
use dpr_tests::packet::{is_tcp, is_tunnelled};
use std::fs;
use std::path::Path;

const BYTES: usize = 2 * 1024 * 1024;
const MTU: usize = 1500;

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
