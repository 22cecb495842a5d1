use crate::fixture::{A_WHILE, SOON, WIRE, Wire};
use dpr_host::nft::{
    IngressChain, InvalidMatch, Lifetime, Match, NftError, Nftables, PayloadBase, Rule, Table, Verdict,
};
use dpr_host::{LinkIndex, MacAddress, Netlink};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};

crate::tests![
    tcp_to_the_service_is_dropped_and_nothing_else,
    tcp_with_ip_options_is_dropped_by_its_port_too,
    a_packet_socket_sees_what_the_kernel_does_not,
    a_set_of_services_is_dropped_by_one_rule,
    tunnel_packets_are_dropped_only_with_the_marker_and_for_a_service,
    an_icmp_error_about_a_service_is_matched_by_its_payload,
    ports_of_a_range_are_dropped_in_both_ip_versions,
    fragments_are_dropped_and_whole_datagrams_are_not,
    an_earlier_rule_can_accept,
    links_without_ethernet_headers_match_by_protocol,
    a_frame_with_a_vlan_tag_is_left_alone,
    a_table_is_replaced_as_a_whole_or_not_at_all,
    a_table_goes_with_the_socket_that_made_it,
    a_table_may_outlive_its_socket_and_is_deleted_once,
    a_refusal_names_the_step,
    a_rule_that_cannot_be_put_is_named,
];

const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 80);
const OTHER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 81);
const IMPOSSIBLE: &str = "a-name-that-is-too-long";
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SENDER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn table(rules: Vec<Rule>) -> Table {
    Table {
        name: "dpr".to_owned(),
        lifetime: Lifetime::Socket,
        chains: vec![IngressChain { interface: WIRE.to_owned(), priority: 0, rules }],
    }
}

fn filter(rules: Vec<Rule>) -> Nftables {
    let mut nft = Nftables::open().unwrap();
    nft.replace_table(&table(rules)).unwrap();
    nft
}

/// Whether a connection from beyond the wire comes about.
fn connects(wire: &Wire, to: SocketAddrV4, options: &[u8]) -> bool {
    wire.far
        .enter(|| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            set_ip_options(&client, options);
            match client.connect_timeout(&SockAddr::from(to), A_WHILE) {
                Ok(()) => true,
                Err(error) if error.kind() == ErrorKind::TimedOut => false,
                Err(error) => panic!("{to}: {error}"),
            }
        })
        .unwrap()
}

fn set_ip_options(socket: &Socket, options: &[u8]) {
    use std::os::fd::AsRawFd;
    // SAFETY: the pointer and the length are those of a slice that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_OPTIONS,
            options.as_ptr().cast(),
            options.len() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// The one rule for IPv4 services.
fn drop_tcp(services: impl IntoIterator<Item = SocketAddrV4>) -> Rule {
    let services = services.into_iter().map(SocketAddr::V4);
    Rule::drop_to_any(dpr_model::Protocol::Tcp, services).remove(0)
}

fn listeners() -> [TcpListener; 2] {
    [SERVICE, OTHER].map(|socket| TcpListener::bind(socket).unwrap())
}

fn tcp_to_the_service_is_dropped_and_nothing_else() {
    let wire = Wire::new();
    let _listeners = listeners();
    let udp = UdpSocket::bind(SERVICE).unwrap();
    udp.set_read_timeout(Some(SOON)).unwrap();
    assert!(connects(&wire, SERVICE, &[]));

    let mut nft = filter(vec![drop_tcp([SERVICE])]);

    assert!(!connects(&wire, SERVICE, &[]));
    assert!(connects(&wire, OTHER, &[]));
    wire.far.enter(|| UdpSocket::bind("10.0.0.2:0").unwrap().send_to(b"x", SERVICE).unwrap()).unwrap();
    assert_eq!(udp.recv(&mut [0; 8]).unwrap(), 1);
    assert!(nft.delete_table("dpr").unwrap());
    assert!(connects(&wire, SERVICE, &[]));
}

fn tcp_with_ip_options_is_dropped_by_its_port_too() {
    let wire = Wire::new();
    let _listeners = listeners();
    let frames = packet_socket();
    let _nft = filter(vec![drop_tcp([SERVICE])]);
    // Four "no operation" options (RFC 791 section 3.1) make the header one word longer.
    let options = [1, 1, 1, 1];

    assert!(!connects(&wire, SERVICE, &options));
    assert!(connects(&wire, OTHER, &options));

    let longer_headers = received(&frames).into_iter().filter(|frame| frame[14] == 0x46).count();
    assert!(longer_headers >= 2, "the options were not on the wire");
}

/// Sees every frame of the wire.
fn packet_socket() -> Socket {
    let all = i32::from(0x0003_u16.to_be());
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all))).unwrap();
    socket.set_read_timeout(Some(A_WHILE)).unwrap();
    socket
}

fn received(mut socket: &Socket) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = [0; 2048];
    while let Ok(length) = socket.read(&mut buffer) {
        frames.push(buffer[..length].to_vec());
    }
    frames
}

fn a_packet_socket_sees_what_the_kernel_does_not() {
    let wire = Wire::new();
    let _listeners = listeners();
    let frames = packet_socket();
    let _nft = filter(vec![drop_tcp([SERVICE])]);

    assert!(!connects(&wire, SERVICE, &[]));

    let is_syn_to_service = |frame: &Vec<u8>| {
        frame.len() > 48 && frame[36..38] == SERVICE.port().to_be_bytes() && frame[47] == 0x02
    };
    assert!(received(&frames).iter().any(is_syn_to_service));
}

fn a_set_of_services_is_dropped_by_one_rule() {
    let wire = Wire::new();
    let _listeners = listeners();
    // More than go into one message.
    let services: Vec<_> = (1000..4000).map(|port| SocketAddrV4::new(NODE, port)).chain([SERVICE]).collect();
    let last = TcpListener::bind(services[2999]).unwrap();

    let _nft = filter(vec![drop_tcp(services)]);

    assert!(!connects(&wire, SERVICE, &[]));
    assert!(!connects(&wire, SERVICE, &[1, 1, 1, 1]));
    assert!(connects(&wire, OTHER, &[]));
    let SocketAddr::V4(last) = last.local_addr().unwrap() else { unreachable!("bound to IPv4") };
    assert!(!connects(&wire, last, &[]));
}

/// Drops IP-in-IP to this node whose outer identification begins with 0xd, around packets to `service`.
fn drop_marked_tunnels(service: Ipv4Addr) -> Rule {
    let network = |offset, value: &[u8]| Match::payload(PayloadBase::Network, offset, value);
    Rule {
        matches: vec![
            Match::untagged_ethertype(0x0800),
            network(9, &[4]),
            network(16, &NODE.octets()),
            Match::masked_payload(PayloadBase::Network, 4, &[0xf0, 0], &[0xd0, 0]),
            Match::payload(PayloadBase::Transport, 16, &service.octets()),
        ],
        verdict: Verdict::Drop,
    }
}

/// An IPv4 packet without options; the kernel fills in length and checksum.
fn ipv4(id: u16, protocol: u8, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend([0x40, 0, 64, protocol, 0, 0]);
    packet.extend(SENDER.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// Sends whole IPv4 packets from beyond the wire.
fn send(wire: &Wire, packets: &[Vec<u8>]) {
    wire.far
        .enter(|| {
            let sender =
                Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
            for packet in packets {
                sender.send_to(packet, &SockAddr::from(SocketAddrV4::new(NODE, 0))).unwrap();
            }
        })
        .unwrap();
}

/// Hears what the kernel delivers of an IP protocol.
fn raw_receiver(protocol: i32) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol))).unwrap();
    socket.set_read_timeout(Some(A_WHILE)).unwrap();
    socket
}

fn tunnel_packets_are_dropped_only_with_the_marker_and_for_a_service() {
    let wire = Wire::new();
    let tunnel = raw_receiver(libc::IPPROTO_IPIP);
    let service = Ipv4Addr::new(192, 0, 2, 1);
    let stranger = Ipv4Addr::new(192, 0, 2, 2);
    let inner = |destination| ipv4(1, 6, destination, &[0; 20]);

    let _nft = filter(vec![drop_marked_tunnels(service)]);
    send(
        &wire,
        &[
            ipv4(0xd003, 4, NODE, &inner(service)),
            ipv4(0xc003, 4, NODE, &inner(service)),
            ipv4(0xd003, 4, NODE, &inner(stranger)),
            ipv4(0xd003, 4, NODE, &[]),
        ],
    );

    let delivered: Vec<_> =
        received(&tunnel).iter().map(|packet| (packet[4], packet.get(36..40).map(<[u8]>::to_vec))).collect();
    assert_eq!(
        delivered,
        [(0xc0, Some(service.octets().to_vec())), (0xd0, Some(stranger.octets().to_vec())), (0xd0, None),]
    );
}

fn an_icmp_error_about_a_service_is_matched_by_its_payload() {
    let wire = Wire::new();
    let icmp = raw_receiver(libc::IPPROTO_ICMP);
    // Destination unreachable (type 3) about a packet that the service sent: its source, after eight
    // bytes of ICMP, is the service address.
    let about = |source: Ipv4Addr| {
        let mut error = vec![3, 4, 0, 0, 0, 0, 5, 0xdc];
        let mut embedded = ipv4(1, 6, SENDER, &[0; 8]);
        embedded[12..16].copy_from_slice(&source.octets());
        error.extend(embedded);
        ipv4(9, 1, NODE, &error)
    };
    let service = Ipv4Addr::new(192, 0, 2, 1);
    let rule = Rule {
        matches: vec![
            Match::untagged_ethertype(0x0800),
            Match::payload(PayloadBase::Network, 9, &[1]),
            Match::payload(PayloadBase::Transport, 0, &[3]),
            Match::payload(PayloadBase::Transport, 20, &service.octets()),
        ],
        verdict: Verdict::Drop,
    };

    let _nft = filter(vec![rule]);
    send(&wire, &[about(service), about(NODE)]);

    let delivered: Vec<_> = received(&icmp).iter().map(|packet| packet[40..44].to_vec()).collect();
    assert_eq!(delivered, [NODE.octets()]);
}

fn an_earlier_rule_can_accept() {
    let wire = Wire::new();
    let _listeners = listeners();
    let accept = Rule { verdict: Verdict::Accept, ..drop_tcp([SERVICE]) };

    let _nft = filter(vec![accept, drop_tcp([SERVICE, OTHER])]);

    assert!(connects(&wire, SERVICE, &[]));
    assert!(!connects(&wire, OTHER, &[]));
}

fn links_without_ethernet_headers_match_by_protocol() {
    let wire = Wire::new();
    let _listeners = listeners();
    let mut rule = drop_tcp([SERVICE]);
    rule.matches[0] = Match::Protocol(0x0800);

    let _nft = filter(vec![rule]);

    assert!(!connects(&wire, SERVICE, &[]));
    assert!(connects(&wire, OTHER, &[]));
}

fn a_frame_with_a_vlan_tag_is_left_alone() {
    let wire = Wire::new();
    let udp = UdpSocket::bind(SERVICE).unwrap();
    udp.set_read_timeout(Some(A_WHILE)).unwrap();
    let any_udp = |ethertype| Rule {
        matches: vec![ethertype, Match::payload(PayloadBase::Network, 9, &[17])],
        verdict: Verdict::Drop,
    };
    let near = Netlink::open().unwrap().link_by_index(wire.near_link).unwrap().unwrap().mac.unwrap();
    // VLAN 0 is "no VLAN, only a priority" (IEEE 802.1Q), which the kernel takes as its own.
    let priority_tag = [0x81, 0x00, 0xa0, 0x00];
    let send = || wire.far.enter(|| send_frames(near, &[&[], &priority_tag])).unwrap();
    let deliveries = || std::iter::from_fn(|| udp.recv(&mut [0; 8]).ok()).count();

    let untagged = filter(vec![any_udp(Match::untagged_ethertype(0x0800))]);
    send();
    assert_eq!(deliveries(), 1);

    drop(untagged);
    let _whatever_tag = filter(vec![any_udp(Match::Protocol(0x0800))]);
    send();
    assert_eq!(deliveries(), 0);
}

/// Sends a UDP datagram to the service, once with each tag, as whole frames.
fn send_frames(destination: MacAddress, tags: &[&[u8]]) {
    let wire = Netlink::open().unwrap().link_by_name(WIRE).unwrap().unwrap();
    let socket = packet_socket();
    let mut datagram = [4000_u16, SERVICE.port(), 9, 0].map(u16::to_be_bytes).concat();
    datagram.push(b'x');
    let mut packet = ipv4(1, 17, NODE, &datagram);
    packet[3] = 29;
    let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    for tag in tags {
        let addresses = [destination.0, wire.mac.unwrap().0].concat();
        let frame = [&addresses, *tag, &[8, 0], &packet].concat();
        socket.send_to(&frame, &link_address(wire.index)).unwrap();
    }
}

/// `struct sockaddr_ll` that names nothing but a link.
fn link_address(link: LinkIndex) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_storage has room and alignment for every socket address.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = link.0.cast_signed();
    // SAFETY: the storage holds a sockaddr_ll, whose fields are set or may be zero.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

fn a_table_is_replaced_as_a_whole_or_not_at_all() {
    let wire = Wire::new();
    let _listeners = listeners();
    let mut nft = filter(vec![drop_tcp([SERVICE])]);

    nft.replace_table(&table(vec![drop_tcp([OTHER])])).unwrap();
    assert!(connects(&wire, SERVICE, &[]) && !connects(&wire, OTHER, &[]));

    let mut impossible = table(Vec::new());
    impossible.chains[0].interface = IMPOSSIBLE.to_owned();
    nft.replace_table(&impossible).unwrap_err();
    assert!(connects(&wire, SERVICE, &[]) && !connects(&wire, OTHER, &[]));
}

fn a_table_goes_with_the_socket_that_made_it() {
    let wire = Wire::new();
    let _listeners = listeners();
    let nft = filter(vec![drop_tcp([SERVICE])]);
    let mut observer = Nftables::open().unwrap();
    assert!(observer.has_table("dpr").unwrap());

    drop(nft);

    assert!(!observer.has_table("dpr").unwrap());
    assert!(connects(&wire, SERVICE, &[]));
}

fn a_table_may_outlive_its_socket_and_is_deleted_once() {
    let wire = Wire::new();
    let _listeners = listeners();
    let lasting = Table { lifetime: Lifetime::Namespace, ..table(vec![drop_tcp([SERVICE])]) };

    Nftables::open().unwrap().replace_table(&lasting).unwrap();

    let mut nft = Nftables::open().unwrap();
    assert!(!connects(&wire, SERVICE, &[]));
    assert_eq!(nft.tables().unwrap(), ["dpr"]);
    assert!(nft.delete_table("dpr").unwrap());
    assert!(!nft.delete_table("dpr").unwrap());
    assert_eq!(nft.tables().unwrap(), [""; 0]);
}

fn a_refusal_names_the_step() {
    let _wire = Wire::new();
    let _owner = filter(Vec::new());
    let mut nft = Nftables::open().unwrap();
    let mut impossible = Table { name: "elsewhere".to_owned(), ..table(Vec::new()) };
    impossible.chains[0].interface = IMPOSSIBLE.to_owned();
    let mut twice = Table { name: "elsewhere".to_owned(), ..table(Vec::new()) };
    twice.chains.push(twice.chains[0].clone());

    let invalid = nft.replace_table(&impossible).unwrap_err().to_string();
    let exists = nft.replace_table(&twice).unwrap_err().to_string();
    let owned = nft.replace_table(&table(Vec::new())).unwrap_err();

    let step = "replace nft table elsewhere: create the chain on";
    assert!(invalid.starts_with(&format!("{step} {IMPOSSIBLE}: Numerical result out of range")), "{invalid}");
    assert!(exists.starts_with(&format!("{step} {WIRE}: File exists")), "{exists}");
    assert!(matches!(owned, NftError::Netlink(error) if error.is_permission_denied()));
}

fn a_rule_that_cannot_be_put_is_named() {
    let _wire = Wire::new();
    let rule = Rule {
        matches: vec![Match::InSet { fields: Vec::new(), members: BTreeSet::new() }],
        verdict: Verdict::Drop,
    };

    let error = Nftables::open().unwrap().replace_table(&table(vec![drop_tcp([OTHER]), rule])).unwrap_err();

    assert!(matches!(error, NftError::Rule { index: 1, source: InvalidMatch::Fields(0), .. }));
}

/// Whether a datagram of `length` bytes from beyond the wire arrives at `to`.
fn arrives(wire: &Wire, to: SocketAddr, length: usize) -> bool {
    let receiver = UdpSocket::bind(to).unwrap();
    receiver.set_read_timeout(Some(A_WHILE)).unwrap();
    let from: SocketAddr = if to.is_ipv4() { "10.0.0.2:0" } else { "[fd00::2]:0" }.parse().unwrap();
    wire.far.enter(|| UdpSocket::bind(from).unwrap().send_to(&vec![7; length], to).unwrap()).unwrap();
    receiver.recv(&mut vec![0; length]).is_ok_and(|received| received == length)
}

fn ports_of_a_range_are_dropped_in_both_ip_versions() {
    let wire = Wire::new();
    let sockets = |port| [SocketAddr::from((NODE, port)), SocketAddr::new("fd00::1".parse().unwrap(), port)];
    let mut in_range = vec![Match::TransportProtocol(17)];
    in_range.extend(Match::between(
        PayloadBase::Transport,
        2,
        &1000u16.to_be_bytes(),
        &2000u16.to_be_bytes(),
    ));
    let range = Rule { matches: in_range, verdict: Verdict::Drop };
    let mut rules = Rule::drop_to_any(dpr_model::Protocol::Udp, sockets(53));
    assert_eq!(rules.len(), 2);
    rules.push(range);

    let _nft = filter(rules);

    for (port, passes) in
        [(52, true), (53, false), (999, true), (1000, false), (1500, false), (2000, false), (2001, true)]
    {
        for socket in sockets(port) {
            assert_eq!(arrives(&wire, socket, 8), passes, "{socket}");
        }
    }
}

fn fragments_are_dropped_and_whole_datagrams_are_not() {
    let wire = Wire::new();
    let socket = SocketAddr::from((NODE, 53));
    assert!(arrives(&wire, socket, 4000));
    let matches = vec![
        Match::untagged_ethertype(0x0800),
        Match::other_than(PayloadBase::Network, 6, &[0x3f, 0xff], &[0, 0]),
    ];

    let _nft = filter(vec![Rule { matches, verdict: Verdict::Drop }]);

    assert!(!arrives(&wire, socket, 4000));
    assert!(arrives(&wire, socket, 1000));
}
