//! The cluster's DNS as other programs see it: dig, kdig, unbound with its cache, glibc and curl.

use crate::programs;
use dpr_lab::{DnsPlan, Machine, Node, NodePlan, OwnershipPlan, Process, wait_until};
use dpr_tests::binary;
use dpr_tests::stage::{PATIENCE, Stage};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Of ordinary answers, seconds.
const TTL_S: u32 = 2;

/// With takeover: names of dead nodes stay, and lead to those who stand in for them.
pub(crate) fn takeover() {
    let dns = DnsPlan { ttl_s: TTL_S, keep_dead: true, ..DnsPlan::default() };
    let ownership = Some(OwnershipPlan::majority_of(3));
    let mut stage = Stage::start(3, 1, NodePlan { dns: Some(dns), ownership, ..NodePlan::default() });
    let _unbound = unbound(&stage);
    wait_for_three_addresses(&stage.clients[0], "@127.0.0.1");
    wait_until("an address to be owned", PATIENCE, || {
        let owned = stage.nodes[0].status().ok().and_then(|status| status.ownership);
        owned.filter(|owned| owned.settled && owned.members.len() == 3).map(drop).ok_or_else(String::new)
    })
    .unwrap();

    stage.nodes[2].node_kill().unwrap();
    let fetch = "curl -q -s -o /dev/null --connect-timeout 3 --retry 0 -w '%{exitcode} %{remote_ip}\\n' \
                 http://www.cluster.test/.dpr/whoami";
    let after = with_resolver(&stage, &format!("for i in $(seq 60); do {fetch}; sleep 0.1; done"));
    let failed = after.lines().filter(|line| !line.starts_with("0 ")).count();
    println!("of 60 requests after a node's death, with takeover, {failed} failed");
    assert_eq!(failed, 0, "{after}");
    // By then the cache has forgotten what was said before the death.
    let late = after.lines().skip(40).any(|line| line == "0 10.77.0.13");
    assert!(late, "the dead node's address is named still, and answers: {after}");
}

fn stage() -> Stage {
    // Nobody in this lab, but clients that resolvers may tell of.
    let near = [("198.51.100.0/24".to_owned(), "10.77.0.12/32".to_owned())].into();
    let dns = DnsPlan { ttl_s: TTL_S, near, ..DnsPlan::default() };
    Stage::start(3, 1, NodePlan { dns: Some(dns), ..NodePlan::default() })
}

fn said(machine: &Machine, program: &str, arguments: &[&str]) -> String {
    let mut command = programs::command(program);
    command.args(arguments);
    let output = machine.run(command).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn wait_for_three_addresses(client: &Machine, server: &str) {
    let named = || match said(client, "dig", &[server, "+short", "www.cluster.test"]).lines().count() {
        3 => Ok(()),
        count => Err(format!("{count} addresses")),
    };
    wait_until("all nodes to be named", PATIENCE, named).unwrap();
}

pub(crate) fn diggers() {
    let stage = stage();
    let client = &stage.clients[0];
    wait_for_three_addresses(client, "@10.77.0.11");

    let dig = |arguments: &[&str]| said(client, "dig", &[&["@10.77.0.11"], arguments].concat());
    let plain = dig(&["www.cluster.test"]);
    assert!(plain.contains("flags: qr aa rd;") && plain.contains("status: NOERROR"), "{plain}");
    assert!(plain.contains("recursion requested but not available"), "{plain}");
    let whole = dig(&["+tcp", "+nsid", "www.cluster.test"]);
    assert!(whole.contains("NSID: 6e 31 (\"n1\")") && whole.contains("(good)"), "{whole}");
    assert!(dig(&["+tcp", "cluster.test", "ANY"]).contains("HINFO\t\"RFC8482\""));
    assert!(dig(&["cluster.test", "AXFR"]).contains("Transfer failed"));
    assert!(dig(&["nothing.cluster.test"]).contains("status: NXDOMAIN"));
    assert!(dig(&["+edns=1", "+noednsnegotiation", "www.cluster.test"]).contains("status: BADVERS"));
    assert_eq!(dig(&["+short", "cluster.test", "NS"]).lines().count(), 2);
    assert!(dig(&["www.example.net"]).contains("status: REFUSED"));

    // A client that has shown that its address is its own gets the long answer by UDP.
    let cookie = whole.lines().find_map(|line| line.strip_prefix("; COOKIE: ")?.strip_suffix(" (good)"));
    let cookie = format!("+cookie={}", cookie.unwrap());
    for (option, flags) in [("+nocookie", "flags: qr aa tc rd;"), (&*cookie, "flags: qr aa rd;")] {
        let short = dig(&["+notcp", "+ignore", option, "cluster.test", "NS"]);
        assert!(short.contains(flags), "{option}: {short}");
    }

    let kdig = |arguments: &[&str]| said(client, "kdig", &[&["@10.77.0.12"], arguments].concat());
    let pipelined =
        kdig(&["+tcp", "+keepopen", "www.cluster.test", "cluster.test", "NS", "www.cluster.test"]);
    assert_eq!(pipelined.matches("status: NOERROR").count(), 3, "{pipelined}");
    let located = kdig(&["+tcp", "+subnet=198.51.100.0/25", "www.cluster.test"]);
    assert!(located.contains("CLIENT-SUBNET: 198.51.100.0/25/24"), "{located}");
    assert!(located.contains("A\t10.77.0.12"), "{located}");
    assert!(!located.contains("10.77.0.11") && !located.contains("10.77.0.13"), "{located}");
}

/// A resolver with a cache on the client, which asks the nodes.
fn unbound(stage: &Stage) -> Process {
    let directory = stage.lab.directory();
    let file = directory.join("unbound.conf");
    let text = format!(
        "server:\n interface: 127.0.0.1\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n directory: \"{0}\"\n \
         pidfile: \"\"\n use-syslog: no\n do-ip6: no\n do-not-query-localhost: no\n module-config: \"iterator\"\n \
         rrset-roundrobin: yes\n local-zone: \"test.\" nodefault\nremote-control:\n control-enable: no\n\
         stub-zone:\n name: cluster.test\n stub-addr: 10.77.0.11\n stub-addr: 10.77.0.12\n",
        directory.display()
    );
    fs::write(&file, text).unwrap();
    let mut command = programs::command("unbound");
    command.args(["-d", "-c"]).arg(&file);
    stage.clients[0].spawn(command).unwrap()
}

pub(crate) fn cache() {
    let stage = stage();
    let client = &stage.clients[0];
    let _unbound = unbound(&stage);
    wait_for_three_addresses(client, "@127.0.0.1");

    let queries = || {
        let count =
            |node: &Node| node.status().unwrap().dns.map_or(0, |dns| dns.queries_udp + dns.queries_tcp);
        stage.nodes.iter().map(count).sum::<u64>()
    };
    let (before, began) = (queries(), Instant::now());
    let mut asked = 0;
    while began.elapsed() < Duration::from_secs(6) {
        assert_eq!(said(client, "dig", &["@127.0.0.1", "+short", "www.cluster.test"]).lines().count(), 3);
        asked += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    let passed_on = queries() - before;
    assert!(asked > 40 && (2..=16).contains(&passed_on), "{passed_on} of {asked} reached the nodes");
}

/// Runs a shell command on the client, where every program resolves by `127.0.0.1`.
fn with_resolver(stage: &Stage, shell: &str) -> String {
    resolving_by(stage, &stage.clients[0], "127.0.0.1", shell)
}

/// Runs a shell command on a machine, where every program resolves by `server`.
fn resolving_by(stage: &Stage, machine: &Machine, server: &str, shell: &str) -> String {
    let file = stage.lab.directory().join("resolv.conf");
    fs::write(&file, format!("nameserver {server}\noptions timeout:1\n")).unwrap();
    let mut command = Command::new("unshare");
    let script = format!("mount --bind {} /etc/resolv.conf && {shell}", file.display());
    command.args(["--mount", "sh", "-c", &script]);
    let output = machine.run(command).unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn glibc_and_curl() {
    let mut stage = stage();
    let _unbound = unbound(&stage);
    wait_for_three_addresses(&stage.clients[0], "@127.0.0.1");

    let addresses = with_resolver(&stage, "getent ahostsv4 www.cluster.test");
    let addresses: BTreeSet<&str> = addresses.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(addresses.into_iter().collect::<Vec<_>>(), ["10.77.0.11", "10.77.0.12", "10.77.0.13"]);

    let fetch = "curl -q -s -o /dev/null --connect-timeout 6 -w '%{exitcode} %{remote_ip}\\n' \
                 http://www.cluster.test/.dpr/whoami";
    let forty = format!("for i in $(seq 40); do {fetch}; done");
    let served: BTreeSet<String> = with_resolver(&stage, &forty).lines().map(str::to_owned).collect();
    let all = ["0 10.77.0.11", "0 10.77.0.12", "0 10.77.0.13"].map(str::to_owned);
    assert_eq!(served, BTreeSet::from(all), "curl and glibc spread over all nodes");

    // Half of them begin while the cache still names the dead node: curl goes on to the next address.
    stage.nodes[2].node_kill().unwrap();
    let after = with_resolver(&stage, &format!("for i in $(seq 20); do {fetch}; sleep 0.2; done"));
    let failed = after.lines().filter(|line| !line.starts_with("0 ")).count();
    println!("of 20 requests after a node's death, without takeover, {failed} failed");
    assert_eq!(failed, 0, "{after}");
    assert!(!after.contains("10.77.0.13"), "{after}");
    let named = said(&stage.clients[0], "dig", &["@127.0.0.1", "+short", "www.cluster.test"]);
    assert!(named.lines().count() == 2 && !named.contains("10.77.0.13"), "a dead node is named: {named}");
}

/// A server of the zone above, with what is written about ours; the client's resolver at the same time.
fn parent(stage: &Stage, delegation: &str) -> Process {
    let directory = stage.lab.directory().join("parent");
    fs::create_dir_all(&directory).unwrap();
    let address = stage.clients[0].address();
    let zone = format!("$ORIGIN test.\n@ 60 SOA ns h 1 60 60 600 60\n@ NS ns\nns A {address}\n{delegation}");
    fs::write(directory.join("zone"), zone).unwrap();
    let place = directory.display();
    let text = format!(
        "server:\n  rundir: {place}\n  listen: {address}@53\ndatabase:\n  storage: {place}\nlog:\n  - target: stderr\n    any: \
         error\nzone:\n  - domain: test\n    \
         storage: {place}\n    file: zone\n    zonefile-sync: -1\n    journal-content: none\n"
    );
    let file = directory.join("knot.conf");
    fs::write(&file, text).unwrap();
    let mut command = programs::command("knotd");
    command.arg("-c").arg(&file);
    let process = stage.clients[0].spawn(command).unwrap();
    wait_until("the zone above to be served", PATIENCE, || {
        let said = said(&stage.clients[0], "dig", &[&format!("@{address}"), "+short", "test.", "NS"]);
        if said.is_empty() { Err(said) } else { Ok(()) }
    })
    .unwrap();
    process
}

/// What `dpr check` on the first node says about the parent zone.
fn check_delegation(stage: &Stage) -> String {
    let configuration = stage.nodes[0].configuration();
    let check = format!("{} check --config {}", binary::path().display(), configuration.display());
    let resolver = stage.clients[0].address().to_string();
    resolving_by(stage, stage.nodes[0].machine(), &resolver, &format!("{check} || true"))
}

pub(crate) fn delegation() {
    let stage = stage();
    let printed = check_delegation(&stage);
    let lines = printed.lines().map(str::trim);
    let records: Vec<&str> = lines.filter(|line| line.contains("cluster.test. ")).collect();
    assert_eq!(records.len(), 4, "two name servers with an address each: {printed}");
    assert!(printed.contains("the delegation could not be checked"), "nobody answers yet: {printed}");

    // What was printed is what the parent needs, to the letter.
    let whole = parent(&stage, &format!("{}\n", records.join("\n")));
    let good = check_delegation(&stage);
    assert!(good.contains("the parent zone delegates cluster.test"), "{good}");
    drop(whole);

    // So many that the referral comes by TCP only.
    let more: String =
        (10..30).map(|nth| format!("cluster NS a-rather-long-name-{nth}.example.\n")).collect();
    let wrong = "cluster NS ns1.cluster\ncluster NS old\nns1.cluster A 192.0.2.99\nold A 192.0.2.98\n";
    let _wrong = parent(&stage, &format!("{wrong}{more}"));
    let bad = check_delegation(&stage);
    let expected = [
        "it lacks ns2.cluster.test",
        "it names old.test",
        "it names a-rather-long-name-29.example",
        "it says that ns1.cluster.test is 192.0.2.99",
    ];
    for said in expected {
        assert!(bad.contains(said), "{said}: {bad}");
    }
}
