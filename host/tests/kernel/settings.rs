use crate::fixture::{WIRE, Wire};
use dpr_host::{
    Ipv4Setting, Ipv6Setting, NetNamespace, Offload, OffloadError, Offloads, Sysctl, SysctlError,
};

crate::tests![
    a_setting_is_read_back_as_written,
    a_guard_puts_the_previous_value_back,
    a_guard_puts_the_value_back_where_it_came_from,
    an_empty_list_comes_back_empty,
    a_guard_can_keep_what_was_set,
    a_missing_or_refused_setting_is_named,
    offloads_are_turned_off_and_on,
    an_offload_that_cannot_be_changed_is_named,
];

fn a_setting_is_read_back_as_written() {
    let _wire = Wire::new();
    for setting in [Sysctl::ipv4(WIRE, Ipv4Setting::AcceptLocal), Sysctl::ipv6(WIRE, Ipv6Setting::Forwarding)]
    {
        let setting = setting.unwrap();

        setting.write("1").unwrap();

        assert_eq!(setting.read().unwrap(), "1");
    }
}

fn a_guard_puts_the_previous_value_back() {
    let setting = Sysctl::ipv4("all", Ipv4Setting::RpFilter).unwrap();
    setting.write("1").unwrap();

    let guard = setting.write_guarded("2").unwrap();

    assert_eq!((setting.read().unwrap().as_str(), guard.previous()), ("2", "1"));
    drop(guard);
    assert_eq!(setting.read().unwrap(), "1");
    setting.write_guarded("0").unwrap().restore().unwrap();
    assert_eq!(setting.read().unwrap(), "1");
}

fn a_guard_puts_the_value_back_where_it_came_from() {
    let other = NetNamespace::create().unwrap();
    let setting = Sysctl::ip_forward();
    setting.write("0").unwrap();
    other.enter(|| setting.write("0").unwrap()).unwrap();

    let guard = other.enter(|| setting.write_guarded("1").unwrap()).unwrap();
    setting.write("1").unwrap();
    drop(guard);

    assert_eq!(setting.read().unwrap(), "1");
    assert_eq!(other.enter(|| setting.read().unwrap()).unwrap(), "0");
}

fn an_empty_list_comes_back_empty() {
    let ports = Sysctl::local_reserved_ports();
    assert_eq!(ports.read().unwrap(), "");

    let guard = ports.write_guarded("61000-61999").unwrap();

    assert_eq!(ports.read().unwrap(), "61000-61999");
    guard.restore().unwrap();
    assert_eq!(ports.read().unwrap(), "");
}

fn a_guard_can_keep_what_was_set() {
    let setting = Sysctl::ipv4("default", Ipv4Setting::ArpIgnore).unwrap();

    setting.write_guarded("1").unwrap().keep();

    assert_eq!(setting.read().unwrap(), "1");
}

fn a_missing_or_refused_setting_is_named() {
    let missing = Sysctl::ipv4("nowhere", Ipv4Setting::ArpAnnounce).unwrap().read().unwrap_err();
    let refused = Sysctl::ip_forward().write("many").unwrap_err();

    assert!(matches!(missing, SysctlError::Read { .. }));
    assert!(missing.to_string().contains("net.ipv4.conf.nowhere.arp_announce"));
    assert!(refused.to_string().starts_with("cannot set net.ipv4.ip_forward to \"many\": "), "{refused}");
}

fn offloads_are_turned_off_and_on() {
    let _wire = Wire::new();
    let before = Offloads::of(WIRE).unwrap();

    Offloads::set(WIRE, Offload::TxChecksum, false).unwrap();
    Offloads::set(WIRE, Offload::Gro, true).unwrap();

    // Segmentation needs checksums, so it goes with them.
    let after = Offloads::of(WIRE).unwrap();
    assert!(before.tx_checksum && before.tso && !before.lro);
    assert!(!after.tx_checksum && !after.tso && after.gro);
    Offloads::set(WIRE, Offload::Gro, false).unwrap();
    Offloads::set(WIRE, Offload::TxChecksum, true).unwrap();
    Offloads::set(WIRE, Offload::Tso, false).unwrap();
    Offloads::set(WIRE, Offload::Gso, false).unwrap();
    Offloads::set(WIRE, Offload::Lro, false).unwrap();
    assert_eq!(Offloads::of(WIRE).unwrap(), Offloads { tx_checksum: true, ..Offloads::default() });
}

fn an_offload_that_cannot_be_changed_is_named() {
    let _wire = Wire::new();

    let absent = Offloads::of("nowhere").unwrap_err();
    let refused = Offloads::set(WIRE, Offload::Lro, true).unwrap_err();
    let too_long = Offloads::of("a-name-that-is-too-long").unwrap_err();

    assert!(absent.to_string().starts_with("cannot read TxChecksum of nowhere: No such device"), "{absent}");
    assert!(matches!(refused, OffloadError::Refused { action: "set", offload: Offload::Lro, .. }));
    assert!(matches!(too_long, OffloadError::InterfaceName(_)));
}
