//! A node dies while curl downloads through a director: only what the dead node served is lost.

use crate::curl::{Transfer, curl};
use crate::nginx::{LONG, SLOW};
use crate::web::Web;
use dpr_lab::capture::{Capture, Captured};
use dpr_lab::http_load::Kill;
use dpr_lab::{Cluster, Machine};
use dpr_model::LoadPermille;
use dpr_tests::packet::{Packet, complete, is_tunnelled};
use dpr_tests::stage::duration;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Each downloads one file after another.
const LOOPS: u16 = 12;
/// Each has ports of its own, and uses each once, so that a port names a download.
const FIRST_PORT: u16 = 20_000;
const PORTS_EACH: u16 = 1000;
/// What one takes: after this long each loop has begun another.
const DOWNLOAD: Duration = Duration::from_secs(1);
/// For one download: a SYN that is sent again, and the file. A lost one holds its loop up for so long.
const LIMIT: Duration = Duration::from_secs(4);
/// A director has to avoid a dead node after this time, on a network without loss.
const AVOIDED_WITHIN: Duration = Duration::from_millis(500);
/// Load reports go out ten times a second.
const REPORTED_WITHIN: Duration = Duration::from_millis(300);
/// For the one download that is long; it takes about four seconds.
const LONG_LIMIT: Duration = Duration::from_secs(12);
/// A client sends its SYN again after one second (RFC 6298, section 2.1); who connects sooner lost none.
const RETRANSMISSION: Duration = Duration::from_secs(1);

/// One run of curl.
#[derive(Debug)]
struct Download {
    port: u16,
    began: Instant,
    ended: Instant,
    transfer: Transfer,
}

pub(crate) fn downloads() {
    let mut web = Web::start(3);
    web.set_loads(&[900, 100, 100]);
    let (live, victim) = (web.nodes[1].machine().address(), web.nodes[2].machine().address());
    let capture = Capture::start(web.nodes[0].machine(), is_tunnelled).unwrap();
    let half = duration(Duration::from_secs(4), Duration::from_secs(10));
    let end = Instant::now() + half + LIMIT + half;
    let (url, long_url) = (web.url(SLOW), web.url(LONG));

    let Web { nginxes, stage } = &mut web;
    let Cluster { nodes, clients, .. } = &mut **stage;
    let client = &clients[0];
    let (kill, long, downloads) = std::thread::scope(|scope| {
        let url = url.as_str();
        let loops: Vec<_> =
            (0..LOOPS).map(|number| scope.spawn(move || download_until(end, client, url, number))).collect();
        std::thread::sleep(half);
        // Now they go to n2, one for long enough to be open when n3 dies.
        nodes[2].override_load(Some(LoadPermille(400))).unwrap();
        std::thread::sleep(REPORTED_WITHIN);
        let long = scope.spawn(|| download(client, &long_url, FIRST_PORT + LOOPS * PORTS_EACH, LONG_LIMIT));
        std::thread::sleep(REPORTED_WITHIN);
        // From now on new connections go to n3, and would go on doing so if nobody noticed its death.
        nodes[1].override_load(Some(LoadPermille(700))).unwrap();
        std::thread::sleep(REPORTED_WITHIN + DOWNLOAD);
        let kill = nodes[2].node_kill().unwrap();
        drop(nginxes.pop());
        let downloads = loops.into_iter().flat_map(|one| one.join().unwrap());
        let downloads = downloads.collect::<Vec<Download>>();
        (kill, long.join().unwrap(), downloads)
    });

    let real_servers = real_servers(&capture.finish().unwrap());
    assert!(long.began < kill.at && kill.at < long.ended, "the long download was not open at the death");
    assert_eq!(real_servers.get(&long.port), Some(&live), "a live node has to serve the long download");
    assert_eq!(long.transfer.exit_code, 0, "a live node's download broke: {long:?}");
    assert_only_its_own_failed(&downloads, &real_servers, victim, &kill);
    assert_avoided(&downloads, &real_servers, victim, &kill);
}

/// Where the director sent the last SYN of each of the client's ports.
type RealServers = BTreeMap<u16, IpAddr>;

fn assert_only_its_own_failed(downloads: &[Download], servers: &RealServers, victim: IpAddr, kill: &Kill) {
    let failed: Vec<_> = downloads.iter().filter(|download| download.transfer.exit_code != 0).collect();
    assert!(!failed.is_empty(), "the dead node had nothing to lose: this proves nothing");
    for download in failed {
        let server = servers.get(&download.port);
        assert_eq!(server, Some(&victim), "only the dead node's connections may fail: {download:?}");
        assert!(download.began < kill.at, "a new connection has to find a live node: {download:?}");
    }
}

fn assert_avoided(downloads: &[Download], servers: &RealServers, victim: IpAddr, kill: &Kill) {
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
        if Instant::now() >= end {
            break;
        }
        downloads.push(download(client, url, port, LIMIT));
    }
    downloads
}

fn download(client: &Machine, url: &str, port: u16, limit: Duration) -> Download {
    let began = Instant::now();
    let (limit, port_alone) = (limit.as_secs().to_string(), port.to_string());
    let arguments = ["--max-time", &limit, "--local-port", &port_alone, "--output", "/dev/null", url];
    let transfer = curl(client, &arguments).transfer().clone();
    Download { port, began, ended: Instant::now(), transfer }
}

fn real_servers(captured: &Captured) -> RealServers {
    let syn = |packet: &Packet| {
        let segment = packet.tcp.filter(|segment| segment.syn)?;
        Some((segment.from.port(), packet.tunnels.first()?.to))
    };
    complete(captured).iter().filter_map(syn).collect()
}
