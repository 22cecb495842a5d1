//! Programs and maps that outlive who loaded them, on the loopback interface of a namespace of their own.

use dpr_host::{NetNamespace, Netlink, VethEnd};
use dpr_model::{ClientSocket, FlowKey, NodeId, Protocol, ServiceSocket};
use dpr_xdp::abi::FlowEntry;
use dpr_xdp::{Connections, Found, Mode, Pins, Programs, Sizes, Tables, Wanted, remove_pins};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::path::Path;

const SIZES: Sizes = Sizes { flows: 16, half_open: 16 };
const LINK: &str = "lo";

pub(crate) fn outlive_a_killed_daemon() {
    in_a_namespace(kill_and_take_over);
}

pub(crate) fn move_into_the_driver_when_the_next_daemon_wants_it() {
    in_a_namespace(move_between_modes);
}

/// Calls `test` with a directory for pins.
fn in_a_namespace(test: impl Fn(&Path) + Sync) {
    let directory = tempfile::tempdir().unwrap();
    mount("bpf", directory.path(), "bpf", MountFlags::empty(), None).unwrap();
    let namespace = NetNamespace::create().unwrap();
    namespace.enter(|| test(&directory.path().join("node"))).unwrap();
    unmount(directory.path(), UnmountFlags::DETACH).unwrap();
}

fn move_between_modes(directory: &Path) {
    let mut netlink = Netlink::open().unwrap();
    netlink.create_veth(VethEnd::named("a"), VethEnd::named("b")).unwrap();
    for mode in [Mode::Generic, Mode::Native, Mode::Generic] {
        // Dropped at the end of each turn, as by SIGKILL.
        let (mut programs, _) = dpr_xdp::load(SIZES, Some(open(directory, SIZES))).unwrap();

        let attached = programs.attach("a", Wanted::Only(mode)).unwrap();

        assert_eq!(attached.mode, mode);
    }
}

fn kill_and_take_over(directory: &Path) {
    let flow = FlowKey {
        protocol: Protocol::Tcp,
        client: ClientSocket { address: [192, 0, 2, 1].into(), port: 1024 },
        service: ServiceSocket { address: [192, 0, 2, 2].into(), port: 80 },
    };
    let entry = FlowEntry { real_server: 3, generation: 7, ..FlowEntry::default() };
    let (_, mut tables) = attached(directory, Found::Nothing);
    tables.insert(Connections::Flows, &flow, &entry).unwrap();
    // All descriptors are closed, as by SIGKILL.
    drop(tables);
    assert!(!is_free(), "the programs have gone with the process");

    let (mut programs, tables) = attached(directory, Found::Maps);
    assert_eq!(tables.connection(Connections::Flows, &flow).unwrap(), Some(entry));
    assert_eq!(open(directory, Sizes { flows: 17, ..SIZES }).found(), Found::OtherMaps);

    programs.detach().unwrap();
    assert!(remove_pins(directory).unwrap());
    assert!(is_free() && !directory.exists());
}

fn attached(directory: &Path, expected: Found) -> (Programs, Tables) {
    let pins = open(directory, SIZES);
    assert_eq!(pins.found(), expected);
    let (mut programs, tables) = dpr_xdp::load(SIZES, Some(pins)).unwrap();
    programs.attach(LINK, Wanted::Only(Mode::Generic)).unwrap();
    (programs, tables)
}

fn open(directory: &Path, sizes: Sizes) -> Pins {
    Pins::open(directory, sizes, NodeId(1)).unwrap()
}

/// Whether somebody else's program finds the place free; it leaves at once.
fn is_free() -> bool {
    let (mut stranger, _) = dpr_xdp::load(SIZES, None).unwrap();
    stranger.attach(LINK, Wanted::Only(Mode::Generic)).is_ok()
}
