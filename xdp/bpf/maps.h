/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The maps. Sizes of the tables of connections are defaults: the loader sets the configured ones. */
#pragma once

#include "structs.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Connections beyond the handshake. Never evicts: a full table refuses. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, struct flow_key);
	__type(value, struct flow_entry);
} flows SEC(".maps");

/* The same over IPv6. Maps of both versions are apart, so that each entry is as short as it can be; and memory for this one is
 * taken as it is needed, since most clusters have one version or little of the other. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct flow_key_v6);
	__type(value, struct flow_entry);
} flows_v6 SEC(".maps");

/* Half-open connections, apart, so that a flood of them displaces nothing but half-open ones. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct flow_key);
	__type(value, struct flow_entry);
} half_open SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct flow_key_v6);
	__type(value, struct flow_entry);
} half_open_v6 SEC(".maps");

/* Flows of datagrams. Every datagram may be the first, so nothing tells a flow from a flood: those that were silent for
 * longest go, and never a connection. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct flow_key);
	__type(value, struct flow_entry);
} datagrams SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct flow_key_v6);
	__type(value, struct flow_entry);
} datagrams_v6 SEC(".maps");

/* Flows that user space has decided about; translated ones by both names, of the client's packets and of the real server's. Memory is
 * taken as it is needed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 19);
	__type(key, struct flow_key);
	__type(value, struct carried);
} carried SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 19);
	__type(key, struct flow_key_v6);
	__type(value, struct carried);
} carried_v6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HOPS_MAX);
	__type(key, __u32);
	__type(value, struct hop);
} hops SEC(".maps");

/* By the address that they send from. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SERVICES_MAX);
	__type(key, struct address);
	__type(value, struct translator);
} translators SEC(".maps");

/* What has become of connections that others may have to go on with, for user space to tell them. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, CHANGES_LEN);
} changes SEC(".maps");

/* Ports of packets whose first fragment was seen. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FRAGMENTED_MAX);
	__type(key, struct fragment_key);
	__type(value, struct fragment_ports);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SERVICES_MAX);
	__type(key, struct service_key);
	__type(value, struct service);
} services SEC(".maps");

/* Ports of services beside their own, by service address. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SERVICES_MAX);
	__type(key, struct address);
	__type(value, struct further_ports);
} further_ports SEC(".maps");

/* Services whose packets may go straight, by `straight_index`; of several in one place, one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << STRAIGHT_BITS);
	__type(key, __u32);
	__type(value, struct straight_way);
} straight_ways SEC(".maps");

/* A bit for each port that any service has: of TCP, then of UDP, where tunnels have one as well. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * BIT_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} service_ports SEC(".maps");

/* A bit for each address of `addresses`, by the exclusive or of its 16-bit words: most of what is not ours has none. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BIT_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} address_bits SEC(".maps");

/* Who owns which slot of the addresses that no node holds: two banks of SLOTS_MAX, as of candidate lists. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * SLOTS_MAX);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

/* MAC addresses that all nodes have for addresses of which all see all packets. The values say nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SERVICES_MAX);
	__type(key, struct mac);
	__type(value, __u8);
} shared_macs SEC(".maps");

/* Addresses, for packets of which nothing else is known. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SERVICES_MAX);
	__type(key, struct address);
	__type(value, struct home);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SERVICES_MAX);
	__type(key, struct address);
	__type(value, struct delivery);
} deliveries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NODES_MAX);
	__type(key, __u32);
	__type(value, struct node);
} nodes SEC(".maps");

/* Number of the node at a node address. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NODES_MAX);
	__type(key, struct address);
	__type(value, __u32);
} node_by_address SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NODES_MAX);
	__type(key, __u32);
	__type(value, struct node_counts);
} counts_by_node SEC(".maps");

/* Two banks of LISTS_MAX lists: user space fills the one that is not in use, then names it in the settings. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * LISTS_MAX);
	__type(key, __u32);
	__type(value, struct candidates);
} candidate_lists SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct error_limit);
} error_limit SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flood);
} flood SEC(".maps");

/* What the clock said at a jiffy: the jiffy above, ticks below. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} clock SEC(".maps");

static __always_inline int has_bit(void *map, __u32 first_word, __u32 bit)
{
	__u32 word = first_word + bit / 64;
	__u64 *bits = bpf_map_lookup_elem(map, &word);

	return bits && *bits >> (bit % 64) & 1;
}

static __always_inline struct settings *settings_of_this_node(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&settings, &first);
}

static __always_inline struct counters *counters_of_this_processor(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&counters, &first);
}
