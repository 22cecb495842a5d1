use crate::fixture::{Wire, eventually, loopback_up};
use dpr_host::{BridgeOptions, Link, LinkIndex, MacAddress, NetNamespace, Netlink, VethEnd};
use std::fs;
use std::os::fd::AsFd;

crate::tests![
    a_new_namespace_has_a_loopback_link_that_is_down,
    a_veth_pair_has_the_addresses_asked_for_and_ends_that_know_each_other,
    a_veth_end_can_be_created_in_another_namespace,
    a_link_moves_to_another_namespace,
    links_become_ports_of_a_bridge_and_leave_it,
    a_port_of_a_bridge_can_be_isolated_and_another_link_cannot,
    a_bridge_snoops_multicast_only_if_asked_to,
    mtu_address_and_state_can_be_changed,
    a_link_is_found_by_its_address,
    what_does_not_exist_is_none_and_is_deleted_without_complaint,
    a_refusal_names_the_links_and_the_reason,
];

fn link(netlink: &mut Netlink, name: &str) -> Link {
    netlink.link_by_name(name).unwrap().unwrap()
}

fn a_new_namespace_has_a_loopback_link_that_is_down() {
    let mut netlink = Netlink::open().unwrap();

    let links = netlink.links().unwrap();

    assert_eq!(links.len(), 1);
    assert!(links[0].loopback && !links[0].up && links[0].name == "lo");
}

fn a_veth_pair_has_the_addresses_asked_for_and_ends_that_know_each_other() {
    let mut netlink = Netlink::open().unwrap();
    let mac = MacAddress([2, 0, 0, 0, 0, 1]);

    netlink.create_veth(VethEnd { mac: Some(mac), ..VethEnd::named("a") }, VethEnd::named("b")).unwrap();

    let (a, b) = (link(&mut netlink, "a"), link(&mut netlink, "b"));
    assert_eq!(a.mac, Some(mac));
    assert_eq!(a.kind.as_deref(), Some("veth"));
    assert_eq!((a.lower, b.lower), (Some(b.index), Some(a.index)));
    assert_eq!((a.mtu, a.up, a.running), (1500, false, false));
}

fn a_veth_end_can_be_created_in_another_namespace() {
    let far = NetNamespace::create().unwrap();
    let mut netlink = Netlink::open().unwrap();

    let peer = VethEnd { namespace: Some(far.as_fd()), ..VethEnd::named("there") };
    netlink.create_veth(VethEnd::named("here"), peer).unwrap();

    assert_eq!(netlink.link_by_name("there").unwrap(), None);
    let there = far.enter(|| Netlink::open().unwrap().link_by_name("there").unwrap()).unwrap();
    assert!(there.is_some());
}

fn a_link_moves_to_another_namespace() {
    let far = NetNamespace::create().unwrap();
    let mut netlink = Netlink::open().unwrap();
    netlink.create_veth(VethEnd::named("a"), VethEnd::named("b")).unwrap();
    let a = link(&mut netlink, "a").index;

    netlink.move_to_namespace(a, far.as_fd()).unwrap();

    assert_eq!(netlink.link_by_name("a").unwrap(), None);
    assert!(far.enter(|| Netlink::open().unwrap().link_by_name("a").unwrap().is_some()).unwrap());
}

fn links_become_ports_of_a_bridge_and_leave_it() {
    let mut netlink = Netlink::open().unwrap();
    netlink.create_bridge("br0", BridgeOptions::default()).unwrap();
    netlink.create_veth(VethEnd::named("a"), VethEnd::named("b")).unwrap();
    let (bridge, port) = (link(&mut netlink, "br0"), link(&mut netlink, "a").index);

    netlink.set_master(port, Some(bridge.index)).unwrap();
    let inside = link(&mut netlink, "a").master;
    netlink.set_master(port, None).unwrap();

    assert_eq!(bridge.kind.as_deref(), Some("bridge"));
    assert_eq!(inside, Some(bridge.index));
    assert_eq!(link(&mut netlink, "a").master, None);
}

fn a_port_of_a_bridge_can_be_isolated_and_another_link_cannot() {
    let mut netlink = Netlink::open().unwrap();
    netlink.create_bridge("br0", BridgeOptions::default()).unwrap();
    netlink.create_veth(VethEnd::named("a"), VethEnd::named("b")).unwrap();
    let (bridge, port) = (link(&mut netlink, "br0").index, link(&mut netlink, "a").index);

    assert!(netlink.set_isolated(port, true).is_err(), "it is no port");
    netlink.set_master(port, Some(bridge)).unwrap();
    netlink.set_isolated(port, true).unwrap();
    netlink.set_isolated(port, false).unwrap();
}

fn a_bridge_snoops_multicast_only_if_asked_to() {
    let mut netlink = Netlink::open().unwrap();

    netlink.create_bridge("deaf", BridgeOptions { multicast_snooping: false }).unwrap();
    netlink.create_bridge("nosy", BridgeOptions { multicast_snooping: true }).unwrap();

    // sysfs shows the namespace that it was mounted in, so ask the kernel the other way round: a
    // bridge that snoops joins the group of all snoopers (RFC 4286) when it comes up.
    let snoops = |netlink: &mut Netlink, name: &str| {
        let index = link(netlink, name).index;
        netlink.set_up(index).unwrap();
        let groups = fs::read_to_string("/proc/thread-self/net/igmp").unwrap();
        let group = groups.split_once(&format!("\t{name} ")).map_or("", |(_, after)| after);
        group
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with("\t\t"))
            .any(|line| line.contains("6A0000E0"))
    };
    assert!(!snoops(&mut netlink, "deaf"));
    assert!(snoops(&mut netlink, "nosy"));
}

fn mtu_address_and_state_can_be_changed() {
    let mut netlink = Netlink::open().unwrap();
    netlink.create_veth(VethEnd::named("a"), VethEnd::named("b")).unwrap();
    let (a, b) = (link(&mut netlink, "a").index, link(&mut netlink, "b").index);
    let mac = MacAddress([2, 0, 0, 0, 0, 9]);

    netlink.set_mtu(a, 1400).unwrap();
    netlink.set_mac(a, mac).unwrap();
    netlink.set_up(a).unwrap();
    netlink.set_up(b).unwrap();

    eventually(|| link(&mut netlink, "a").running);
    let changed = link(&mut netlink, "a");
    assert_eq!((changed.mtu, changed.mac, changed.up), (1400, Some(mac), true));
    netlink.set_down(a).unwrap();
    assert!(!link(&mut netlink, "a").up);
}

fn a_link_is_found_by_its_address() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();

    let found = netlink.link_by_address("10.0.0.1".parse().unwrap()).unwrap();

    assert_eq!(found.map(|link| link.index), Some(wire.near_link));
    assert_eq!(netlink.link_by_address("10.0.0.2".parse().unwrap()).unwrap(), None);
}

fn what_does_not_exist_is_none_and_is_deleted_without_complaint() {
    let mut netlink = Netlink::open().unwrap();
    netlink.create_veth(VethEnd::named("a"), VethEnd::named("b")).unwrap();
    let a = link(&mut netlink, "a").index;

    assert!(netlink.delete_link(a).unwrap());
    assert!(!netlink.delete_link(a).unwrap());
    assert_eq!(netlink.link_by_index(a).unwrap(), None);
    assert_eq!(netlink.link_by_name("b").unwrap(), None);
}

fn a_refusal_names_the_links_and_the_reason() {
    let mut netlink = Netlink::open().unwrap();
    loopback_up(&mut netlink);
    netlink.create_veth(VethEnd::named("a"), VethEnd::named("b")).unwrap();

    let exists = netlink.create_veth(VethEnd::named("a"), VethEnd::named("c")).unwrap_err();
    let absent = netlink.set_up(LinkIndex(4711)).unwrap_err();
    let a = link(&mut netlink, "a").index;
    let too_big = netlink.set_mtu(a, 1_000_000).unwrap_err().to_string();

    assert!(exists.already_exists() && exists.to_string().starts_with("create veth pair a and c: "));
    assert!(absent.is_not_found() && absent.to_string().contains("link 4711"));
    assert!(too_big.ends_with("(mtu greater than device maximum)"), "{too_big}");
}
