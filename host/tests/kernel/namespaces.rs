use crate::fixture::Wire;
use dpr_host::{Capabilities, NamespaceError, NetNamespace, Netlink, is_initial_user_namespace};
use std::io::Read;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::panic::{catch_unwind, resume_unwind};
use std::process::{Command, Stdio};

crate::tests![
    work_happens_inside_and_the_caller_stays_outside,
    a_socket_stays_in_the_namespace_that_it_was_opened_in,
    a_panic_inside_goes_on_outside,
    a_process_can_be_started_inside,
    a_process_that_cannot_be_started_is_named,
    a_namespace_lives_as_long_as_its_value,
    capabilities_are_those_of_the_namespaces_owner,
];

fn inode(namespace: &NetNamespace) -> u64 {
    rustix::fs::fstat(namespace.as_fd()).unwrap().st_ino
}

fn work_happens_inside_and_the_caller_stays_outside() {
    let outside = inode(&NetNamespace::current().unwrap());
    let other = NetNamespace::create().unwrap();

    let inside = other.enter(|| inode(&NetNamespace::current().unwrap())).unwrap();

    assert_eq!(inside, inode(&other));
    assert_ne!(inside, outside);
    assert_eq!(inode(&NetNamespace::current().unwrap()), outside);
}

fn a_socket_stays_in_the_namespace_that_it_was_opened_in() {
    let wire = Wire::new();

    let far_socket = wire.far.enter(|| UdpSocket::bind("10.0.0.2:5000").unwrap()).unwrap();

    UdpSocket::bind("10.0.0.1:5000").unwrap().send_to(b"hello", "10.0.0.2:5000").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = far_socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.to_string().as_str()), (b"hello".as_slice(), "10.0.0.1:5000"));
}

fn a_panic_inside_goes_on_outside() {
    let namespace = NetNamespace::create().unwrap();

    let result = catch_unwind(|| namespace.enter(|| resume_unwind(Box::new("inside"))));

    assert_eq!(result.unwrap_err().downcast_ref(), Some(&"inside"));
}

fn a_process_can_be_started_inside() {
    let namespace = NetNamespace::create().unwrap();
    let mut command = Command::new("readlink");
    command.arg("/proc/self/ns/net").stdout(Stdio::piped());

    let mut child = namespace.spawn(&mut command).unwrap();

    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(output.trim(), format!("net:[{}]", inode(&namespace)));
}

fn a_process_that_cannot_be_started_is_named() {
    let namespace = NetNamespace::create().unwrap();

    let error = namespace.spawn(&mut Command::new("/nowhere/at/all")).unwrap_err();

    assert!(matches!(&error, NamespaceError::Spawn { program, .. } if program == "/nowhere/at/all"));
}

fn a_namespace_lives_as_long_as_its_value() {
    let wire = Wire::new();
    let mut netlink = Netlink::open().unwrap();

    drop(wire.far);

    // Its end of the wire goes with it, and so does ours.
    crate::fixture::eventually(|| netlink.link_by_index(wire.near_link).unwrap().is_none());
}

fn capabilities_are_those_of_the_namespaces_owner() {
    let own = Capabilities::current().unwrap();

    assert_eq!(own, Capabilities { net_admin: true, net_raw: true });
    assert_eq!(is_initial_user_namespace().unwrap(), maps_every_user());
}

/// The first user namespace maps all 2^32 - 1 users to themselves.
fn maps_every_user() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
