//! Two hosts on a wire.

use dpr_host::{AddressOptions, IpPrefix, LinkIndex, NetNamespace, Netlink, VethEnd};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Name of the link at both ends of the wire.
pub(crate) const WIRE: &str = "wire0";

/// How long to wait for what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// How long to wait for what must not happen.
pub(crate) const A_WHILE: Duration = Duration::from_millis(300);

/// The test's namespace is 10.0.0.1 and fd00::1; beyond a veth pair is 10.0.0.2 and fd00::2.
pub(crate) struct Wire {
    /// The namespace at the other end.
    pub(crate) far: NetNamespace,
    /// This end of the wire.
    pub(crate) near_link: LinkIndex,
}

impl Wire {
    /// Both ends up, with addresses, ready to carry packets.
    pub(crate) fn new() -> Self {
        let far = NetNamespace::create().unwrap();
        let mut netlink = Netlink::open().unwrap();
        let peer = VethEnd { namespace: Some(far.as_fd()), ..VethEnd::named(WIRE) };
        netlink.create_veth(VethEnd::named(WIRE), peer).unwrap();
        far.enter(|| configure(2)).unwrap();
        let near_link = configure(1);
        far.enter(await_running).unwrap();
        await_running();
        Self { far, near_link }
    }
}

fn configure(host: u8) -> LinkIndex {
    let mut netlink = Netlink::open().unwrap();
    loopback_up(&mut netlink);
    let wire = netlink.link_by_name(WIRE).unwrap().unwrap().index;
    netlink.set_up(wire).unwrap();
    let at_once = AddressOptions { skip_duplicate_detection: true, ..AddressOptions::default() };
    netlink.add_address(wire, prefix(&format!("10.0.0.{host}/24")), at_once).unwrap();
    netlink.add_address(wire, prefix(&format!("fd00::{host}/64")), at_once).unwrap();
    wire
}

fn await_running() {
    let mut netlink = Netlink::open().unwrap();
    eventually(|| netlink.link_by_name(WIRE).unwrap().unwrap().running);
}

/// Brings the loopback link of the thread's namespace up.
pub(crate) fn loopback_up(netlink: &mut Netlink) -> LinkIndex {
    let loopback = netlink.link_by_name("lo").unwrap().unwrap().index;
    netlink.set_up(loopback).unwrap();
    loopback
}

pub(crate) fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

/// Waits until `condition` holds.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "what was to happen did not happen within {SOON:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
