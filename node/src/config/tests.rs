//! Files in, configurations or mistakes out.

use super::schema::{KeyDoc, Presence};
use super::*;
use dpr_model::Ingress;

const SMALLEST: &str = "[node]\naddress = \"192.0.2.11\"\n[[service]]\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    let defaults = Defaults { host_name: "web1".to_owned(), processors: 4 };
    Config::parse(Path::new("/etc/dpr/dpr.toml"), text, &defaults)
}

/// The problems of a file that must not be a configuration, with line and column.
fn problems(text: &str) -> Vec<String> {
    match parse(text) {
        Err(ConfigError::Wrong(mistakes)) => {
            mistakes.findings.into_iter().map(|finding| finding.problem).collect()
        }
        other => panic!("expected mistakes, got {other:?}"),
    }
}

fn message(text: &str) -> String {
    parse(text).expect_err("a file with a mistake").to_string()
}

#[test]
fn the_smallest_file_is_a_whole_configuration() {
    let config = parse(SMALLEST).unwrap();

    assert_eq!(config.node.id, NodeId(0xc000_020b));
    assert_eq!(config.node.name, "web1");
    assert_eq!(config.node.capacity.get(), 1024);
    assert_eq!(config.services.len(), 1);
    assert_eq!(config.services[0].address, IpAddr::from([192, 0, 2, 11]));
    assert_eq!(config.services[0].port, 80);
    assert_eq!(config.delivery_ranges, DeliveryRanges::default());
    assert_eq!(config.nat_ports, None, "no service translates");
    assert_eq!(config.gossip.port, 7777);
    assert_eq!(config.balance.maxload, LoadPermille(700));
    assert_eq!(config.conntrack.half_open_capacity, 65_536);
    assert_eq!(config.server, Server::Page);
    assert_eq!(config.control_socket, Path::new("/run/dpr/control.sock"));
}

#[test]
fn every_default_is_a_value_of_its_key() {
    let all: Vec<KeyDoc> = keys::TABLES.iter().flat_map(|table| table.keys.iter().copied()).collect();
    let with_constant = all.iter().filter(|key| matches!(key.presence, Presence::Default(_))).count();

    assert!(with_constant > 15, "the smallest file above read {with_constant} defaults");
    for key in all {
        assert!(!key.doc.is_empty(), "{} is documented", key.key);
    }
}

#[test]
fn a_file_with_everything_means_what_it_says() {
    let text = r#"
        [node]
        address = "192.0.2.11"
        id = 7
        name = "a"
        weight = 50
        capacity = 100
        interface = "eth1"
        [[service]]
        [[service]]
        address = "192.0.2.99"
        port = 8080
        [gossip]
        groups = []
        peers = ["192.0.2.11", "192.0.2.12", "192.0.2.13:7000"]
        interval-ms = 200
        key-file = "keys"
        [balance]
        policy = "stateless"
        maxload = 0
        metrics = { connections = 3, cpu = 0 }
        [conntrack]
        capacity = 2048
        [http]
        root = "www"
        [dataplane]
        kind = "userspace"
        [control]
        socket = "/tmp/dpr.sock"
        [log]
        level = "info,dpr::http=debug"
    "#;

    let config = parse(text).unwrap();

    assert_eq!(config.node.interface.as_deref(), Some("eth1"));
    assert_eq!(config.services[1].address, IpAddr::from([192, 0, 2, 99]));
    let peers: Vec<String> = config.gossip.peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["192.0.2.12:7777", "192.0.2.13:7000"], "the node itself is skipped");
    assert_eq!(config.gossip.key_file.as_deref(), Some(Path::new("/etc/dpr/keys")));
    assert_eq!(config.balance.metrics, Some(BTreeMap::from([(Metric::Connections, 3), (Metric::Cpu, 0)])));
    assert_eq!(config.conntrack.half_open_capacity, 2048, "the default does not exceed the table");
    assert_eq!(config.server, Server::Files("/etc/dpr/www".into()));
    assert_eq!(config.dataplane, DataplaneKind::Userspace);
}

#[test]
fn an_unknown_key_is_shown_with_its_place_and_the_nearest_key() {
    let shown = message("[node]\naddress = \"192.0.2.11\"\nwieght = 10\n[[service]]\n");

    let expected = "there is no key `wieght` in [node]\n \
                    --> /etc/dpr/dpr.toml:3:1\n  \
                    |\n\
                    3 | wieght = 10\n  \
                    | ^^^^^^\n  \
                    = write `weight`";
    assert_eq!(shown, expected);
}

#[test]
fn every_mistake_is_reported_at_once_in_the_order_of_the_file() {
    let text =
        "[nod]\n[node]\nweight = 70000\n[[service]]\nport = 0\nprotocol = \"sctp\"\n[balance]\npolicy = 3\n";

    let found = problems(text);

    assert_eq!(
        found,
        [
            "there is no key `nod` in the file",
            "[node] has no `address`",
            "[node] `weight`: 70000 is out of range",
            "[[service]] `port`: 0 is out of range",
            "[[service]] `protocol`: \"sctp\" is not one of the words that mean something here",
            "[balance] `policy`: no integer belongs here",
        ]
    );
}

#[test]
fn a_data_plane_is_named_by_a_word_that_there_is() {
    let text = |word| format!("{SMALLEST}[dataplane]\nkind = \"{word}\"\n");
    assert_eq!(parse(&text("xdp")).unwrap().dataplane, DataplaneKind::Xdp);
    assert_eq!(
        problems(&text("dpdk")),
        ["[dataplane] `kind`: \"dpdk\" is not one of the words that mean something here"]
    );
}

#[test]
fn a_node_may_speak_ipv6() {
    let text = "[node]\naddress = \"2001:db8::1:b\"\n[[service]]\n[[service]]\naddress = \"192.0.2.99\"\n\
                [gossip]\npeers = [\"2001:db8::1:c\", \"[2001:db8::1:d]:7000\"]\n";

    let config = parse(text).unwrap();

    assert_eq!(config.node.id, NodeId(0x0001_000b));
    assert_eq!(config.services[1].address, IpAddr::from([192, 0, 2, 99]));
    let shown = |sockets: &[SocketAddr]| sockets.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&config.gossip.groups), ["[ff15::7777]:7777"]);
    assert_eq!(shown(&config.gossip.peers), ["[2001:db8::1:c]:7777", "[2001:db8::1:d]:7000"]);
}

#[test]
fn methods_and_servers_without_dpr_are_read() {
    let text = "[node]\naddress = \"192.0.2.11\"\n[[service]]\nmethod = \"nat\"\n\
                [[service.server]]\naddress = \"192.0.2.50:8080\"\n\
                [[service.server]]\naddress = \"192.0.2.51:80\"\nweight = 50\ncapacity = 9\n\
                [[service]]\nport = 53\nprotocol = \"udp\"\nmethod = \"gue\"\n\
                [[service]]\naddress = \"192.0.2.99\"\nmethod = \"dr\"\ndelivery = \"alias\"\n\
                [nat]\nports = \"50000-50999\"\n";

    let config = parse(text).unwrap();

    let methods: Vec<&str> = config.services.iter().map(|service| service.method.label()).collect();
    assert_eq!(methods, ["nat", "gue", "dr"]);
    let servers = &config.services[0].servers;
    assert_eq!(servers[0].socket.to_string(), "192.0.2.50:8080");
    assert_eq!((servers[1].weight, servers[1].capacity.map(Capacity::get)), (Weight(50), Some(9)));
    assert_eq!(config.services[1].protocol, Protocol::Udp);
    assert_eq!(config.services[2].delivery, DeliveryMode::Alias);
    assert_eq!(config.nat_ports, PortRange::new(50_000, 50_999));
    assert_eq!(config.service_ports(Protocol::Tcp), [80]);

    let changed = text.replace("weight = 50", "weight = 60");
    let changes = config.changes(&parse(&changed).unwrap());
    assert_eq!(
        changes.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(),
        ["[[service.server]] weight"]
    );
}

#[test]
fn a_wrong_server_is_shown_where_it_stands() {
    let shown =
        message(&format!("{SMALLEST}method = \"nat\"\n[[service.server]]\naddress = \"192.0.2.50\"\n"));

    assert!(shown.contains("dpr.toml:6:"), "{shown}");
    assert!(shown.contains("\"192.0.2.50\" has no port"), "{shown}");
}

#[test]
fn addresses_that_no_host_has_are_refused() {
    for address in ["224.0.0.1", "127.0.0.1", "0.0.0.0", "255.255.255.255", "240.0.0.1", "example.org"] {
        let text = format!("{SMALLEST}address = \"{address}\"\n");
        assert_eq!(problems(&text).len(), 1, "{address}");
    }
}

#[test]
fn combinations_that_cannot_be_are_refused() {
    let cases = [
        ("[http]\nroot = \"/srv\"\nexternal = true\n", "which `external = true` switches off"),
        ("[[service]]\n", "tcp 192.0.2.11:80 is a service already"),
        ("[[service]]\naddress = \"169.254.65.1\"\n", "a range of delivery addresses"),
        (
            "[[service]]\nport = 81\ndelivery-address = \"10.9.0.0/24\"\n",
            "cannot both be this node's delivery range",
        ),
        ("[gossip]\ngroups = []\n", "nodes cannot find each other"),
        ("delivery = \"alias\"\n", "is the node address"),
        (
            "[[service]]\nport = 81\ndelivery = \"alias\"\naddress = \"192.0.2.99\"\n[[service]]\naddress = \"192.0.2.99\"\n",
            "in two ways",
        ),
        ("address = \"2001:db8::1\"\nmethod = \"nat\"\n", "translation keeps the IP version"),
        ("method = \"nat\"\nnat = \"half\"\n", "is for servers without dpr"),
        ("[[service.server]]\naddress = \"192.0.2.50:80\"\n", "only translated packets"),
        (
            "method = \"nat\"\n[[service.server]]\naddress = \"[2001:db8::5]:80\"\n",
            "is of another IP version than",
        ),
        ("method = \"nat\"\n[[service.server]]\naddress = \"192.0.2.11:81\"\n", "is the service itself"),
        (
            "method = \"nat\"\n[[service.server]]\naddress = \"192.0.2.50:80\"\n[[service.server]]\naddress = \"192.0.2.50:80\"\n",
            "cannot be told apart",
        ),
        (
            "method = \"nat\"\n[[service.server]]\naddress = \"169.254.64.5:80\"\n",
            "a range of delivery addresses",
        ),
        ("[nat]\nports = \"5-9\"\n", "is no such range"),
        ("[gossip]\npeers = [\"2001:db8::1\"]\n", "is of another IP version than the node address"),
        ("[gossip]\ngroups = [\"192.0.2.1:7777\"]\n", "is no multicast address"),
        ("[gossip]\ngroups = [\"239.1.1.1:1\", \"239.1.1.2:2\"]\n", "listens on one port"),
        ("[gossip]\npeers = [\"192.0.2.1\", \"192.0.2.1:7777\"]\n", "is here already"),
        ("[conntrack]\ncapacity = 1024\nhalf-open-capacity = 4096\n", "more half-open connections"),
        ("[balance]\nmetrics = { cpu = 0 }\n", "every node would look idle"),
        ("[balance]\nmetrics = { cpus = 1 }\n", "there is no metric `cpus`"),
    ];
    for (addition, problem) in cases {
        let found = problems(&format!("{SMALLEST}{addition}"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(problem), "{found:?}");
    }
}

#[test]
fn a_file_without_a_service_is_refused() {
    assert_eq!(problems("[node]\naddress = \"192.0.2.11\"\n").len(), 1);
    assert!(message("[node]\naddress = \"192.0.2.11\"\n[service]\nport = 80\n").contains("two brackets"));
}

#[test]
fn broken_syntax_has_a_place_too() {
    let shown = message("[node]\naddress = 192.0.2.11\n[[service]]\n");

    assert!(shown.contains("/etc/dpr/dpr.toml:2:"), "{shown}");
}

#[test]
fn no_text_panics() {
    for text in
        ["", "\0", "=", "[[[", "node = 3", "service = 4", "service = [1]", "[node]\naddress = {}", "\u{feff}"]
    {
        assert!(parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn changes_name_their_keys_and_when_they_count() {
    let old = parse(SMALLEST).unwrap();
    let text =
        "[balance]\nmaxload = 500\n[node]\naddress = \"192.0.2.11\"\nname = \"b\"\n[[service]]\nport = 81\n";

    let changes = old.changes(&parse(text).unwrap());

    let seen: Vec<_> = changes.iter().map(|change| (change.key.as_str(), change.takes_effect)).collect();
    assert_eq!(
        seen,
        [
            ("[node] name", TakesEffect::OnRestart),
            ("[[service]] port", TakesEffect::OnRestart),
            ("[balance] maxload", TakesEffect::OnReload),
        ]
    );
    assert!(old.changes(&parse(&format!("# moved\n\n{SMALLEST}")).unwrap()).is_empty());
}

const VOTERS: &str = "[ownership]\nvoters = [\"192.0.2.11\", \"7\"]\n";

#[test]
fn a_node_that_agrees_with_others_lets_them_stand_in_for_it() {
    let alone = parse(SMALLEST).unwrap();
    let config = parse(&format!("{SMALLEST}{VOTERS}")).unwrap();
    let refusing = parse(&format!("{SMALLEST}takeover = false\n{VOTERS}")).unwrap();

    assert_eq!(alone.services[0].sharing, Sharing::Home);
    assert_eq!(config.services[0].sharing, Sharing::Takeover);
    assert_eq!(refusing.services[0].sharing, Sharing::Home);
    let ownership = config.ownership.unwrap();
    assert_eq!(ownership.voters, [NodeId(0xc000_020b), NodeId(7)]);
    assert_eq!(ownership.slots.get(), 4096);
}

#[test]
fn a_shared_address_says_how_its_packets_come_in() {
    let shared = |keys: &str| {
        let text = format!("{SMALLEST}address = \"192.0.2.99\"\nshared = true\n{keys}\n{VOTERS}");
        parse(&text).unwrap().services.remove(0)
    };

    assert_eq!(shared("").sharing, Sharing::Shared(Ingress::ArpOwner));
    let by_group = shared("ingress = \"shared-mac\"\npartition-by = \"source-address\"");
    assert_eq!(by_group.shared_mac, Some(MacAddress([0x01, 0, 0x5e, 0, 2, 99])));
    assert_eq!(by_group.partition_by, PartitionBy::SourceAddress);
    let configured = shared("ingress = \"shared-mac\"\nshared-mac = \"02:00:5e:00:00:63\"");
    assert_eq!(configured.shared_mac, Some(MacAddress([2, 0, 0x5e, 0, 0, 0x63])));
}

#[test]
fn what_a_shared_address_cannot_have_is_refused() {
    let of = |service: &str, rest: &str| problems(&format!("{SMALLEST}{service}\n{rest}")).join("; ");
    let shared = "address = \"192.0.2.99\"\nshared = true";

    assert!(of(shared, "").contains("have to agree"));
    assert!(of("shared = true", VOTERS).contains("this node's alone"));
    assert!(of(&format!("{shared}\nmethod = \"dr\""), VOTERS).contains("two hops"));
    assert!(of(&format!("{shared}\ndelivery = \"alias\""), VOTERS).contains("alias"));
    assert!(of(&format!("{shared}\nshared-mac = \"02:00:5e:00:00:63\""), VOTERS).contains("of that name"));
    assert!(of("ingress = \"routed\"", VOTERS).contains("is for shared addresses"));
    let twice = format!("{shared}\n[[service]]\naddress = \"192.0.2.99\"\nport = 81");
    assert!(of(&twice, VOTERS).contains("owned in two ways"));
    assert!(of("", "[ownership]\nquorum = \"none\"\n").contains("without voters"));
    assert!(of("", "[ownership]\nping = [\"192.0.2.1\"]\n").contains("without voters"));
    assert!(of("", "[ownership]\nvoters = []\n").contains("nobody founds"));
    let witness = "[ownership]\nvoters = [\"192.0.2.11\"]\nquorum = \"witness:192.0.2.1\"\n";
    assert!(of("", witness).contains("for two voters"));
    let nobody = "[ownership]\nvoters = [\"192.0.2.11\", \"7\"]\nquorum = \"witness:\"\n";
    assert!(message(&format!("{SMALLEST}\n{nobody}")).contains("witness:192.0.2.1"));
    assert!(of("", "[ownership]\nvoters = [\"192.0.2.11\"]\nslots = 100\n").contains("100 is none"));
}

#[test]
fn every_example_is_a_valid_configuration() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let folders = std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = folders.map(|folder| folder.join("dpr.toml")).filter(|file| file.exists()).collect();
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        Config::parse(&file, &text, &Defaults { host_name: "host".to_owned(), processors: 4 }).unwrap();
    }
}

#[test]
fn no_text_that_fuzzing_has_found_does_harm() {
    let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/config"));
    let mut replayed = 0;
    for entry in corpus.read_dir().unwrap() {
        // The fuzz target sees no other inputs.
        let Ok(text) = std::fs::read_to_string(entry.unwrap().path()) else { continue };
        rules::check(&text);
        replayed += 1;
    }
    assert!(replayed >= 20, "only {replayed} inputs in {}", corpus.display());
}
