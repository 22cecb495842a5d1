//! Every forwarding method in every IP version: what forwarding looks like on the wire, and that clients notice nothing.

use dpr_lab::capture::{Capture, Frame};
use dpr_lab::paired::Transfer;
use dpr_tests::packet::{Packet, complete};
use dpr_tests::stage::{PATIENCE, Stage, assert_carried_by, assert_none_broke, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use std::net::SocketAddr;

const CONNECTIONS: u16 = 10;
const BYTES: u64 = 1024 * 1024;

pub(crate) fn forwards(variant: Variant) {
    let mut stage = Stage::paired_in(variant, 2, 1);
    stage.set_loads(&[900, 100]);
    let service = stage.nodes[0].service();
    let at_client = Capture::start(&stage.clients[0], is_of_connections).unwrap();
    let at_server = Capture::start(stage.nodes[1].machine(), is_of_connections).unwrap();

    let crowd = stage.open_crowd(0, crowd_plan(vec![service], CONNECTIONS));
    let transfer =
        Transfer { target: service, up: BYTES, down: BYTES, seed: 3, source_port: None, timeout: PATIENCE };
    let transferred = transfer.run(&stage.clients[0]).unwrap().unwrap();
    let records = crowd.finish();

    for status in stage.statuses() {
        assert_carried_by(variant, &status);
    }
    assert_none_broke(&records);
    assert_eq!(served_by(&records, "n2"), usize::from(CONNECTIONS));
    assert_eq!(transferred.greeting.node, "n2");
    for record in &records {
        let seen = record.greeting.as_ref().unwrap().peer;
        if variant.hides_clients() {
            assert_eq!(seen.ip(), stage.nodes[0].address(), "the director is the client");
        } else {
            assert_eq!(Some(seen), record.local, "the server has to see the client's own address");
        }
    }
    assert_eq!(stage.nodes[1].paired().unwrap().record().breakages, []);

    // The client only ever speaks with the address that it asked for.
    for packet in complete(&at_client.finish().unwrap()) {
        let segment = packet.tcp.unwrap();
        assert!(segment.from == service || segment.to == service, "{packet:?}");
        assert!(packet.tunnels.is_empty());
    }
    let at_server = complete(&at_server.finish().unwrap());
    let (director, server) = (&stage.nodes[0], &stage.nodes[1]);
    let mac = server.machine().mac().0;
    let requests: Vec<&Packet> = at_server.iter().filter(|packet| packet.macs.1 == mac).collect();
    let replies: Vec<&Packet> = at_server.iter().filter(|packet| packet.macs.0 == mac).collect();
    assert!(requests.len() > 50 && replies.len() > 50, "{} {}", requests.len(), replies.len());
    for packet in requests {
        assert_eq!(packet.macs.0, director.machine().mac().0, "everything comes from the director");
        let to = packet.tcp.unwrap().to;
        match packet.tunnels[..] {
            [] if variant.hides_clients() => {
                assert_eq!(to, SocketAddr::new(server.address(), service.port()));
            }
            [] => assert_eq!((variant.method, to), ("dr", service)),
            [outer] => {
                assert!(variant.tunnels() && to == service, "{packet:?}");
                assert_eq!((outer.is_gue, outer.to), (variant.method == "gue", server.address()));
                assert_eq!(outer.hops, Some(0), "the home of an address needs one hop only: {packet:?}");
            }
            _ => panic!("a tunnel within a tunnel: {packet:?}"),
        }
    }
    for packet in replies {
        let from = packet.tcp.unwrap().from;
        let goes_back = packet.macs.1 == director.machine().mac().0;
        assert_eq!(goes_back, variant.hides_clients(), "{packet:?}");
        assert!(packet.tunnels.is_empty() && (variant.hides_clients() || from == service), "{packet:?}");
    }
}

/// TCP of the connections, whatever is around it: not the control traffic of neighbours and reports.
fn is_of_connections(frame: &Frame) -> bool {
    Packet::of(frame).is_some_and(|packet| packet.tcp.is_some())
}
