//! A node dies while curl downloads through a director: only what the dead node served is lost.

use crate::curl::{Transfer, curl};
use crate::nginx::SLOW;
use crate::web::Web;
use dpr_lab::capture::{Capture, Captured};
use dpr_lab::http_load::Kill;
use dpr_lab::{Cluster, Machine};
use dpr_model::LoadPermille;
use dpr_tests::packet::{Packet, complete, is_tunnelled};
use dpr_tests::stage::duration;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Each downloads one file after another.
const LOOPS: u16 = 12;
/// Each has ports of its own, and uses each once, so that a port names a download.
const FIRST_PORT: u16 = 20_000;
const PORTS_EACH: u16 = 1000;
/// For one download: a SYN that is sent again, and the file. A lost one holds its loop up for so long.
const LIMIT: Duration = Duration::from_secs(4);
/// A director has to avoid a dead node after this time, on a network without loss.
const AVOIDED_WITHIN: Duration = Duration::from_millis(500);
/// Load reports go out ten times a second.
const REPORTED_WITHIN: Duration = Duration::from_millis(300);
/// A client sends its SYN again after one second (RFC 6298, section 2.1); who connects sooner lost none.
const RETRANSMISSION: Duration = Duration::from_secs(1);

/// One run of curl.
#[derive(Debug)]
struct Download {
    port: u16,
    began: Instant,
    transfer: Transfer,
}

pub(crate) fn downloads() {
    let mut web = Web::start(3);
    web.set_loads(&[900, 100, 100]);
    let victim = web.nodes[2].machine().address();
    let capture = Capture::start(web.nodes[0].machine(), is_tunnelled).unwrap();
    let half = duration(Duration::from_secs(4), Duration::from_secs(10));
    let end = Instant::now() + half + LIMIT + half;
    let url = web.url(SLOW);

    let Web { nginxes, stage } = &mut web;
    let Cluster { nodes, clients, .. } = &mut **stage;
    let client = &clients[0];
    let (kill, downloads) = std::thread::scope(|scope| {
        let url = url.as_str();
        let loops: Vec<_> =
            (0..LOOPS).map(|number| scope.spawn(move || download_until(end, client, url, number))).collect();
        std::thread::sleep(half);
        // From now on new connections go to n3, and would go on doing so if nobody noticed its death.
        nodes[1].override_load(Some(LoadPermille(400))).unwrap();
        std::thread::sleep(REPORTED_WITHIN);
        let kill = nodes[2].node_kill().unwrap();
        drop(nginxes.pop());
        let downloads = loops.into_iter().flat_map(|one| one.join().unwrap());
        (kill, downloads.collect::<Vec<Download>>())
    });

    let real_servers = real_servers(&capture.finish().unwrap());
    assert_only_its_own_failed(&downloads, &real_servers, victim, &kill);
    assert_avoided(&downloads, &real_servers, victim, &kill);
}

/// Where the director sent the last SYN of each of the client's ports.
type RealServers = BTreeMap<u16, Ipv4Addr>;

fn assert_only_its_own_failed(downloads: &[Download], servers: &RealServers, victim: Ipv4Addr, kill: &Kill) {
    let (failed, succeeded): (Vec<_>, Vec<_>) =
        downloads.iter().partition(|download| download.transfer.exit_code != 0);
    assert!(!failed.is_empty(), "the dead node had nothing to lose: this proves nothing");
    for download in failed {
        let server = servers.get(&download.port);
        assert_eq!(server, Some(&victim), "only the dead node's connections may fail: {download:?}");
        assert!(download.began < kill.at, "a new connection has to find a live node: {download:?}");
    }
    let live_node_served =
        |download: &&Download| download.began < kill.at && servers.get(&download.port) != Some(&victim);
    assert!(
        succeeded.into_iter().any(|download| live_node_served(&download)),
        "only the dead node served: this proves little"
    );
}

fn assert_avoided(downloads: &[Download], servers: &RealServers, victim: Ipv4Addr, kill: &Kill) {
    let later = downloads.iter().filter(|download| download.began > kill.at + AVOIDED_WITHIN);
    let later: Vec<&Download> = later.collect();
    assert!(later.len() >= 20, "only {} downloads began after the death was noticed", later.len());
    for download in later {
        let waited = download.transfer.connected_after;
        assert!(waited < RETRANSMISSION, "a SYN was lost: {download:?}");
        assert_ne!(servers.get(&download.port), Some(&victim), "{download:?}");
    }
}

fn download_until(end: Instant, client: &Machine, url: &str, number: u16) -> Vec<Download> {
    let first = FIRST_PORT + number * PORTS_EACH;
    let mut downloads = Vec::new();
    for port in first..first + PORTS_EACH {
        let began = Instant::now();
        if began >= end {
            break;
        }
        let (limit, port_alone) = (LIMIT.as_secs().to_string(), port.to_string());
        let arguments = ["--max-time", &limit, "--local-port", &port_alone, "--output", "/dev/null", url];
        let fetched = curl(client, &arguments);
        downloads.push(Download { port, began, transfer: fetched.transfer().clone() });
    }
    downloads
}

fn real_servers(captured: &Captured) -> RealServers {
    let syn = |packet: &Packet| {
        let segment = packet.tcp.filter(|segment| segment.syn)?;
        Some((segment.from.port(), packet.tunnels.first()?.to))
    };
    complete(captured).iter().filter_map(syn).collect()
}
