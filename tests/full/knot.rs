//! Knot DNS behind `dpr`: a real server of datagrams, on nodes and on a host without `dpr`.

use crate::programs;
use dpr_lab::{IpVersion, Lab, Machine, NodePlan, Process, Server, wait_until};
use dpr_model::Protocol;
use dpr_tests::stage::{PATIENCE, Stage};
use std::fs;
use std::net::SocketAddr;

const PORT: u16 = 53;
const QUERIES: usize = 30;

/// A running knotd on port 53 of every address; it says its machine's name. Dropping it kills it.
struct Knot {
    _process: Process,
}

impl Knot {
    fn start(machine: &Machine, stage: &Stage) -> Self {
        let directory = stage.lab.directory().join(format!("knot-{}", machine.name()));
        fs::create_dir_all(&directory).unwrap();
        let zone = format!(
            "$ORIGIN example.test.\n@ 60 SOA ns hostmaster 1 60 60 600 60\n@ 60 NS ns\nns 60 A 192.0.2.1\n\
             name 60 TXT \"{}\"\n",
            machine.name()
        );
        fs::write(directory.join("zone"), zone).unwrap();
        let file = directory.join("knot.conf");
        let directory = directory.display();
        let text = format!(
            "server:\n    rundir: \"{directory}\"\n    listen: 0.0.0.0@{PORT}\ndatabase:\n    storage: \"{directory}\"\n\
             log:\n  - target: stderr\n    any: warning\nzone:\n  - domain: example.test\n    storage: \"{directory}\"\n    \
             file: \"zone\"\n    zonefile-sync: -1\n    journal-content: none\n"
        );
        fs::write(&file, text).unwrap();
        let mut command = programs::command("knotd");
        command.arg("-c").arg(&file);
        Self { _process: machine.spawn(command).unwrap() }
    }
}

fn plan() -> NodePlan {
    let server = Server::Other;
    NodePlan { protocol: Protocol::Udp, service_port: PORT, server, ..NodePlan::default() }
}

/// What a question by UDP from a new port is answered with; nothing if it is not answered at the first try.
fn ask(stage: &Stage) -> String {
    let mut command = programs::command("dig");
    let server = format!("@{}", stage.nodes[0].service().ip());
    command.args([&server, "+short", "+notcp", "+tries=1", "+timeout=2", "name.example.test", "TXT"]);
    let output = stage.clients[0].run(command).unwrap();
    String::from_utf8(output.stdout).unwrap().trim().trim_matches('"').to_owned()
}

fn assert_answered_by(stage: &Stage, name: &str) {
    let answers: Vec<String> = (0..QUERIES).map(|_| ask(stage)).collect();
    assert!(answers.iter().all(|answer| answer == name), "{name} has to answer: {answers:?}");
}

fn wait_until_seen(stage: &Stage) {
    wait_until("every server to be seen", PATIENCE, || {
        let statuses = stage.statuses();
        let up = statuses.iter().all(|status| status.services.iter().all(|service| service.healthy));
        if up { Ok(()) } else { Err(format!("{:?}", statuses[0].services)) }
    })
    .unwrap();
}

/// Directors forward questions, and answers come from the address that was asked.
pub(crate) fn on_nodes() {
    let stage = Stage::start(2, 1, plan());
    let _servers: Vec<Knot> = stage.nodes.iter().map(|node| Knot::start(node.machine(), &stage)).collect();
    wait_until_seen(&stage);

    stage.set_loads(&[900, 100]);
    assert_answered_by(&stage, "n2");
    stage.set_loads(&[100, 100]);
    assert_answered_by(&stage, "n1");
    let counters = &stage.statuses()[0].counters;
    assert!(counters.connections_forwarded >= QUERIES as u64, "{counters:?}");
}

/// By full NAT, a server on a host that knows nothing of `dpr`.
pub(crate) fn without_dpr() {
    let server = SocketAddr::new(Lab::client_address(2, IpVersion::V4), PORT);
    let plan = NodePlan { method: Some("nat".to_owned()), servers: vec![server], ..plan() };
    let stage = Stage::start(1, 2, plan);
    let _own = Knot::start(stage.nodes[0].machine(), &stage);
    let _server = Knot::start(&stage.clients[1], &stage);
    wait_until_seen(&stage);

    stage.set_loads(&[900]);
    assert_answered_by(&stage, stage.clients[1].name());
    let counters = &stage.statuses()[0].counters;
    assert!(counters.nat_replies >= QUERIES as u64, "{counters:?}");
}
