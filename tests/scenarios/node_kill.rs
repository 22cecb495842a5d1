//! A real server dies: its own connections end, no others; new ones avoid it within half a second; it comes back.

use dpr_lab::capture::{Capture, Captured};
use dpr_lab::http_load::Kill;
use dpr_lab::paired::{ConnectionRecord, ConnectionState, Crowd};
use dpr_model::MacAddress;
use dpr_tests::packet::{Packet, complete, is_tcp};
use dpr_tests::stage::{PATIENCE, Stage, crowd_plan, served_by};
use dpr_tests::variant::Variant;
use std::time::{Duration, Instant, SystemTime};

/// A director has to avoid a dead node after this time, on a network without loss.
const AVOIDED_WITHIN: Duration = Duration::from_millis(500);
/// New connections arrive all the time, one every 20 ms.
const CONNECTIONS: u16 = 300;
const OPENING: Duration = Duration::from_secs(6);
const VICTIM: usize = 2;

pub(crate) fn death_and_return(variant: Variant) {
    let mut stage = Stage::paired_in(variant, 3, 1);
    stage.set_loads(&[900, 100, 100]);
    let victim = stage.nodes[VICTIM].machine().mac();
    let capture = Capture::start(stage.nodes[0].machine(), is_tcp).unwrap();
    let mut plan = crowd_plan(vec![stage.nodes[0].service()], CONNECTIONS);
    plan.opening = OPENING;
    // Nothing that the director may save takes longer: a SYN is sent again after one second (RFC 6298).
    plan.timeout = Duration::from_secs(3);
    let crowd = Crowd::open(&stage.clients[0], plan).unwrap();

    std::thread::sleep(OPENING / 2);
    let kill = stage.nodes[VICTIM].node_kill().unwrap();
    // Until the last connections have had their time to fail.
    std::thread::sleep(OPENING / 2 + Duration::from_secs(4));
    let records = crowd.finish();

    assert_only_its_own_ended(&records, &kill);
    assert_avoided(&capture.finish().unwrap(), victim, &kill);
    assert_used_again(&mut stage);
}

fn assert_only_its_own_ended(records: &[ConnectionRecord], kill: &Kill) {
    assert!(served_by(records, "n3") >= 20, "too few connections were the victim's");
    assert!(served_by(records, "n2") >= 20, "too few connections were another node's");
    for record in records {
        let lived = record.state == ConnectionState::Finished;
        match record.node() {
            Some(node) => assert_eq!(lived, node != kill.node, "{record:?}"),
            // Begun before the death and never answered: it was the victim's.
            None => assert!(record.began.unwrap() < kill.at, "{record:?}"),
        }
    }
    let after = |record: &&ConnectionRecord| record.began.unwrap() > kill.at;
    assert!(records.iter().filter(after).count() >= 50, "too few connections were begun after the death");
}

fn assert_avoided(captured: &Captured, victim: MacAddress, kill: &Kill) {
    let killed_at = SystemTime::now() - kill.at.elapsed();
    let packets = complete(captured);
    let is_first_packet =
        |packet: &Packet| packet.macs.1 == victim.0 && packet.tcp.is_some_and(|segment| segment.syn);
    assert!(packets.iter().any(is_first_packet), "the capture shows nothing of the victim");
    let late: Vec<Duration> = captured
        .frames
        .iter()
        .filter(|frame| Packet::of(frame).is_some_and(|packet| is_first_packet(&packet)))
        .filter_map(|frame| frame.at.duration_since(killed_at).ok())
        .filter(|age| *age > AVOIDED_WITHIN)
        .collect();
    assert!(late.is_empty(), "new connections went to the dead node {late:?} after its death");
}

fn assert_used_again(stage: &mut Stage) {
    stage.nodes[VICTIM].revive().unwrap();
    stage.wait_until_they_meet().unwrap();
    stage.set_loads(&[900, 100, 100]);
    let began = Instant::now();
    loop {
        let plan = crowd_plan(vec![stage.nodes[0].service()], 10);
        let records = stage.open_crowd(0, plan).finish();
        if served_by(&records, "n3") > 0 {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "the node that returned gets no connections");
    }
}
