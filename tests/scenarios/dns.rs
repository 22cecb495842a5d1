//! Every node answers for the service's name, from what all nodes report.

use dpr_lab::http_load::{HttpLoad, LoadPlan, Tally, Targets};
use dpr_lab::resolver::StubResolver;
use dpr_lab::{Cluster, DnsPlan, IpVersion, Machine, Node, NodePlan, wait_until};
use dpr_rrdns::parse_name;
use dpr_rrdns::stub::{self, RecordType};
use dpr_tests::binary;
use dpr_tests::dns::{ask, ask_by_tcp, firsts};
use dpr_tests::stage::{PATIENCE, Stage};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

/// Suspicion takes 3.5 report intervals of 100 ms, and the next update of the table one more.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(1);

/// Of ordinary answers and of those that name a hot node, seconds.
const TTL_S: u32 = 20;
const TTL_HOT_S: u32 = 3;

/// Far more than a network gets in the seconds that it takes to send them.
const QUERIES_OF_FLOOD: u64 = 2000;

/// Three nodes, each of which serves DNS.
fn stage(version: IpVersion) -> Stage {
    let dns = DnsPlan { name_servers: 3, ttl_s: TTL_S, ttl_hot_s: TTL_HOT_S, ..DnsPlan::default() };
    Stage::start(3, 1, NodePlan { dns: Some(dns), ..NodePlan::default() }.in_version(version))
}

fn address(node: &Node) -> IpAddr {
    node.service().ip()
}

/// Waits until the answers of `server` begin with these nodes' addresses in turn, and with no others.
fn wait_until_named(stage: &Cluster, server: usize, named: &[usize]) {
    let expected: Vec<IpAddr> = named.iter().map(|node| address(&stage.nodes[*node])).collect();
    let what = format!("{} to name {named:?}", stage.nodes[server].name());
    // Several threads answer, each in turn by itself: ask for long enough to hear all of them.
    let heard = || {
        let mut firsts = firsts(&stage.clients[0], &stage.nodes[server], 40);
        firsts.dedup();
        if firsts == expected { Ok(()) } else { Err(format!("{firsts:?}")) }
    };
    wait_until(&what, PATIENCE, heard).unwrap();
}

pub(crate) fn follows_the_cluster() {
    follows_the_cluster_in(IpVersion::V4);
}

pub(crate) fn follows_the_cluster_in_ipv6() {
    follows_the_cluster_in(IpVersion::V6);
}

fn follows_the_cluster_in(version: IpVersion) {
    let mut stage = stage(version);
    for server in 0..3 {
        wait_until_named(&stage, server, &[0, 1, 2]);
    }

    let drained = Instant::now();
    order(&stage.nodes[1], &["drain", "--timeout", "0"]);
    for server in [1, 0, 2] {
        wait_until_named(&stage, server, &[0, 2]);
    }
    let reason = stage.nodes[0].status().unwrap().dns.unwrap().left_out.pop().unwrap();
    assert_eq!((reason.address, &*reason.reason), (stage.nodes[1].service(), "draining"));
    assert!(drained.elapsed() < FORGOTTEN_WITHIN, "{:?} until a draining node was out", drained.elapsed());
    order(&stage.nodes[1], &["undrain"]);
    wait_until_named(&stage, 0, &[0, 1, 2]);

    let kill = stage.nodes[2].node_kill().unwrap();
    std::thread::sleep(FORGOTTEN_WITHIN.saturating_sub(kill.at.elapsed()));
    for server in 0..2 {
        let named = firsts(&stage.clients[0], &stage.nodes[server], 40);
        assert!(!named.contains(&address(&stage.nodes[2])), "a dead node is named: {named:?}");
    }

    stage.nodes[2].revive().unwrap();
    wait_until_named(&stage, 0, &[0, 1, 2]);
    stage.nodes[1].terminate().unwrap();
    wait_until_named(&stage, 0, &[0, 2]);
}

fn order(node: &Node, words: &[&str]) {
    let mut command = Command::new(binary::path());
    command.args(words).arg("--socket").arg(node.control_socket());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

pub(crate) fn exclusion() {
    let mut stage = stage(IpVersion::V4);
    let attacked = address(&stage.nodes[2]).to_string();
    wait_until_named(&stage, 1, &[0, 1, 2]);

    let told = Instant::now();
    order(&stage.nodes[0], &["dns", "exclude", &attacked]);
    for server in 0..3 {
        wait_until_named(&stage, server, &[0, 1]);
    }
    assert!(told.elapsed() < PATIENCE / 3, "it took {:?} until all nodes knew", told.elapsed());

    // The node where it was decided forgets it, and learns it from the others.
    stage.nodes[0].terminate().unwrap();
    stage.nodes[0].start().unwrap();
    stage.wait_until_they_meet().unwrap();
    wait_until_named(&stage, 0, &[0, 1]);

    // Nobody is left who could tell, but the disks.
    for node in &mut stage.nodes {
        node.terminate().unwrap();
    }
    for node in &mut stage.nodes {
        node.start().unwrap();
    }
    stage.wait_until_they_meet().unwrap();
    for server in 0..3 {
        wait_until_named(&stage, server, &[0, 1]);
    }

    order(&stage.nodes[1], &["dns", "include", &attacked]);
    for server in 0..3 {
        wait_until_named(&stage, server, &[0, 1, 2]);
    }
}

pub(crate) fn node_dies() {
    let mut stage = stage(IpVersion::V4);
    wait_until_named(&stage, 0, &[0, 1, 2]);
    let servers = stage.nodes.iter().map(|node| (node.address(), 53).into()).collect();
    let name = DnsPlan::default().service_name();
    let resolver = StubResolver::new(servers, &name, IpVersion::V4).unwrap();
    let plan = LoadPlan {
        targets: Targets::Named { resolver, port: 80, patience: Duration::from_millis(1500) },
        concurrency: 16,
        requests_per_connection: 1,
        think: Duration::from_millis(20),
        rest: Duration::ZERO,
        duration: Duration::from_secs(6),
        timeout: Duration::from_secs(5),
    };
    let load = HttpLoad::start(&stage.clients[0], plan).unwrap();

    std::thread::sleep(Duration::from_secs(3));
    let kill = stage.nodes[2].node_kill().unwrap();
    let records = load.wait();

    let tally = Tally::of(&records, std::slice::from_ref(&kill));
    assert!(tally.served_by_node.len() == 3 && tally.requests > 500, "{tally}");
    let failed: Vec<_> = records.iter().filter(|record| record.outcome.is_err()).collect();
    assert_eq!(tally.unexcused(), 0, "{tally}, the first: {:?}", failed.first());
    let late = records.iter().filter(|record| record.began > kill.at + FORGOTTEN_WITHIN);
    let slow = late.filter(|record| record.ended - record.began > Duration::from_secs(1)).count();
    assert_eq!(slow, 0, "requests still went to the dead node");
}

pub(crate) fn flood() {
    let dns = DnsPlan { rate_limit: 20, ..DnsPlan::default() };
    let stage = Stage::start(2, 1, NodePlan { dns: Some(dns), ..NodePlan::default() });
    let named = || ask_by_tcp(&stage.clients[0], &stage.nodes[0]).addresses.len();
    let both = || if named() == 2 { Ok(()) } else { Err("not both".to_owned()) };
    wait_until("both nodes to be named", PATIENCE, both).unwrap();
    let before = stage.nodes[0].status().unwrap().dns.unwrap().outcomes;

    let replies = flood_of(QUERIES_OF_FLOOD, &stage.clients[0], &stage.nodes[0]);

    let outcomes = stage.nodes[0].status().unwrap().dns.unwrap().outcomes;
    let count = |outcome: &str| outcomes[outcome] - before[outcome];
    let (limited, truncated) = (count("limited"), count("limited-truncated"));
    assert!(limited > QUERIES_OF_FLOOD / 4 && limited.abs_diff(truncated) <= 16, "{outcomes:?}");
    assert!(replies < QUERIES_OF_FLOOD * 3 / 4, "{replies} of {QUERIES_OF_FLOOD} were answered");
    assert_eq!(named(), 2, "who comes by TCP is answered");
}

/// Sends so many questions as fast as it can; says how many replies came within a moment.
fn flood_of(queries: u64, client: &Machine, server: &Node) -> u64 {
    let name = parse_name(&DnsPlan::default().service_name(), None).unwrap();
    let (question, to) = (stub::question(7, &name, RecordType::A), (server.address(), 53));
    let flood = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        for _ in 0..queries {
            socket.send_to(&question, to).unwrap();
        }
        let mut buffer = [0; 512];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
    };
    client.exec(flood).unwrap() as u64
}

pub(crate) fn hot_nodes() {
    let stage = stage(IpVersion::V4);
    wait_until_named(&stage, 0, &[0, 1, 2]);
    let ttls = |server: usize| -> Vec<u32> {
        let reply = ask(&stage.clients[0], &stage.nodes[server]);
        reply.addresses.into_iter().map(|(_, ttl_s)| ttl_s).collect()
    };
    let loads = [([100, 100, 100], TTL_S), ([100, 100, 950], TTL_HOT_S), ([100, 100, 100], TTL_S)];

    for (permille, ttl_s) in loads {
        stage.set_loads(&permille);
        // A client network that asks often gets the same: these few questions are not often.
        for server in 0..3 {
            assert_eq!(ttls(server), [ttl_s; 3], "by server {server} with loads of {permille:?}");
        }
    }
}
