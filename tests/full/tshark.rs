//! Wireshark's opinion about captured frames.

use crate::programs;
use dpr_lab::capture::{Captured, Frame};
use std::path::Path;
use std::process::Stdio;

/// IP, TCP or UDP checksums that are wrong, tunnelled or not.
///
/// Not among them is 0xffff for a sum that asks for 0. Receivers cannot tell them apart, and Linux's own senders write it
/// where an interface has no checksum offload (`skb_checksum_help`), though RFC 1624 would have them write 0.
pub(crate) const BAD_CHECKSUM: &str =
    "ip.checksum.status==0 || udp.checksum.status==0 || (tcp.checksum.status==0 && !tcp.checksum.ffff)";
/// TCP checksums that were computed and are right; headers and data were there as a whole.
pub(crate) const GOOD_TCP_CHECKSUM: &str = "tcp.checksum.status==1 || tcp.checksum.ffff";
/// Packets that break their protocol's format.
pub(crate) const MALFORMED: &str = "_ws.malformed || _ws.expert.severity==\"Error\"";

/// The frames that a display filter matches, counted from 0; files go to `directory`.
pub(crate) fn matching(frames: &[Frame], filter: &str, directory: &Path) -> Vec<usize> {
    let file = directory.join("frames.pcap");
    let captured = Captured { frames: frames.to_vec(), lost: 0 };
    captured.write_pcap(&file).unwrap();
    let mut command = programs::command("tshark");
    command.args(["-n", "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]);
    command.args(["-o", "udp.check_checksum:TRUE"]);
    command.args(["-T", "fields", "-e", "frame.number", "-Y", filter, "-r"]).arg(&file);
    // Preferences of whoever runs this change what it finds.
    command.env("HOME", directory).env("XDG_CONFIG_HOME", directory).stdin(Stdio::null());
    let output = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark -Y '{filter}': {}: {complaint}", output.status);
    let numbers = String::from_utf8(output.stdout).unwrap();
    numbers.lines().map(|number| number.parse::<usize>().unwrap() - 1).collect()
}
