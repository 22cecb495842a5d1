//! Ten thousand open connections to a shared address while directors die and return, stop, leave, and are parted.
//!
//! What the machine is asked to do is measured and printed; bounds leave room for a machine that others use too.

use dpr_lab::http_load::{HttpLoad, LoadPlan, Tally, Targets};
use dpr_lab::paired::{ConnectionRecord, Crowd, CrowdPlan};
use dpr_lab::{Machine, Node, NodePlan, OwnershipPlan, wait_until};
use dpr_model::NodeId;
use dpr_tests::stage::{PAIRED_PORT, PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use rustix::process::{Resource, Signal, getrlimit};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const CONNECTIONS: u16 = 10_000;
/// Descriptors of everything but connections, each of which takes one at either end.
const OTHER_FILES: u64 = 400;
/// Fewer, where others are opened besides.
const SOME: u16 = 2000;
/// Opened over so long; all at once they would be a test of queues.
const OPENING: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_secs(4);
/// Connections that are opened while something happens.
const NEW: u16 = 300;
/// What is quicker was not held up.
const ORDINARY: Duration = Duration::from_millis(150);
/// For every second connection, where the promise is for 99 of 100: who misses the moment waits for the next
/// retransmission, which is twice as far (RFC 6298).
const DATA_AGAIN: Duration = Duration::from_millis(900);
const NEW_AGAIN: Duration = Duration::from_millis(1400);
/// Promises last 4.5 intervals of 100 ms.
const DETECTABLE: Duration = Duration::from_millis(450);
const MOVED: Duration = Duration::from_millis(400);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(1500);

fn stage(nodes: u8, clients: u8, ingress: &'static str) -> Stage {
    let ownership = Some(OwnershipPlan::majority_of(nodes));
    let plan =
        NodePlan { shared: Some(ingress), ownership, capacity: 20_000, ..NodePlan::paired(PAIRED_PORT) };
    let stage = Stage::start(nodes, clients, plan);
    agree(&stage, &(0..usize::from(nodes)).collect::<Vec<_>>(), PATIENCE);
    stage
}

/// A crowd whose exchanges are seconds apart.
fn crowd(stage: &Stage, connections: u16, opening: Duration) -> Crowd {
    let plan = CrowdPlan { opening, pause: PAUSE, ..crowd_plan(vec![stage.nodes[0].service()], connections) };
    Crowd::open(&stage.clients[0], plan).unwrap()
}

/// Ten thousand, or as many as this process may have: some systems let not even root go beyond a limit.
fn as_many_as_possible() -> u16 {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    u16::try_from(files.saturating_sub(OTHER_FILES) / 2 - u64::from(NEW))
        .map_or(CONNECTIONS, |most| most.min(CONNECTIONS))
}

fn open(stage: &Stage, connections: u16) -> Crowd {
    let mut crowd = crowd(stage, connections, OPENING);
    crowd.wait_until_open(OPENING + PATIENCE).unwrap();
    // Long enough for copies to be at the backups.
    std::thread::sleep(Duration::from_secs(1));
    crowd.measure_anew();
    crowd
}

pub(crate) fn director_dies_by_arp_owner() {
    director_dies("arp-owner");
}

pub(crate) fn director_dies_by_group_mac() {
    director_dies("shared-mac");
}

/// The dead node decided for a third of all connections and served none.
fn director_dies(ingress: &'static str) {
    let mut stage = stage(3, 1, ingress);
    stage.set_loads(&[900, 100, 100]);
    let mut old = open(&stage, as_many_as_possible());
    let new = crowd(&stage, NEW, Duration::from_secs(6));
    std::thread::sleep(Duration::from_secs(1));
    old.measure_anew();

    let kill = stage.nodes[0].node_kill().unwrap();
    agree(&stage, &[1, 2], PATIENCE);
    let moved = kill.at.elapsed();
    std::thread::sleep(Duration::from_secs(5) + PAUSE);
    let (old, new) = (old.finish(), new.finish());

    assert_none_broke(&old);
    assert_none_broke(&new);
    assert_eq!(served_by(&old, "n1"), 0, "a director that serves none");
    let held_up = old.iter().filter_map(|record| record.slowest).filter(|slowest| {
        slowest.took >= ORDINARY
            && slowest.began < kill.at + DETECTABLE + MOVED
            && slowest.began + slowest.took > kill.at
    });
    let data_again = Percentiles::of(held_up.map(|slowest| slowest.took));
    let around = |record: &&ConnectionRecord| {
        record.began.is_some_and(|began| (kill.at..kill.at + DETECTABLE + MOVED).contains(&began))
    };
    let new_again = Percentiles::of(
        new.iter().filter(around).map(|record| record.opened.unwrap().duration_since(record.began.unwrap())),
    );
    println!(
        "{ingress}: owned again {moved:?} after the cut; held up until data came: {data_again}; new: {new_again}"
    );
    assert!(data_again.count > 100, "too few were held up to prove anything: {data_again}");
    assert!(moved <= DETECTABLE + MOVED + SLACK, "{moved:?}");
    assert!(data_again.half <= DATA_AGAIN && data_again.most <= DATA_AGAIN + SLACK, "{data_again}");
    assert!(new_again.half <= NEW_AGAIN && new_again.most <= NEW_AGAIN + SLACK, "{new_again}");
}

/// Each time it has been gone for long enough to be nobody's owner, and is an owner again before it goes the next time.
pub(crate) fn director_dies_five_times() {
    let mut stage = stage(3, 1, "arp-owner");
    stage.set_loads(&[900, 100, 100]);
    let old = open(&stage, as_many_as_possible());
    for _ in 0..5 {
        stage.nodes[0].node_kill().unwrap();
        agree(&stage, &[1, 2], PATIENCE);
        stage.nodes[0].revive().unwrap();
        stage.order_loads(&[900, 100, 100]);
        agree(&stage, &[0, 1, 2], PATIENCE);
        std::thread::sleep(Duration::from_millis(500));
    }
    std::thread::sleep(PAUSE);
    let records = old.finish();
    assert_none_broke(&records);
    assert_eq!(served_by(&records, "n1"), 0);
}

/// All nodes see every packet, so that two owners would both answer: no connection is accepted twice.
pub(crate) fn owner_stops_and_is_killed() {
    let mut stage = stage(3, 1, "shared-mac");
    stage.set_loads(&[900, 100, 100]);
    let old = open(&stage, SOME);
    // The last ones open before everything is over, however fast the nodes agree.
    let new = crowd(&stage, SOME, Duration::from_secs(8));

    stage.nodes[0].pause().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    stage.nodes[0].resume().unwrap();
    agree(&stage, &[0, 1, 2], PATIENCE);
    stage.nodes[0].kill_daemon();
    std::thread::sleep(Duration::from_secs(1));
    stage.nodes[0].start().unwrap();
    stage.order_loads(&[900, 100, 100]);
    std::thread::sleep(Duration::from_secs(5));
    let (old, new) = (old.finish(), new.finish());

    assert_none_broke(&old);
    assert_none_broke(&new);
    assert_accepted_once(&mut stage, old.len() + new.len());
}

/// A fourth node comes, another one goes, and two drain at once, while connections are opened all the time.
pub(crate) fn members_come_and_go() {
    let mut stage = stage(4, 1, "arp-owner");
    stage.set_loads(&[900, 100, 100, 900]);
    stage.nodes[3].terminate().unwrap();
    agree(&stage, &[0, 1, 2], PATIENCE);
    let old = open(&stage, as_many_as_possible());
    let new = crowd(&stage, NEW, Duration::from_secs(10));

    stage.nodes[3].start().unwrap();
    stage.nodes[3].override_load(Some(dpr_model::LoadPermille(900))).unwrap();
    agree(&stage, &[0, 1, 2, 3], PATIENCE);
    // Those two decide, and serve nobody.
    stage.nodes[0].end_daemon(Signal::TERM).unwrap();
    agree(&stage, &[1, 2, 3], PATIENCE);
    stage.nodes[3].end_daemon(Signal::TERM).unwrap();
    agree(&stage, &[1, 2], PATIENCE);
    std::thread::sleep(Duration::from_secs(3) + PAUSE);
    let (old, new) = (old.finish(), new.finish());

    assert_none_broke(&old);
    assert_none_broke(&new);
}

/// Every node once, one after another, as an upgrade does it.
pub(crate) fn rolling_restart() {
    let ownership = Some(OwnershipPlan::majority_of(3));
    let plan = NodePlan { shared: Some("arp-owner"), ownership, capacity: 1000, ..NodePlan::default() };
    let mut stage = Stage::start(3, 1, plan);
    agree(&stage, &[0, 1, 2], PATIENCE);
    let load = LoadPlan {
        targets: Targets::Fixed(vec![stage.nodes[0].service()]),
        concurrency: 24,
        requests_per_connection: 4,
        think: Duration::from_millis(20),
        rest: Duration::from_millis(5),
        duration: Duration::from_secs(60),
        timeout: PATIENCE,
    };
    let load = HttpLoad::start(&stage.clients[0], load).unwrap();
    for node in 0..3 {
        std::thread::sleep(Duration::from_secs(1));
        stage.nodes[node].terminate().unwrap();
        stage.nodes[node].start().unwrap();
        agree(&stage, &[0, 1, 2], PATIENCE);
    }
    std::thread::sleep(Duration::from_secs(1));
    let records = load.finish();

    let tally = Tally::of(&records, &[]);
    println!("{tally}");
    let failed = records.iter().find(|record| record.outcome.is_err());
    assert_eq!(tally.failures, 0, "{tally}; the first: {failed:?}");
    assert!(tally.requests > 500, "{tally}");
}

/// Three nodes and a client on one side, two and a client on the other: the smaller side does nothing, and after healing all
/// have one map.
pub(crate) fn partition() {
    let mut stage = stage(5, 2, "shared-mac");
    stage.set_loads(&[100, 100, 900, 900, 900]);
    let old = open(&stage, SOME);
    let service = stage.nodes[0].service();
    let (nodes, clients) = (&stage.nodes, &stage.clients);
    let larger: Vec<&Machine> = nodes[..3].iter().map(Node::machine).chain([&clients[0]]).collect();
    let smaller: Vec<&Machine> = nodes[3..].iter().map(Node::machine).chain([&clients[1]]).collect();

    stage.lab.partition(&[&larger, &smaller]).unwrap();
    agree(&stage, &[0, 1, 2], PATIENCE);
    let here = crowd(&stage, NEW, Duration::from_secs(2));
    let there = CrowdPlan { timeout: Duration::from_secs(2), ..crowd_plan(vec![service], 50) };
    let there = Crowd::open(&stage.clients[1], there).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let there = there.finish();
    assert!(there.iter().all(|record| record.opened.is_none()), "nobody may act there: {there:?}");

    stage.lab.heal(&larger.into_iter().chain(smaller).collect::<Vec<_>>()).unwrap();
    let began = Instant::now();
    agree(&stage, &[0, 1, 2, 3, 4], PATIENCE);
    let healed = began.elapsed();
    std::thread::sleep(PAUSE);
    let (old, here) = (old.finish(), here.finish());

    println!("one map {healed:?} after healing");
    assert!(healed <= Duration::from_secs(1) + SLACK, "{healed:?}");
    assert_none_broke(&old);
    assert_none_broke(&here);
    assert_accepted_once(&mut stage, old.len() + here.len());
}

/// Fails if a connection was accepted by two servers: two owners would each have chosen one.
fn assert_accepted_once(stage: &mut Stage, at_least: usize) {
    let mut servers_by_client: BTreeMap<SocketAddr, Vec<String>> = BTreeMap::new();
    for node in &mut stage.nodes {
        let name = node.name().to_owned();
        let seen = node.paired().unwrap().record().sightings.clone();
        for sighting in seen {
            servers_by_client.entry(sighting.peer).or_default().push(name.clone());
        }
    }
    assert!(servers_by_client.len() >= at_least, "{} clients", servers_by_client.len());
    let twice =
        servers_by_client.iter().find(|(_, servers)| servers.iter().any(|server| *server != servers[0]));
    assert_eq!(twice, None, "two owners");
}

/// Waits until these nodes have one settled map with themselves as members, and may act by it.
fn agree(stage: &Stage, at: &[usize], limit: Duration) {
    let members: Vec<NodeId> = at.iter().map(|index| stage.nodes[*index].id()).collect();
    wait_until("nodes to agree on owners", limit, || {
        let owned = |index: &usize| {
            let status = stage.nodes[*index].status().map_err(|error| error.to_string())?;
            status.ownership.ok_or_else(|| "nothing is agreed on".to_owned())
        };
        let maps = at.iter().map(owned).collect::<Result<Vec<_>, _>>()?;
        let agrees = maps.iter().all(|map| {
            let named = map.members.iter().map(|member| member.node);
            map.map == maps[0].map
                && map.settled
                && map.promised_ms.is_some()
                && named.eq(members.iter().copied())
        });
        if agrees { Ok(()) } else { Err(format!("{maps:?}")) }
    })
    .unwrap();
}

/// How long something took, of so many.
#[derive(Debug)]
struct Percentiles {
    count: usize,
    half: Duration,
    most: Duration,
    longest: Duration,
}

impl Percentiles {
    fn of(samples: impl Iterator<Item = Duration>) -> Self {
        let mut samples: Vec<Duration> = samples.collect();
        samples.sort_unstable();
        let at = |permille: usize| {
            let position = (samples.len() * permille / 1000).min(samples.len().saturating_sub(1));
            samples.get(position).copied().unwrap_or_default()
        };
        Self { count: samples.len(), half: at(500), most: at(990), longest: at(1000) }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, half, most, longest } = self;
        write!(f, "{count}, half within {half:.0?}, 99 % within {most:.0?}, longest {longest:.0?}")
    }
}
