//! Strict reverse path filters (RFC 3704) on every node, as many distributions set them.

use crate::nginx::NAME;
use crate::web::Web;
use dpr_host::{Ipv4Setting, Sysctl, foreign_source};
use dpr_lab::capture::{Capture, Frame};
use dpr_lab::forge::{FrameSender, ethernet_ipv4, ipv4};
use dpr_lab::{INTERFACE, Machine, wait_until};
use dpr_tests::noise::Noise;
use dpr_tests::packet::{Packet, complete};
use dpr_tests::stage::PATIENCE;
use std::fs;
use std::net::Ipv4Addr;

/// `default` is what `dpr`'s own device begins with.
const WHERE: [&str; 3] = ["all", "default", INTERFACE];
const REQUESTS: usize = 40;
const BYTES: usize = 1024 * 1024;
/// An address that no node has a route to (RFC 5737).
const UNREACHABLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PROTOCOL_UDP: u8 = 17;

pub(crate) fn everywhere() {
    let web = Web::start_on_prepared(2, |machine| set_strict(machine).unwrap());
    let content = Noise(0xf1).bytes(BYTES);
    let source = web.lab.directory().join("upload");
    fs::write(&source, &content).unwrap();
    for node in &web.nodes {
        assert_filters(&web, node.machine());
    }
    // Peers' probes from an address of nobody have been heard when the filter drops them.
    let probes: Vec<Capture> =
        web.nodes.iter().map(|node| Capture::start(node.machine(), is_probe).unwrap()).collect();
    let filtered: Vec<u64> = web.nodes.iter().map(|node| filtered_at(node.machine())).collect();

    // Both at home and forwarded.
    for (loads, server) in [([100, 100], "n1"), ([900, 100], "n2")] {
        web.set_loads(&loads);
        for _ in 0..REQUESTS {
            let fetched = web.curl(&[&web.url(NAME)]);
            assert_eq!((fetched.transfer().exit_code, fetched.text()), (0, server));
        }
    }
    let upload = web.curl(&["--upload-file", source.to_str().unwrap(), &web.url("/uploads/file")]);
    assert_eq!((upload.transfer().exit_code, upload.transfer().status), (0, 201), "{upload:?}");
    assert!(fs::read(web.nginxes[1].file("/uploads/file")).unwrap() == content);

    for ((node, before), probes) in web.nodes.iter().zip(filtered).zip(probes) {
        let dropped = filtered_at(node.machine()) - before;
        let probes = complete(&probes.finish().unwrap()).len() as u64;
        assert!(dropped <= probes, "{} dropped {dropped} packets, of which {probes} probes", node.name());
        for interface in WHERE {
            assert_eq!(node.machine().exec(|| setting(interface).read().unwrap()).unwrap(), "1");
        }
    }
}

/// What a node sends to find out whether the network drops foreign sources (docs/decisions/0036-source-filters.md).
fn is_probe(frame: &Frame) -> bool {
    let from = Packet::of(frame).map(|packet| packet.addresses.0);
    !frame.outgoing && from == Some(foreign_source(false))
}

fn set_strict(machine: &Machine) -> Result<(), dpr_host::SysctlError> {
    machine.exec(|| WHERE.iter().try_for_each(|interface| setting(interface).write("1"))).unwrap()
}

fn setting(interface: &str) -> Sysctl {
    Sysctl::ipv4(interface, Ipv4Setting::RpFilter).unwrap()
}

/// The filter is in force: a packet from nowhere is dropped by it.
fn assert_filters(web: &Web, machine: &Machine) {
    let before = filtered_at(machine);
    let client = &web.clients[0];
    let datagram = ipv4(UNREACHABLE, machine.ipv4().unwrap(), PROTOCOL_UDP, 1, &[0, 9, 0, 9, 0, 8, 0, 0]);
    let sender = FrameSender::open(client, INTERFACE).unwrap();
    sender.send(&ethernet_ipv4(client.mac(), machine.mac(), &datagram)).unwrap();
    let what = format!("{} to drop a packet from nowhere", machine.name());
    wait_until(&what, PATIENCE, || match filtered_at(machine) {
        now if now > before => Ok(()),
        now => Err(format!("{now} packets were dropped")),
    })
    .unwrap();
}

/// Packets that the reverse path filter of a machine has dropped.
fn filtered_at(machine: &Machine) -> u64 {
    let text = machine.exec(|| fs::read_to_string("/proc/thread-self/net/netstat").unwrap()).unwrap();
    let mut rows = text.lines().filter(|line| line.starts_with("TcpExt:")).map(str::split_whitespace);
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let named = names.zip(values).find(|(name, _)| *name == "IPReversePathFilter");
    named.expect("Linux counts what the filter drops").1.parse().unwrap()
}
