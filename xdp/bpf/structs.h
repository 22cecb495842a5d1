/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Keys and values of maps. src/abi.rs has the same types for user space; a test compares both by BTF. */
#pragma once

#include "constants.h"
#include <linux/types.h>

enum tcp_state {
	HALF_OPEN,
	ESTABLISHED,
	FIN,
	RESET,
	CLOSED,
	TCP_STATES,
};

enum policy {
	POLICY_LOCAL_ESTIMATES,
	POLICY_LIGHTEST,
	POLICY_INVERSE,
	POLICY_ROUND_ROBIN,
	POLICY_STATELESS,
};

/* How a connection's packets go to their real server. */
enum method {
	METHOD_IPIP,
	METHOD_GUE,
	METHOD_DR,
};

/* By which right an owner owns an address: the `Tenure` of director/src/ownership.rs, and what user space decides. */
enum tenure {
	/* Nobody else may own it. */
	TENURE_HOME,
	/* Others may become owner: it acts only while its right lasts. */
	TENURE_LEASED,
	/* The address is changing hands: this node does not act, and knows nobody who does. */
	TENURE_PENDING,
	/* No node holds the address: `slots` says who decides, and by which right. */
	TENURE_BY_SLOT,
};

/* What of a flow decides about its slot: the `PartitionBy` of model/src/sharing.rs. */
enum partition {
	PARTITION_SOURCE_ADDRESS_AND_PORT,
	PARTITION_SOURCE_ADDRESS,
	PARTITION_DESTINATION_ADDRESS,
	PARTITION_SOURCE_PORT,
	PARTITION_DESTINATION_PORT,
	PARTITION_ALL,
	/* Where there are no ports. */
	PARTITION_ADDRESSES,
};

enum sharing_flag {
	/* Connections that this node keeps get entries, of which others hear. */
	SHARING_REMEMBERS_KEPT = 1,
	/* The address is changing hands: this node acts for none of its slots. */
	SHARING_CHANGES_HANDS = 2,
	/* All nodes see all packets: what another one owns, that one sees too. */
	SHARING_ALL_SEE = 4,
};

/* An address. IPv4 as it is mapped into IPv6 (RFC 4291, section 2.5.5.2). */
struct address {
	__be32 words[4];
};

/* A MAC address, as a key. */
struct mac {
	__u8 bytes[MAC_LEN];
	__u8 zero[2];
};

/* Name of a connection over IPv4, or of a flow of datagrams. */
struct flow_key {
	__be16 client_port;
	__be16 service_port;
	__u8 protocol;
	__u8 zero[3];
	__be32 client;
	__be32 service;
};

/* The same over IPv6. It begins as the other one does. */
struct flow_key_v6 {
	__be16 client_port;
	__be16 service_port;
	__u8 protocol;
	__u8 zero[3];
	struct address client;
	struct address service;
};

/* What the connection-forwarding table knows about a connection. */
struct flow_entry {
	/* The client's initial sequence number. */
	__u32 generation;
	/* When the entry is over, in ticks of the monotonic clock. */
	__u32 deadline;
	/* Number of the node that terminates the connection. */
	__u16 real_server;
	enum tcp_state state : 8;
	/* In which of this node's terms as the owner it was made; it is void in all others. Of an address that is owned by slot
	 * it counts the terms of the address and of the slot together. */
	__u8 term;
};

/* What has become of a connection that others may have to go on with; addresses of IPv4 are mapped. */
struct change {
	struct flow_key_v6 flow;
	struct flow_entry entry;
};

struct service_key {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 zero;
};

struct service {
	/* Delivery address on this node, if there is one. */
	struct address delivery;
	/* Number of the node that owns all slots of the address. */
	__u16 owner;
	/* Which list of candidates a new connection chooses from. */
	__u16 candidates;
	enum tenure tenure : 8;
	enum method method : 8;
	/* Whether the host has the service address itself: packets are delivered as they are. */
	__u8 is_alias;
	__u8 has_delivery;
	/* How often this node has become the owner; the count wraps below TERM_BY_SLOT. */
	__u8 term;
	/* Whether connections that it does not know may have begun before this term: user space asks who knows them. */
	__u8 is_recent;
	enum partition partition : 8;
	enum sharing_flag sharing : 8;
	/* Whether user space decides about its flows, and enters those that the programs may carry on. */
	__u8 is_begun_above;
	__u8 zero;
	/* The port that it is named by: slots of flows to its further ports are those of flows to this one. */
	__be16 port;
};

/* Ports that a service has beside its own. */
struct further_range {
	__u16 first;
	__u16 last;
	/* The port that the service is named by. */
	__be16 port;
	/* 0 where there is no range, and none behind it. */
	__u8 protocol;
	__u8 zero;
};

/* Those of all services of an address, in the order in which they are looked at. */
struct further_ports {
	struct further_range ranges[FURTHER_MAX];
};

/* A service of TCP, of whose established connections nothing has to be known but their entries: this node decides about it, and
 * sends them on by ipip. It is emptied before it is another one: a part of it, and zeros, is no service. */
struct straight_way {
	struct address address;
	__be16 port;
	/* 4 or 6, or 0 where there is none. */
	__u8 version;
	__u8 zero;
};

/* A slot of the addresses that no node holds. */
struct slot {
	/* Number of its owner. */
	__u16 owner;
	enum tenure tenure : 8;
	/* How often this node has become its owner; the count wraps. */
	__u8 term;
	/* As in `service`. */
	__u8 is_recent;
	__u8 zero[3];
};

enum address_flag {
	/* A service address of the cluster. */
	ADDRESS_SERVICE = 1,
	/* The node address: tunnels end here. */
	ADDRESS_NODE = 2,
	/* Nobody on this host answers ARP for it but we. */
	ADDRESS_ANSWER_ARP = 4,
	/* Packets for a TCP service of it come by direct routing. */
	ADDRESS_DIRECT_TCP = 8,
	/* The same of UDP. */
	ADDRESS_DIRECT_UDP = 16,
};

/* What is known about an address where there are no ports. */
struct home {
	enum address_flag flags;
	/* Of a service address: owner and delivery, and by which tunnel packets are handed to the owner. */
	struct service service;
};

/* What all fragments of a packet have in common. */
struct fragment_key {
	struct address source;
	struct address destination;
	__u32 id;
	__u8 protocol;
	__u8 zero[3];
};

/* What the first one said. */
struct fragment_ports {
	__be16 client_port;
	__be16 service_port;
	/* When it is forgotten, in ticks of the monotonic clock. */
	__u32 deadline;
};

/* For whom a delivery address stands. */
struct delivery {
	struct address service;
	/* Upper bound for the MSS of SYN-ACKs; 0xffff for connections that come without a tunnel. */
	__u16 mss_max;
	__u16 zero;
};

enum node_flag {
	/* The cluster knows the node and its address. */
	NODE_KNOWN = 1,
	/* Its reports come. */
	NODE_ALIVE = 2,
	/* The MAC addresses are valid. */
	NODE_REACHABLE = 4,
	/* It took leave: entries that name it are void. */
	NODE_OVER = 8,
};

enum carried_flag {
	/* It is the flow's way back. */
	CARRIED_REPLY = 1,
	/* It is sent on as it is, by the method of its service. */
	CARRIED_AS_SENT = 2,
};

/* How a packet of a flow goes on that user space has decided about. */
struct carried {
	/* What it leaves with, if it is translated. */
	struct address source;
	struct address destination;
	/* The ports of both, as in a packet. */
	__be32 ports;
	/* When the last one came, in ticks of the monotonic clock. */
	__u32 seen;
	/* The client's initial sequence number, and what the cluster calls the real server; both for user space. */
	__u32 generation;
	__u32 real_server;
	/* Which of the hops is next; where it is sent on as it is, which node terminates it. */
	__u16 next;
	enum carried_flag flags : 8;
	/* As in `flow_entry`; of a way back nothing. */
	__u8 term;
};

/* A neighbour by which translated packets leave, on the interface that packets come in on. */
struct hop {
	__u8 mac[MAC_LEN];
	/* Largest IP packet on the way to it; 0 while its MAC address is not known. */
	__u16 mtu;
};

/* Who sends translated packets from an address, and from which ports. */
struct translator {
	__u32 node;
	__u16 first_port;
	__u16 last_port;
};

struct node {
	/* What the cluster calls it; for user space, which so finds its numbers again. */
	__u32 id;
	struct address address;
	/* Interface that leads to it. */
	__u32 link;
	/* Of the next hop. */
	__u8 mac[MAC_LEN];
	/* Of the interface. */
	__u8 source_mac[MAC_LEN];
	enum node_flag flags : 16;
	/* Largest IP packet that goes to it. */
	__u16 mtu;
};

/* What the kernel counts about a node; user space reads and never writes. */
struct node_counts {
	/* Connections given to it. */
	__u64 sent;
	/* Connections received from it as a director. */
	__u64 received;
	/* Times that it was chosen by turn. */
	__u64 turns;
};

struct candidate {
	/* Value of `sent` up to which connections are known to its load report, or forgiven. */
	__u64 settled;
	/* Value of `turns` when the node became a candidate. */
	__u64 turns_settled;
	__u32 capacity;
	__u16 load;
	__u16 weight;
	__u16 node;
	__u16 zero[3];
};

/* Nodes that may be chosen for some services, in order of id. */
struct candidates {
	__u32 count;
	/* Position of this node, or `count`. */
	__u32 own;
	struct candidate list[CANDIDATES_MAX];
};

/* The next hop of the default route. */
struct router {
	__u8 mac[MAC_LEN];
	/* Whether there is one, and its MAC address is known. */
	__u8 is_known;
	__u8 zero;
};

struct settings {
	/* Until when this node may decide, boot-time clock. */
	__u64 lease_until_ns;
	/* Until when it may act for addresses that others could own, by the same clock. */
	__u64 owns_until_ns;
	struct address address;
	/* Delivery addresses of both versions; no mask where there are none. */
	__be32 delivery_network;
	__be32 delivery_mask;
	struct address delivery_network_v6;
	struct address delivery_mask_v6;
	/* Patience for each state of TCP, ticks. */
	__u32 timeout[TCP_STATES];
	__u16 maxload;
	/* Of the interface that packets come in on. */
	__u8 mac[MAC_LEN];
	enum policy policy : 8;
	__u8 frozen;
	/* Which half of the candidate lists and of the slots is in use. */
	__u8 bank;
	/* Whether the node addresses, and so the outer headers of tunnels, are of IPv6. */
	__u8 is_ipv6;
	/* Where answers go whose way back is not the way they came. */
	struct router router;
	struct router router_v6;
	/* Patience after a datagram, ticks. */
	__u32 timeout_udp;
	/* Keeps strangers from aiming at one path (rewrite/src/flow_hash.rs). */
	__u32 flow_seed;
	/* Handshakes a second that nobody completed, from which on SYNs get no entries. */
	__u32 flood_from;
	/* By how much to shift a hash of 64 bits so that a slot is left. */
	__u32 slot_shift;
	/* Whether there are translators. */
	__u32 peers_translate;
	/* Whether there are services of further ports. */
	__u32 has_further_ports;
};

/* Cumulative, for each processor. */
struct counters {
	__u64 connections_kept;
	__u64 connections_forwarded;
	__u64 loops_stopped;
	__u64 packets_forwarded;
	__u64 packets_delivered;
	__u64 packets_received;
	__u64 packets_replied;
	/* Packets that went back through this node as their director. */
	__u64 nat_replies;
	__u64 icmp_too_big_sent;
	__u64 arp_answered;
	/* Connections that found no room among the established ones. */
	__u64 refused_full;
	/* SYNs of a flood, that went by their flow's hash and got no entry. */
	__u64 syns_without_entry;
	__u64 drops[DROP_REASONS];
};

/* How many handshakes nobody completes. */
struct flood {
	/* Which window is counted. */
	__u32 window;
	/* SYNs in it, less handshakes that were completed in it. */
	__s32 open;
	/* Until when SYNs get no entries, ticks of the monotonic clock; 0 before the first flood. */
	__u32 until;
	__u32 zero;
};

/* A token bucket for ICMP errors. */
struct error_limit {
	__u64 refilled_ns;
	__u64 tokens;
};
