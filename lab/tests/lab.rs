//! The lab itself, without `dpr`: what scenarios rely on has to be true before they can prove anything.

#![expect(clippy::unwrap_used, reason = "clippy does not see that a test without harness is a test")]

use dpr_lab::capture::Capture;
use dpr_lab::forge::{FrameSender, ethernet_ipv4, ipv4};
use dpr_lab::http_load::{HttpLoad, Kill, LoadPlan, Tally, Targets};
use dpr_lab::paired::{ConnectionState, Crowd, CrowdPlan, PairedServer, SourcePorts, Transfer};
use dpr_lab::{Breakage, HostState, IpVersion, Lab, Machine, wait_until};
use libtest_mimic::{Arguments, Trial};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 7000;
/// Makes this program start a process in a lab, name it, and wait to be killed.
const ORPHANER: &str = "DPR_LAB_TEST_ORPHANER";

fn main() -> ExitCode {
    // Before any thread exists. Where namespaces are impossible, everything fails with this explanation.
    if let Err(error) = dpr_lab::enter() {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    if std::env::var_os(ORPHANER).is_some() {
        leave_an_orphan();
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let trial = |name: &str, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let trials = vec![
        trial("a_transfer_between_two_machines_is_verified_in_both_directions", transfer_over_ipv4),
        trial("the_same_transfer_is_verified_over_ipv6", transfer_over_ipv6),
        trial("a_crowd_keeps_its_connections_and_finishes_them", crowd),
        trial("a_cut_link_breaks_what_runs_over_it_and_mending_brings_it_back", cut),
        trial("a_partition_separates_groups_until_it_is_healed", partition),
        trial("a_capture_sees_both_directions_and_loses_nothing_under_load", capture),
        trial("a_forged_frame_arrives_as_it_was_made", forge),
        trial("a_process_lives_in_its_machine_and_dies_with_its_value", process),
        trial("a_changed_setting_shows_in_the_host_state", host_state),
        trial("a_dropped_lab_leaves_no_files_and_a_new_one_can_be_made", dropped),
        trial("processes_die_with_the_process_that_made_them_even_by_sigkill", orphan),
        trial("what_root_mounts_goes_with_the_process", mounts),
        trial("http_load_names_who_served_and_excuses_only_what_a_kill_took", http_load),
        trial("a_server_that_closes_shows_as_a_broken_connection", server_closes),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

struct Pair {
    server: PairedServer,
    alice: Machine,
    bob: Machine,
    lab: Lab,
}

fn pair() -> Pair {
    pair_in(IpVersion::V4)
}

fn pair_in(version: IpVersion) -> Pair {
    let lab = Lab::speaking(&[version]).unwrap();
    let (alice, bob) = (lab.client(1).unwrap(), lab.client(2).unwrap());
    let server = PairedServer::start(&bob, "bob", PORT).unwrap();
    Pair { server, alice, bob, lab }
}

impl Pair {
    fn target(&self) -> SocketAddr {
        SocketAddr::new(self.bob.address(), PORT)
    }

    fn transfer(&self, bytes: u64, limit: Duration) -> Result<(), Breakage> {
        let (target, seed, source_port) = (self.target(), 7, None);
        let transfer = Transfer { target, up: bytes, down: bytes, seed, source_port, timeout: limit };
        transfer.run(&self.alice).unwrap().map(drop)
    }

    fn crowd(&self, connections: u16) -> Crowd {
        let plan = CrowdPlan {
            targets: vec![self.target()],
            connections,
            source_ports: SourcePorts::Any,
            opening: Duration::from_millis(100),
            pause: Duration::from_millis(20),
            up: 100,
            down: 200,
            timeout: Duration::from_secs(2),
            seed: 1,
        };
        Crowd::open(&self.alice, plan).unwrap()
    }
}

fn transfer_over_ipv4() {
    transfer(IpVersion::V4);
}

fn transfer_over_ipv6() {
    transfer(IpVersion::V6);
}

fn transfer(version: IpVersion) {
    let mut pair = pair_in(version);
    let target = pair.target();
    let transfer = Transfer {
        target,
        up: 3_000_000,
        down: 2_000_000,
        seed: 9,
        source_port: Some(40_000),
        timeout: Duration::from_secs(20),
    };
    let record = transfer.run(&pair.alice).unwrap().unwrap();
    let client = SocketAddr::new(pair.alice.address(), 40_000);
    assert_eq!(record.greeting.node, "bob");
    assert_eq!(record.greeting.peer, client);
    assert_eq!(record.greeting.local, target);
    let record = pair.server.record();
    assert_eq!(record.sightings.len(), 1);
    assert_eq!(record.breakages, []);
}

fn crowd() {
    let mut pair = pair();
    let mut crowd = pair.crowd(50);
    crowd.wait_until_open(Duration::from_secs(5)).unwrap();
    assert_eq!(pair.server.record().open, 50);
    let everyone_talked = || {
        let quiet = crowd.records().iter().filter(|record| record.rounds < 3).count();
        if quiet == 0 { Ok(()) } else { Err(format!("{quiet} connections had fewer than 3 rounds")) }
    };
    wait_until("three rounds each", Duration::from_secs(5), everyone_talked).unwrap();
    let records = crowd.finish();
    assert!(records.iter().all(|record| record.state == ConnectionState::Finished), "{records:?}");
    assert_eq!(pair.server.record().breakages, []);
}

fn cut() {
    let pair = pair();
    pair.transfer(1000, Duration::from_secs(5)).unwrap();
    pair.bob.cut().unwrap();
    assert_eq!(pair.transfer(1000, Duration::from_millis(300)), Err(Breakage::TimedOut));
    pair.bob.mend().unwrap();
    pair.transfer(1000, Duration::from_secs(10)).unwrap();
}

fn partition() {
    let pair = pair();
    pair.transfer(1000, Duration::from_secs(5)).unwrap();
    pair.lab.partition(&[&[&pair.alice], &[&pair.bob]]).unwrap();
    assert_eq!(pair.transfer(1000, Duration::from_millis(300)), Err(Breakage::TimedOut));
    pair.lab.heal(&[&pair.alice, &pair.bob]).unwrap();
    pair.transfer(1000, Duration::from_secs(10)).unwrap();
}

fn capture() {
    let pair = pair();
    let tcp = Capture::start(&pair.bob, |frame| frame.bytes.get(23) == Some(&6)).unwrap();
    pair.transfer(10_000_000, Duration::from_secs(20)).unwrap();
    let captured = tcp.finish().unwrap();
    let pcap = pair.lab.directory().join("transfer.pcap");
    captured.write_pcap(&pcap).unwrap();
    assert_eq!(captured.lost, 0);
    let bytes = |outgoing| -> u64 {
        let frames = captured.frames.iter().filter(|frame| frame.outgoing == outgoing);
        frames.map(|frame| u64::from(frame.length)).sum()
    };
    assert!(bytes(true) > 10_000_000 && bytes(false) > 10_000_000);
    let source = |frame: &dpr_lab::capture::Frame| frame.bytes[26..30].to_vec();
    assert!(
        captured
            .frames
            .iter()
            .all(|frame| (source(frame) == pair.bob.ipv4().unwrap().octets()) == frame.outgoing)
    );
    assert!(std::fs::metadata(&pcap).unwrap().len() > 1000);
}

fn forge() {
    let pair = pair();
    let mut capture = Capture::start(&pair.bob, |frame| frame.bytes.get(23) == Some(&253)).unwrap();
    // Protocol 253 is for experiments (RFC 3692).
    let packet =
        ipv4(pair.alice.ipv4().unwrap(), pair.bob.ipv4().unwrap(), 253, 1, b"nobody honest sends this");
    let frame = ethernet_ipv4(pair.alice.mac(), pair.bob.mac(), &packet);
    FrameSender::open(&pair.alice, dpr_lab::INTERFACE).unwrap().send(&frame).unwrap();
    wait_until("the frame", Duration::from_secs(2), || match capture.frames() {
        [seen] if seen.bytes == frame && !seen.outgoing => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
}

fn process() {
    let pair = pair();
    let mut command = Command::new("sleep");
    command.arg("100");
    let sleeper = pair.alice.spawn(command).unwrap();
    let id = sleeper.id();
    let inside = pair.alice.exec(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert_eq!(std::fs::read_link(format!("/proc/{id}/ns/net")).unwrap(), inside);
    drop(sleeper);
    assert!(!PathBuf::from(format!("/proc/{id}")).exists());
}

fn orphan() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut parent = command.env(ORPHANER, "1").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let stat = PathBuf::from(format!("/proc/{}/stat", line.trim()));
    assert!(stat.exists());
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_until("the orphan's death", Duration::from_secs(5), || match std::fs::read_to_string(&stat) {
        // A zombie is dead; who reaps it depends on the system.
        Ok(text) if !text.contains(") Z ") => Err(text),
        _ => Ok(()),
    })
    .unwrap();
}

fn leave_an_orphan() -> ! {
    let lab = Lab::new().unwrap();
    std::fs::remove_dir_all(lab.directory()).unwrap();
    let machine = lab.client(1).unwrap();
    let mut command = Command::new("sleep");
    command.arg("100").stdout(Stdio::null());
    let sleeper = machine.spawn(command).unwrap();
    println!("{}", sleeper.id());
    loop {
        std::thread::park();
    }
}

/// Who is not root of the machine could not mount anything outside.
fn mounts() {
    let namespace_of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).unwrap();
    if dpr_host::is_initial_user_namespace().unwrap() {
        assert_ne!(namespace_of("self"), namespace_of(&std::os::unix::process::parent_id().to_string()));
    }
}

fn host_state() {
    let pair = pair();
    let before = HostState::of(&pair.alice).unwrap();
    assert_eq!(before.changes(&HostState::of(&pair.alice).unwrap()), Vec::<String>::new());
    let forward = "/proc/sys/net/ipv4/ip_forward";
    pair.alice.exec(|| std::fs::write(forward, "1").unwrap()).unwrap();
    let changes = before.changes(&HostState::of(&pair.alice).unwrap());
    assert!(changes.iter().any(|change| change == &format!("+ sysctl {forward} = 1")), "{changes:?}");
}

fn dropped() {
    let pair = pair();
    let directory = pair.lab.directory().to_owned();
    assert!(directory.exists());
    drop(pair);
    assert!(!directory.exists());
    self::pair().transfer(1000, Duration::from_secs(5)).unwrap();
}

fn server_closes() {
    let mut pair = pair();
    let mut crowd = pair.crowd(3);
    crowd.wait_until_open(Duration::from_secs(5)).unwrap();
    let began = Instant::now();
    pair.server = PairedServer::start(&pair.alice, "another", PORT).unwrap();
    wait_until("breakage", Duration::from_secs(5), || {
        let broken = crowd.records().iter().filter(|record| record.breakage().is_some()).count();
        if broken == 3 { Ok(()) } else { Err(format!("{broken} broken")) }
    })
    .unwrap();
    let in_time = |record: &dpr_lab::paired::ConnectionRecord| match record.state {
        ConnectionState::Broken { at, .. } => at > began,
        _ => false,
    };
    assert!(crowd.finish().iter().all(in_time));
}

fn http_load() {
    let lab = Lab::new().unwrap();
    let (alice, bob) = (lab.client(1).unwrap(), lab.client(2).unwrap());
    let target = SocketAddr::new(bob.address(), 80);
    let listener = bob.exec(move || TcpListener::bind(target).unwrap()).unwrap();
    std::thread::spawn(move || answer_whoami(&listener));
    let plan = LoadPlan {
        targets: Targets::Fixed(vec![target]),
        concurrency: 4,
        requests_per_connection: 1000,
        think: Duration::from_millis(20),
        rest: Duration::ZERO,
        duration: Duration::from_secs(1),
        timeout: Duration::from_millis(400),
    };
    let load = HttpLoad::start(&alice, plan).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    bob.cut().unwrap();
    let kill = Kill { node: "bob".to_owned(), address: bob.address(), at: Instant::now() };
    let records = load.wait();

    let tally = Tally::of(&records, std::slice::from_ref(&kill));
    assert!(tally.served_by_node["bob"] >= 20, "{tally}");
    // The first failure of each worker was on a connection of the dead server, the later ones were begun after its death.
    assert_eq!(tally.excused, 4, "{tally}");
    assert!(tally.unexcused() >= 4, "{tally}");
    let stranger = Kill { node: "carol".to_owned(), address: alice.address(), ..kill };
    assert_eq!(Tally::of(&records, &[stranger]).excused, 0);
}

/// Answers every request on every connection, each connection on a thread of its own.
fn answer_whoami(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            let reader = BufReader::new(stream.try_clone().unwrap());
            for line in reader.lines().map_while(Result::ok) {
                if line.is_empty() {
                    let body = r#"{"node":"n1","name":"bob","director":"n1","service":"s","client":"c"}"#;
                    let length = body.len();
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            }
        });
    }
}
