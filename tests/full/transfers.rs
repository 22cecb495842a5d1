//! Large downloads and uploads through a forwarding director, at the ordinary MTU.

use crate::web::Web;
use dpr_lab::capture::{Capture, Captured};

use dpr_tests::noise::Noise;
use dpr_tests::packet::{complete, is_tunnelled};
use std::fs;

const BYTES: usize = 10 * 1024 * 1024;
const MTU: usize = 1500;
const ETHERNET_HEADER_LEN: usize = 14;

pub(crate) fn both_ways() {
    let web = Web::start(2);
    web.set_loads(&[900, 100]);
    let content = Noise(0x10_0000).bytes(BYTES);
    fs::write(web.nginxes[1].file("/large"), &content).unwrap();
    let source = web.lab.directory().join("upload");
    fs::write(&source, &content).unwrap();
    let capture = Capture::start(web.nodes[1].machine(), is_tunnelled).unwrap();

    let download = web.curl(&[&web.url("/large")]);
    let upload = web.curl(&["--upload-file", source.to_str().unwrap(), &web.url("/uploads/large")]);

    assert_eq!((download.transfer().exit_code, download.transfer().status), (0, 200), "{download:?}");
    assert!(download.output == content, "{} bytes came, and not those that were sent", download.output.len());
    assert_eq!((upload.transfer().exit_code, upload.transfer().status), (0, 201), "{upload:?}");
    let uploaded = fs::read(web.nginxes[1].file("/uploads/large")).unwrap();
    assert!(uploaded == content, "{} bytes arrived, and not those that were sent", uploaded.len());
    assert!(!web.nginxes[0].file("/uploads/large").exists(), "the director itself has nothing of it");
    assert_fits_the_wire(&capture.finish().unwrap());
}

/// Every packet of the upload came through the director, in frames that an Ethernet can carry.
fn assert_fits_the_wire(captured: &Captured) {
    let tunnelled = complete(captured).len();
    assert!(tunnelled >= BYTES / MTU, "only {tunnelled} packets came through the director");
    let longest = captured.frames.iter().map(|frame| frame.length as usize).max().unwrap();
    assert!(longest <= ETHERNET_HEADER_LEN + MTU, "a frame of {longest} bytes fits no Ethernet");
}
