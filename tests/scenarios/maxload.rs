//! Below `Maxload` a node keeps its connections; above it new ones go to lighter nodes, and clients notice nothing.

use dpr_lab::capture::Capture;
use dpr_tests::packet::{Packet, complete, is_tcp, is_tunnelled};
use dpr_tests::stage::{PAIRED_PORT, Stage, assert_none_broke, crowd_plan, served_by};

pub(crate) fn below() {
    let stage = Stage::paired(3, 1);
    // Connections that no report knows yet count as well: 30 of a capacity of 100 make 300 permille.
    stage.set_loads(&[350, 0, 0]);
    let capture = Capture::start(stage.nodes[0].machine(), is_tunnelled).unwrap();

    let crowd = stage.open_crowd(0, crowd_plan(vec![stage.nodes[0].service()], 30));
    let records = crowd.finish();

    assert_none_broke(&records);
    assert_eq!(served_by(&records, "n1"), 30);
    let counters = &stage.statuses()[0].counters;
    assert_eq!((counters.connections_kept, counters.connections_forwarded), (30, 0));
    assert!(complete(&capture.finish().unwrap()).is_empty(), "something was tunnelled");
}

pub(crate) fn above() {
    let stage = Stage::paired(3, 1);
    stage.set_loads(&[900, 100, 990]);

    let crowd = stage.open_crowd(0, crowd_plan(vec![stage.nodes[0].service()], 40));
    let records = crowd.finish();

    assert_none_broke(&records);
    assert_eq!(served_by(&records, "n2"), 40, "n2 was the only node lighter than n1");
    let statuses = stage.statuses();
    assert_eq!(statuses[0].counters.connections_forwarded, 40);
    assert_eq!(statuses[1].counters.connections_received, 40);
    assert_eq!(statuses[2].counters.connections_received, 0);
}

pub(crate) fn replies() {
    let mut stage = Stage::paired(2, 1);
    stage.set_loads(&[900, 100]);
    let (service, client_address) = (stage.nodes[0].service(), stage.clients[0].address());
    let at_client = Capture::start(&stage.clients[0], is_tcp).unwrap();
    let at_director = Capture::start(stage.nodes[0].machine(), is_tcp).unwrap();
    let at_server = Capture::start(stage.nodes[1].machine(), is_tcp).unwrap();

    let crowd = stage.open_crowd(0, crowd_plan(vec![service], 10));
    std::thread::sleep(std::time::Duration::from_secs(1));
    let records = crowd.finish();

    assert_none_broke(&records);
    assert_eq!(served_by(&records, "n2"), 10);
    for record in &records {
        let greeting = record.greeting.as_ref().unwrap();
        assert_eq!(Some(greeting.peer), record.local, "the server has to see the client's own address");
        assert_ne!(greeting.local, service, "delivery goes to an address of the server's own");
    }
    let sightings = &stage.nodes[1].paired().unwrap().record().sightings;
    assert!(sightings.iter().all(|sighting| sighting.peer.ip() == client_address));

    // Everything that the client sends and receives names the address it connected to.
    let wire = complete(&at_client.finish().unwrap());
    assert!(wire.len() > 100);
    for packet in &wire {
        let segment = packet.tcp.unwrap();
        let other = if segment.from.ip() == client_address { segment.to } else { segment.from };
        assert_eq!(other, service, "{packet:?}");
    }

    // The director forwards requests and never touches a reply.
    let is_reply = |packet: &Packet| packet.tcp.unwrap().from.port() == PAIRED_PORT;
    let at_director = complete(&at_director.finish().unwrap());
    let director = stage.nodes[0].machine();
    assert!(at_director.iter().any(|packet| !packet.tunnels.is_empty()), "nothing was forwarded");
    let strays: Vec<&Packet> =
        at_director.iter().filter(|packet| is_reply(packet) && packet.touches(director)).collect();
    assert!(strays.is_empty(), "a reply passed the director: {:?}", strays[0]);

    // The real server sends them itself, untunnelled, from the address that the client used.
    let at_server = complete(&at_server.finish().unwrap());
    let replies: Vec<&Packet> = at_server.iter().filter(|packet| is_reply(packet)).collect();
    assert!(replies.len() > 50);
    assert!(replies.iter().all(|packet| packet.tunnels.is_empty() && packet.tcp.unwrap().from == service));
}
