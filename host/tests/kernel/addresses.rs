use crate::fixture::{loopback_up, prefix};
use dpr_host::{AddressOptions, InterfaceAddress, LinkIndex, Netlink, Route, RouteTable, Scope, VethEnd};

crate::tests![
    addresses_of_both_families_are_listed_with_their_prefixes,
    adding_an_address_again_and_deleting_it_again_do_no_harm,
    an_address_may_come_without_a_route_to_its_network,
    an_ipv6_address_is_usable_at_once_only_without_duplicate_detection,
];

fn veth(netlink: &mut Netlink) -> LinkIndex {
    netlink.create_veth(VethEnd::named("a"), VethEnd::named("b")).unwrap();
    let [a, b] = ["a", "b"].map(|name| netlink.link_by_name(name).unwrap().unwrap().index);
    netlink.set_up(a).unwrap();
    netlink.set_up(b).unwrap();
    a
}

fn addresses_of_both_families_are_listed_with_their_prefixes() {
    let mut netlink = Netlink::open().unwrap();
    let loopback = loopback_up(&mut netlink);
    let host_scope = AddressOptions { scope: Scope::Host, ..AddressOptions::default() };

    netlink.add_address(loopback, prefix("169.254.64.1/32"), host_scope).unwrap();
    netlink.add_address(loopback, prefix("fd00::7/64"), AddressOptions::default()).unwrap();

    let held = netlink.addresses_of(loopback).unwrap();
    assert!(held.contains(&InterfaceAddress {
        link: loopback,
        prefix: prefix("169.254.64.1/32"),
        scope: Scope::Host,
        tentative: false,
    }));
    assert!(held.iter().any(|address| address.prefix == prefix("fd00::7/64")));
    assert!(held.iter().any(|address| address.prefix == prefix("127.0.0.1/8")));
}

fn adding_an_address_again_and_deleting_it_again_do_no_harm() {
    let mut netlink = Netlink::open().unwrap();
    let loopback = loopback_up(&mut netlink);
    for address in ["10.1.2.3/24", "fd01::1/64"].map(prefix) {
        netlink.add_address(loopback, address, AddressOptions::default()).unwrap();
        netlink.add_address(loopback, address, AddressOptions::default()).unwrap();

        assert!(netlink.delete_address(loopback, address).unwrap());
        assert!(!netlink.delete_address(loopback, address).unwrap());
    }
}

fn an_address_may_come_without_a_route_to_its_network() {
    let mut netlink = Netlink::open().unwrap();
    let a = veth(&mut netlink);
    let without_route = AddressOptions { without_network_route: true, ..AddressOptions::default() };

    netlink.add_address(a, prefix("10.1.0.1/24"), without_route).unwrap();
    netlink.add_address(a, prefix("10.2.0.1/24"), AddressOptions::default()).unwrap();

    let has_route = |routes: &[Route], to| routes.iter().any(|route| route.destination == prefix(to));
    let routes = netlink.routes(RouteTable::MAIN).unwrap();
    assert!(!has_route(&routes, "10.1.0.0/24"));
    assert!(has_route(&routes, "10.2.0.0/24"));
}

fn an_ipv6_address_is_usable_at_once_only_without_duplicate_detection() {
    let mut netlink = Netlink::open().unwrap();
    let a = veth(&mut netlink);
    let at_once = AddressOptions { skip_duplicate_detection: true, ..AddressOptions::default() };

    netlink.add_address(a, prefix("fd01::1/64"), at_once).unwrap();
    netlink.add_address(a, prefix("fd02::1/64"), AddressOptions::default()).unwrap();

    let held = netlink.addresses_of(a).unwrap();
    let tentative = |text| held.iter().find(|address| address.prefix == prefix(text)).unwrap().tentative;
    assert!(!tentative("fd01::1/64"));
    assert!(tentative("fd02::1/64"));
}
