use crate::fixture::{SOON, WIRE, Wire, eventually, prefix};
use dpr_host::{
    AddressOptions, Event, MacAddress, Monitor, Neighbour, NeighbourState, Netlink, Route, VethEnd,
};
use rustix::event::{PollFd, PollFlags, poll};
use std::net::IpAddr;
use std::time::Instant;

crate::tests![
    a_probe_finds_a_neighbours_hardware_address,
    a_probe_for_nobody_fails_in_the_end,
    a_permanent_neighbour_stays_as_it_was_put_in,
    a_probed_neighbour_is_permanent_no_longer,
    a_monitor_tells_of_neighbours_as_they_are_found,
    a_monitor_tells_of_links_addresses_and_routes,
    a_monitor_that_is_not_read_says_that_it_lost_events,
];

const FAR: [&str; 2] = ["10.0.0.2", "fd00::2"];

fn far_mac(wire: &Wire) -> MacAddress {
    wire.far.enter(|| Netlink::open().unwrap().link_by_name(WIRE).unwrap().unwrap().mac.unwrap()).unwrap()
}

fn known(netlink: &mut Netlink, wire: &Wire, address: IpAddr) -> Option<Neighbour> {
    netlink.neighbour(wire.near_link, address).unwrap()
}

fn a_probe_finds_a_neighbours_hardware_address() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    let mac = far_mac(&wire);
    for address in FAR.map(|text| text.parse::<IpAddr>().unwrap()) {
        assert_eq!(known(&mut netlink, &wire, address), None);

        netlink.probe(wire.near_link, address).unwrap();

        eventually(|| known(&mut netlink, &wire, address).is_some_and(|found| found.state.is_usable()));
        assert_eq!(known(&mut netlink, &wire, address).unwrap().mac, Some(mac));
        assert!(netlink.neighbours().unwrap().iter().any(|found| found.address == address));
        assert!(netlink.delete_neighbour(wire.near_link, address).unwrap());
        assert!(!netlink.delete_neighbour(wire.near_link, address).unwrap());
    }
}

fn a_probe_for_nobody_fails_in_the_end() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    let nobody = "10.0.0.99".parse().unwrap();

    netlink.probe(wire.near_link, nobody).unwrap();
    let asked = known(&mut netlink, &wire, nobody).unwrap();

    assert_eq!((asked.state, asked.mac), (NeighbourState::Incomplete, None));
    eventually(|| {
        known(&mut netlink, &wire, nobody).is_some_and(|found| found.state == NeighbourState::Failed)
    });
}

fn a_permanent_neighbour_stays_as_it_was_put_in() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    let (address, mac) = ("10.0.0.50".parse().unwrap(), MacAddress([2, 0, 0, 0, 0, 50]));

    netlink.add_permanent_neighbour(wire.near_link, address, MacAddress([2, 0, 0, 0, 0, 51])).unwrap();
    netlink.add_permanent_neighbour(wire.near_link, address, mac).unwrap();

    let expected =
        Neighbour { link: wire.near_link, address, mac: Some(mac), state: NeighbourState::Permanent };
    assert_eq!(known(&mut netlink, &wire, address), Some(expected));
}

fn a_probed_neighbour_is_permanent_no_longer() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    let (address, mac) = ("10.0.0.50".parse().unwrap(), MacAddress([2, 0, 0, 0, 0, 50]));
    netlink.add_permanent_neighbour(wire.near_link, address, mac).unwrap();
    assert!(known(&mut netlink, &wire, address).unwrap().state.is_fixed());

    netlink.probe(wire.near_link, address).unwrap();

    assert!(!known(&mut netlink, &wire, address).unwrap().state.is_fixed());
}

/// Waits for an event that `wanted` accepts.
fn heard(monitor: &mut Monitor, wanted: impl Fn(&Event) -> bool) {
    let deadline = Instant::now() + SOON;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.try_into().unwrap();
        let ready = poll(&mut [PollFd::new(&*monitor, PollFlags::IN)], Some(&timeout)).unwrap();
        assert_ne!(ready, 0, "the event did not come within {SOON:?}");
        while let Some(event) = monitor.poll_event().unwrap() {
            if wanted(&event) {
                return;
            }
        }
    }
}

fn a_monitor_tells_of_neighbours_as_they_are_found() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    let mut monitor = Monitor::open().unwrap();
    let (address, mac): (IpAddr, _) = (FAR[0].parse().unwrap(), far_mac(&wire));

    netlink.probe(wire.near_link, address).unwrap();

    heard(&mut monitor, |event| {
        matches!(event, Event::Neighbour(found) if found.address == address && found.mac == Some(mac)
            && found.state == NeighbourState::Reachable)
    });
}

fn a_monitor_tells_of_links_addresses_and_routes() {
    let mut netlink = Netlink::open().unwrap();
    let mut monitor = Monitor::open().unwrap();
    assert_eq!(monitor.poll_event().unwrap(), None);

    netlink.create_veth(VethEnd::named("a"), VethEnd::named("b")).unwrap();
    heard(&mut monitor, |event| matches!(event, Event::Link(link) if link.name == "a" && !link.up));
    let [a, b] = ["a", "b"].map(|name| netlink.link_by_name(name).unwrap().unwrap().index);
    netlink.set_up(b).unwrap();
    netlink.set_up(a).unwrap();
    heard(&mut monitor, |event| matches!(event, Event::Link(link) if link.index == a && link.running));

    let address = prefix("10.0.0.1/24");
    netlink.add_address(a, address, AddressOptions::default()).unwrap();
    heard(&mut monitor, |event| matches!(event, Event::Address(held) if held.prefix == address));

    let route = Route::on_link(prefix("192.0.2.0/24"), a);
    netlink.add_route(&route).unwrap();
    heard(&mut monitor, |event| *event == Event::Route(route));
    netlink.delete_route(&route).unwrap();
    heard(&mut monitor, |event| *event == Event::RouteGone(route));

    netlink.delete_address(a, address).unwrap();
    heard(&mut monitor, |event| matches!(event, Event::AddressGone(held) if held.prefix == address));
    netlink.delete_link(a).unwrap();
    heard(&mut monitor, |event| *event == Event::LinkGone(a));
}

fn a_monitor_that_is_not_read_says_that_it_lost_events() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();
    let mut monitor = Monitor::open().unwrap();
    let route = Route::on_link(prefix("192.0.2.0/24"), wire.near_link);

    // A notification takes some hundred bytes of a buffer of at most 2 MiB.
    for _ in 0..10_000 {
        netlink.add_route(&route).unwrap();
        netlink.delete_route(&route).unwrap();
    }

    heard(&mut monitor, |event| *event == Event::Lost);
    while monitor.poll_event().unwrap().is_some() {}
    netlink.add_route(&route).unwrap();
    heard(&mut monitor, |event| *event == Event::Route(route));
}
