use crate::fixture::{Wire, loopback_up, prefix};
use dpr_host::{
    AddressOptions, IpPrefix, Netlink, PolicyRule, ResolvedRoute, Route, RouteKind, RouteQuery, RouteTable,
};
use std::net::IpAddr;

crate::tests![
    the_way_to_a_neighbour_has_a_link_and_a_source_and_no_gateway,
    the_way_through_a_router_has_its_address,
    the_way_to_an_own_address_is_local,
    no_way_is_none,
    a_policy_rule_sends_some_sources_another_way,
    a_forwarded_packets_way_can_be_asked_for,
    a_route_comes_back_from_the_table_as_it_was_added,
    a_route_is_replaced_and_deleted_once,
    a_route_by_several_routers_is_replaced_by_fewer,
    an_onlink_gateway_needs_no_route_of_its_own,
    an_ipv4_route_may_have_an_ipv6_gateway,
    rules_are_added_and_deleted_any_number_of_times,
    a_table_without_routes_is_empty,
];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn resolve(netlink: &mut Netlink, to: &str) -> Option<ResolvedRoute> {
    netlink.route_to(&RouteQuery::to(ip(to))).unwrap()
}

fn the_way_to_a_neighbour_has_a_link_and_a_source_and_no_gateway() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();

    for (to, from) in [("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")] {
        let way = resolve(&mut netlink, to).unwrap();

        assert_eq!((way.link, way.gateway, way.kind), (wire.near_link, None, RouteKind::Unicast));
        assert_eq!(way.source, Some(ip(from)));
    }
}

fn the_way_through_a_router_has_its_address() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    netlink.add_route(&Route::via(IpPrefix::ALL_IPV4, ip("10.0.0.2"))).unwrap();
    netlink.add_route(&Route::via(prefix("fd99::/64"), ip("fd00::2"))).unwrap();

    let v4 = resolve(&mut netlink, "192.0.2.1").unwrap();
    let v6 = resolve(&mut netlink, "fd99::1").unwrap();

    assert_eq!((v4.link, v4.gateway), (wire.near_link, Some(ip("10.0.0.2"))));
    assert_eq!((v6.link, v6.gateway), (wire.near_link, Some(ip("fd00::2"))));
}

fn the_way_to_an_own_address_is_local() {
    let _wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    let loopback = loopback_up(&mut netlink);

    let way = resolve(&mut netlink, "10.0.0.1").unwrap();

    assert_eq!((way.link, way.kind), (loopback, RouteKind::Local));
}

fn no_way_is_none() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    let unreachable = Route {
        kind: RouteKind::Unreachable,
        link: None,
        ..Route::on_link(prefix("10.9.0.0/16"), wire.near_link)
    };
    netlink.add_route(&unreachable).unwrap();

    assert_eq!(resolve(&mut netlink, "192.0.2.1"), None);
    assert_eq!(resolve(&mut netlink, "10.9.0.1"), None);
    assert_eq!(resolve(&mut netlink, "fd99::1"), None);
}

fn a_policy_rule_sends_some_sources_another_way() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    let delivery = prefix("169.254.64.1/32");
    let table = RouteTable(10_042);
    netlink.add_address(wire.near_link, delivery, AddressOptions::default()).unwrap();
    netlink.add_route(&Route::via(IpPrefix::ALL_IPV4, ip("10.0.0.2")).in_table(table)).unwrap();
    let rule = PolicyRule { from: prefix("169.254.64.0/20"), table, priority: 100 };

    netlink.add_rule(&rule).unwrap();

    let query = RouteQuery { source: Some(delivery.address()), ..RouteQuery::to(ip("192.0.2.1")) };
    let way = netlink.route_to(&query).unwrap().unwrap();
    assert_eq!(way.gateway, Some(ip("10.0.0.2")));
    assert_eq!(resolve(&mut netlink, "192.0.2.1"), None);
}

fn a_forwarded_packets_way_can_be_asked_for() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    dpr_host::Sysctl::ip_forward().write("1").unwrap();
    netlink.add_route(&Route::via(prefix("192.0.2.0/24"), ip("10.0.0.2"))).unwrap();
    let query = RouteQuery {
        source: Some(ip("10.0.0.77")),
        input: Some(wire.near_link),
        ..RouteQuery::to(ip("192.0.2.1"))
    };

    let way = netlink.route_to(&query).unwrap().unwrap();

    assert_eq!((way.link, way.gateway), (wire.near_link, Some(ip("10.0.0.2"))));
}

fn a_route_comes_back_from_the_table_as_it_was_added() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    let table = RouteTable(1000);
    let added = [
        Route {
            link: Some(wire.near_link),
            metric: Some(7),
            source: Some(ip("10.0.0.1")),
            ..Route::via(prefix("192.0.2.0/24"), ip("10.0.0.2")).in_table(table)
        },
        Route { metric: Some(8), ..Route::on_link(prefix("fd99::/64"), wire.near_link).in_table(table) },
    ];

    for route in &added {
        netlink.add_route(route).unwrap();
    }

    assert_eq!(netlink.routes(table).unwrap(), added);
}

fn a_route_is_replaced_and_deleted_once() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    let to = prefix("192.0.2.0/24");
    let route = Route::on_link(to, wire.near_link);
    netlink.add_route(&route).unwrap();

    assert!(netlink.add_route(&route).unwrap_err().already_exists());
    netlink.replace_route(&Route::via(to, ip("10.0.0.2"))).unwrap();

    assert_eq!(resolve(&mut netlink, "192.0.2.1").unwrap().gateway, Some(ip("10.0.0.2")));
    assert!(netlink.delete_route(&Route::via(to, ip("10.0.0.2"))).unwrap());
    assert!(!netlink.delete_route(&Route::via(to, ip("10.0.0.2"))).unwrap());
}

fn a_route_by_several_routers_is_replaced_by_fewer() {
    let _wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    for (to, routers) in [("192.0.2.1/32", ["10.0.0.2", "10.0.0.3"]), ("fd99::1/128", ["fd00::2", "fd00::3"])]
    {
        let (to, routers) = (prefix(to), routers.map(ip));
        let gateways = |netlink: &mut Netlink| {
            let routes = netlink.routes(RouteTable::MAIN).unwrap().into_iter();
            let mut gateways: Vec<IpAddr> =
                routes.filter(|route| route.destination == to).filter_map(|route| route.gateway).collect();
            gateways.sort_unstable();
            gateways
        };

        netlink.replace_route_by_several(to, &routers).unwrap();
        assert_eq!(gateways(&mut netlink), routers);
        netlink.replace_route_by_several(to, &routers[1..]).unwrap();
        assert_eq!(gateways(&mut netlink), routers[1..]);
    }
}

fn an_onlink_gateway_needs_no_route_of_its_own() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    let without = Route { link: Some(wire.near_link), ..Route::via(prefix("192.0.2.0/24"), ip("10.99.0.1")) };
    let onlink = Route { onlink: true, ..without };

    let refused = netlink.add_route(&without).unwrap_err();
    netlink.add_route(&onlink).unwrap();

    assert!(refused.to_string().contains("Nexthop has invalid gateway"), "{refused}");
    assert_eq!(resolve(&mut netlink, "192.0.2.1").unwrap().gateway, Some(ip("10.99.0.1")));
    assert!(netlink.routes(RouteTable::MAIN).unwrap().iter().any(|route| route.onlink));
}

fn an_ipv4_route_may_have_an_ipv6_gateway() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    let route = Route { link: Some(wire.near_link), ..Route::via(prefix("192.0.2.0/24"), ip("fd00::2")) };

    netlink.add_route(&route).unwrap();

    assert_eq!(resolve(&mut netlink, "192.0.2.1").unwrap().gateway, Some(ip("fd00::2")));
}

fn rules_are_added_and_deleted_any_number_of_times() {
    let mut netlink = Netlink::open().unwrap();
    let rules = [
        PolicyRule { from: prefix("169.254.64.0/20"), table: RouteTable(42), priority: 100 },
        PolicyRule { from: prefix("fd00:d0::/64"), table: RouteTable(100_000), priority: 101 },
        PolicyRule { from: IpPrefix::ALL_IPV4, table: RouteTable(43), priority: 102 },
    ];

    for rule in &rules {
        netlink.add_rule(rule).unwrap();
        netlink.add_rule(rule).unwrap();
    }

    let listed = netlink.rules().unwrap();
    for rule in &rules {
        assert_eq!(listed.iter().filter(|other| *other == rule).count(), 1, "{rule}");
        assert!(netlink.delete_rule(rule).unwrap());
        assert!(!netlink.delete_rule(rule).unwrap());
    }
    assert!(listed.is_sorted_by_key(|rule| rule.priority));
    assert_eq!(listed[0].table, RouteTable::LOCAL);
}

fn a_table_without_routes_is_empty() {
    let mut netlink = Netlink::open().unwrap();

    assert_eq!(netlink.routes(RouteTable(4711)).unwrap(), []);
    assert_eq!(netlink.routes(RouteTable::MAIN).unwrap(), []);
}
