//! What a large node allocates: a million connections, a thousand peers.

#[path = "../src/fixture.rs"]
#[expect(dead_code, reason = "instruction counts use the rest of it")]
mod fixture;

use dpr_load_gossip::message::{self, EncodedReport, Header, Via};
use dpr_load_gossip::{Config, Gossip, Keyring};
use dpr_model::{Capacity, LoadPermille, LoadReport, Metric, MetricSample, ReceivedFrom};
use fixture::{LIFE, NOW, address, director, establish, id, service};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

const MIB: usize = 1 << 20;
const MILLION: u32 = 1 << 20;

/// Counts what the calling thread has allocated; tests run on threads of their own.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends frees after its counter is gone.
    let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get() + bytes));
}

// SAFETY: every call goes to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that `make` leaves allocated.
fn bytes_of<T>(make: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATED.get();
    let made = make();
    ((ALLOCATED.get() - before).unsigned_abs(), made)
}

#[test]
fn a_director_with_a_million_connections_takes_64_mib_and_a_tenth_at_most() {
    let (bytes, director) = bytes_of(|| {
        let mut director = director(8, MILLION as usize);
        establish(&mut director, MILLION);
        director
    });

    println!("{bytes} bytes");
    assert_eq!(director.conntrack_status().entries, u64::from(MILLION));
    assert!(bytes <= 64 * MIB + 64 * MIB / 10, "{bytes} bytes");
}

#[test]
fn a_thousand_peers_take_10_mib_at_most_in_gossip_and_director_together() {
    const PEERS: u32 = 1000;
    let (bytes, (gossip, director)) = bytes_of(|| {
        let mut gossip = Gossip::new(Config::new(id(0), LIFE), NOW);
        for peer in 1..=PEERS {
            let from = (address(peer), 7946).into();
            gossip.handle_datagram(from, &datagram(peer), NOW).expect("a first report is welcome");
        }
        while gossip.poll_action().is_some() {}
        (gossip, director(PEERS, 1))
    });

    println!("{bytes} bytes");
    assert_eq!(gossip.peers(NOW).count(), PEERS as usize);
    assert!(director.sent().len() == PEERS as usize);
    assert!(bytes <= 10 * MIB, "{bytes} bytes");
}

/// The largest ordinary report: every metric, eight services, as many acknowledgements as fit.
fn datagram(node: u32) -> Vec<u8> {
    let report = LoadReport {
        name: "a".repeat(message::NAME_MAX),
        load: LoadPermille(400),
        metrics: Metric::ALL.map(|metric| MetricSample { metric, load: LoadPermille(400) }).to_vec(),
        services: (0..8).map(|_| service(node)).collect(),
        received: (0..40)
            .map(|nth| ReceivedFrom { director: id(nth), incarnation: LIFE, connections: 1 })
            .collect(),
        content_version: 1,
        nat_ports: dpr_model::PortRange::new(40_000, 50_000),
        ..LoadReport::new(id(node), LIFE, address(node).into(), Capacity::new(10_000))
    };
    let header = Header { via: Via::Multicast, sender: id(node), incarnation: LIFE, sequence: 1 };
    let encoded = EncodedReport::new(&report, Duration::from_millis(100)).expect("the report is in bounds");
    message::encode(&header, &encoded, &report.received, &Keyring::unauthenticated())
}
