//! The types of `abi` are those of the object, and so are the reasons to drop: compared by the object's BTF.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use btf::btf::{Btf, Type};
use dpr_model::DropReason;
use dpr_xdp::OBJECT;
use dpr_xdp::abi::{
    self, Candidate, Candidates, Carried, Change, Counters, Delivery, ErrorLimit, Flood, FlowEntry, FlowKey,
    FlowKeyV6, FragmentKey, FragmentPorts, FurtherPorts, FurtherRange, Home, Hop, Method, Node, NodeCounts,
    Partition, Policy, Router, Service, ServiceKey, Settings, Slot, StraightWay, TcpState, Tenure,
    Translator,
};
use object::{Object as _, ObjectSection as _};
use std::io::Write as _;
use std::mem::offset_of;

/// Name, and fields with their offsets in bytes.
type Layout = (&'static str, Vec<(&'static str, usize)>);

macro_rules! layout {
    ($name:literal $type:ident { $($field:ident)* }) => {
        ($name, vec![$((stringify!($field), offset_of!($type, $field)),)*])
    };
}

fn layouts() -> Vec<Layout> {
    vec![
        layout!("flow_key" FlowKey { client_port service_port protocol zero client service }),
        layout!("flow_key_v6" FlowKeyV6 { client_port service_port protocol zero client service }),
        layout!("flow_entry" FlowEntry { generation deadline real_server state term }),
        layout!("service_key" ServiceKey { address port protocol zero }),
        layout!("service" Service {
            delivery owner candidates tenure method is_alias has_delivery term is_recent partition sharing
            is_begun_above zero port
        }),
        layout!("further_range" FurtherRange { first last port protocol zero }),
        layout!("further_ports" FurtherPorts { ranges }),
        layout!("straight_way" StraightWay { address port version zero }),
        layout!("slot" Slot { owner tenure term is_recent zero }),
        layout!("home" Home { flags service }),
        layout!("fragment_key" FragmentKey { source destination id protocol zero }),
        layout!("fragment_ports" FragmentPorts { client_port service_port deadline }),
        layout!("delivery" Delivery { service mss_max zero }),
        layout!("carried" Carried {
            source destination ports seen generation real_server next flags term
        }),
        layout!("hop" Hop { mac mtu }),
        layout!("translator" Translator { node first_port last_port }),
        layout!("node" Node { id address link mac source_mac flags mtu }),
        layout!("node_counts" NodeCounts { sent received turns }),
        layout!("candidate" Candidate { settled turns_settled capacity load weight node zero }),
        layout!("candidates" Candidates { count own list }),
        layout!("router" Router { mac is_known zero }),
        layout!("settings" Settings {
            lease_until_ns owns_until_ns address delivery_network delivery_mask delivery_network_v6 delivery_mask_v6 timeout maxload
            mac policy frozen bank is_ipv6 router router_v6 timeout_udp flow_seed flood_from slot_shift
            peers_translate has_further_ports
        }),
        layout!("counters" Counters {
            connections_kept connections_forwarded loops_stopped packets_forwarded packets_delivered
            packets_received packets_replied nat_replies icmp_too_big_sent arp_answered
            refused_full syns_without_entry drops
        }),
        layout!("flood" Flood { window open until zero }),
        layout!("error_limit" ErrorLimit { refilled_ns tokens }),
    ]
}

#[test]
fn structs_have_the_fields_that_the_object_says() {
    let btf = btf_of_the_object();
    for (name, fields) in layouts() {
        let is_it = |candidate: &&btf::btf::FlattenedType| {
            candidate.name.as_deref() == Some(name) && matches!(candidate.base_type, Type::Struct(_))
        };
        let found = btf.get_types().iter().find(is_it).unwrap_or_else(|| panic!("no struct {name}"));
        let Type::Struct(its) = &found.base_type else { unreachable!("the search was for structs") };
        let members: Vec<(&str, usize)> = its
            .members
            .iter()
            .map(|member| (member.name.as_deref().unwrap_or_default(), member.offset as usize / 8))
            .collect();
        assert_eq!(members, fields, "struct {name}");
    }
}

#[test]
fn maps_have_keys_and_values_of_these_sizes() {
    let object = aya_obj::Object::parse(OBJECT).unwrap();
    let number = size_of::<u32>();
    let address = size_of::<abi::Address>();
    let expected = [
        ("address_bits", number, size_of::<u64>()),
        ("addresses", address, size_of::<Home>()),
        ("candidate_lists", number, size_of::<Candidates>()),
        // A ring of [`Change`]s.
        ("carried", size_of::<FlowKey>(), size_of::<Carried>()),
        ("carried_v6", size_of::<FlowKeyV6>(), size_of::<Carried>()),
        ("changes", 0, 0),
        ("clock", number, size_of::<u64>()),
        ("counters", number, size_of::<Counters>()),
        ("counts_by_node", number, size_of::<NodeCounts>()),
        ("datagrams", size_of::<FlowKey>(), size_of::<FlowEntry>()),
        ("datagrams_v6", size_of::<FlowKeyV6>(), size_of::<FlowEntry>()),
        ("deliveries", address, size_of::<Delivery>()),
        ("error_limit", number, size_of::<ErrorLimit>()),
        ("flood", number, size_of::<Flood>()),
        ("flows", size_of::<FlowKey>(), size_of::<FlowEntry>()),
        ("flows_v6", size_of::<FlowKeyV6>(), size_of::<FlowEntry>()),
        ("fragments", size_of::<FragmentKey>(), size_of::<FragmentPorts>()),
        ("further_ports", address, size_of::<FurtherPorts>()),
        ("half_open", size_of::<FlowKey>(), size_of::<FlowEntry>()),
        ("half_open_v6", size_of::<FlowKeyV6>(), size_of::<FlowEntry>()),
        ("hops", number, size_of::<Hop>()),
        ("node_by_address", address, number),
        ("nodes", number, size_of::<Node>()),
        ("service_ports", number, size_of::<u64>()),
        ("services", size_of::<ServiceKey>(), size_of::<Service>()),
        ("settings", number, size_of::<Settings>()),
        ("shared_macs", size_of::<abi::MacKey>(), 1),
        ("slots", number, size_of::<Slot>()),
        ("straight_ways", number, size_of::<StraightWay>()),
        ("translators", address, size_of::<Translator>()),
    ];
    let mut found: Vec<(&str, usize, usize)> = object
        .maps
        .iter()
        .map(|(name, map)| (name.as_str(), map.key_size() as usize, map.value_size() as usize))
        .collect();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn reasons_to_drop_have_the_names_and_the_order_of_the_rust_enum() {
    let expected: Vec<(String, i64)> = DropReason::ALL
        .iter()
        .map(|reason| {
            let name = format!("DROP_{}", reason.label().to_uppercase().replace('-', "_"));
            (name, reason.index() as i64)
        })
        .collect();

    assert_eq!(entries_of_enum("drop_reason"), expected);
    assert_eq!(expected.len(), abi::DROP_REASONS);
}

#[test]
fn states_policies_tenures_and_methods_have_the_numbers_of_the_rust_enums() {
    let states =
        [TcpState::HalfOpen, TcpState::Established, TcpState::Fin, TcpState::Reset, TcpState::Closed];
    let names = ["HALF_OPEN", "ESTABLISHED", "FIN", "RESET", "CLOSED"];
    let mut expected: Vec<(String, i64)> =
        names.iter().zip(states).map(|(name, state)| ((*name).to_owned(), state as i64)).collect();
    expected.push(("TCP_STATES".to_owned(), abi::TCP_STATES as i64));
    assert_eq!(entries_of_enum("tcp_state"), expected);

    let policies =
        [Policy::LocalEstimates, Policy::Lightest, Policy::Inverse, Policy::RoundRobin, Policy::Stateless];
    let names = ["LOCAL_ESTIMATES", "LIGHTEST", "INVERSE", "ROUND_ROBIN", "STATELESS"];
    let expected: Vec<(String, i64)> =
        names.iter().zip(policies).map(|(name, policy)| (format!("POLICY_{name}"), policy as i64)).collect();
    assert_eq!(entries_of_enum("policy"), expected);

    let tenures = [Tenure::Home, Tenure::Leased, Tenure::Pending, Tenure::BySlot];
    let names = ["HOME", "LEASED", "PENDING", "BY_SLOT"];
    let expected: Vec<(String, i64)> =
        names.iter().zip(tenures).map(|(name, tenure)| (format!("TENURE_{name}"), tenure as i64)).collect();
    assert_eq!(entries_of_enum("tenure"), expected);

    let methods = [Method::Ipip, Method::Gue, Method::Dr];
    let names = ["IPIP", "GUE", "DR"];
    let expected: Vec<(String, i64)> =
        names.iter().zip(methods).map(|(name, method)| (format!("METHOD_{name}"), method as i64)).collect();
    assert_eq!(entries_of_enum("method"), expected);
}

#[test]
fn what_divides_flows_has_the_numbers_of_the_rust_enum_and_slots_have_room() {
    let partitions = [
        ("SOURCE_ADDRESS_AND_PORT", Partition::SourceAddressAndPort),
        ("SOURCE_ADDRESS", Partition::SourceAddress),
        ("DESTINATION_ADDRESS", Partition::DestinationAddress),
        ("SOURCE_PORT", Partition::SourcePort),
        ("DESTINATION_PORT", Partition::DestinationPort),
        ("ALL", Partition::All),
        ("ADDRESSES", Partition::Addresses),
    ];
    let expected = partitions.map(|(name, partition)| (format!("PARTITION_{name}"), partition as i64));
    assert_eq!(entries_of_enum("partition"), expected);

    let object = aya_obj::Object::parse(OBJECT).unwrap();
    let slots = object.maps.get("slots").unwrap();
    assert_eq!(slots.max_entries() as usize, 2 * abi::SLOTS_MAX, "two banks");
    assert_eq!(usize::from(dpr_ownership::SlotCount::MAX.get()), abi::SLOTS_MAX);
}

#[test]
fn flags_have_the_bits_of_the_object() {
    use abi::{address_flag, carried_flag, node_flag, sharing_flag};
    let expected = [
        ("ADDRESS_SERVICE", address_flag::SERVICE),
        ("ADDRESS_NODE", address_flag::NODE),
        ("ADDRESS_ANSWER_ARP", address_flag::ANSWER_ARP),
        ("ADDRESS_DIRECT_TCP", address_flag::DIRECT_TCP),
        ("ADDRESS_DIRECT_UDP", address_flag::DIRECT_UDP),
    ];
    assert_eq!(
        entries_of_enum("address_flag"),
        expected.map(|(name, bit)| (name.to_owned(), i64::from(bit)))
    );
    let expected = [
        ("NODE_KNOWN", node_flag::KNOWN),
        ("NODE_ALIVE", node_flag::ALIVE),
        ("NODE_REACHABLE", node_flag::REACHABLE),
        ("NODE_OVER", node_flag::OVER),
    ];
    assert_eq!(entries_of_enum("node_flag"), expected.map(|(name, bit)| (name.to_owned(), i64::from(bit))));
    let expected = [
        ("SHARING_REMEMBERS_KEPT", sharing_flag::REMEMBERS_KEPT),
        ("SHARING_CHANGES_HANDS", sharing_flag::CHANGES_HANDS),
        ("SHARING_ALL_SEE", sharing_flag::ALL_SEE),
    ];
    assert_eq!(
        entries_of_enum("sharing_flag"),
        expected.map(|(name, bit)| (name.to_owned(), i64::from(bit)))
    );
    let expected = [("CARRIED_REPLY", carried_flag::REPLY), ("CARRIED_AS_SENT", carried_flag::AS_SENT)];
    assert_eq!(
        entries_of_enum("carried_flag"),
        expected.map(|(name, bit)| (name.to_owned(), i64::from(bit)))
    );
}

/// Every byte is a field: nothing hidden goes to the kernel, and keys are equal if their fields are.
#[test]
fn sizes_leave_no_room_for_padding() {
    assert_eq!(size_of::<FlowKey>(), 2 + 2 + 1 + 3 + 2 * 4);
    assert_eq!(size_of::<FlowKeyV6>(), 2 + 2 + 1 + 3 + 2 * 16);
    assert_eq!(size_of::<FlowEntry>(), 4 + 4 + 2 + 1 + 1);
    assert_eq!(size_of::<ServiceKey>(), 16 + 2 + 1 + 1);
    assert_eq!(size_of::<Change>(), size_of::<FlowKeyV6>() + size_of::<FlowEntry>());
    assert_eq!(size_of::<Service>(), 16 + 2 + 2 + 4 + 4 + 4);
    assert_eq!(size_of::<FurtherRange>(), 3 * 2 + 1 + 1);
    assert_eq!(size_of::<FurtherPorts>(), abi::FURTHER_MAX * size_of::<FurtherRange>());
    assert_eq!(size_of::<Slot>(), 2 + 1 + 1 + 1 + 3);
    assert_eq!(size_of::<Home>(), 4 + size_of::<Service>());
    assert_eq!(size_of::<FragmentKey>(), 2 * 16 + 4 + 1 + 3);
    assert_eq!(size_of::<FragmentPorts>(), 2 + 2 + 4);
    assert_eq!(size_of::<Carried>(), 2 * 16 + 2 * 2 + 3 * 4 + 2 + 1 + 1);
    assert_eq!(size_of::<Hop>(), 6 + 2);
    assert_eq!(size_of::<Translator>(), 4 + 2 + 2);
    assert_eq!(size_of::<Delivery>(), 16 + 2 + 2);
    assert_eq!(size_of::<Node>(), 4 + 16 + 4 + 6 + 6 + 2 + 2);
    assert_eq!(size_of::<NodeCounts>(), 3 * 8);
    assert_eq!(size_of::<Candidate>(), 8 + 8 + 4 + 6 * 2);
    assert_eq!(size_of::<Candidates>(), 4 + 4 + abi::CANDIDATES_MAX * size_of::<Candidate>());
    assert_eq!(size_of::<Router>(), 6 + 1 + 1);
    assert_eq!(
        size_of::<Settings>(),
        2 * 8 + 3 * 16 + 2 * 4 + abi::TCP_STATES * 4 + 2 + 6 + 4 + 2 * 8 + 6 * 4
    );
    assert_eq!(size_of::<Counters>(), (12 + abi::DROP_REASONS) * 8);
    assert_eq!(size_of::<Flood>(), 4 * 4);
    assert_eq!(size_of::<ErrorLimit>(), 2 * 8);
}

/// Names and values, in order.
fn entries_of_enum(name: &str) -> Vec<(String, i64)> {
    let btf = btf_of_the_object();
    let found = btf.get_types().iter().find_map(|candidate| match &candidate.base_type {
        Type::Enum32(its) if candidate.name.as_deref() == Some(name) => Some(its),
        _ => None,
    });
    let its = found.unwrap_or_else(|| panic!("no enum {name}"));
    its.entries.iter().map(|entry| (entry.name.clone().unwrap_or_default(), entry.value)).collect()
}

fn btf_of_the_object() -> Btf {
    let object = object::File::parse(OBJECT).unwrap();
    let section = object.section_by_name(".BTF").unwrap();
    // The library reads files only.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(section.data().unwrap()).unwrap();
    Btf::from_file(file.path()).unwrap()
}
