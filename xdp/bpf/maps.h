/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The maps. Sizes of the two connection tables are defaults: the loader sets the configured ones. */
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

/* Half-open connections, apart, so that a flood of them displaces nothing but half-open ones. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct flow_key);
	__type(value, struct flow_entry);
} half_open SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SERVICES_MAX);
	__type(key, struct service_key);
	__type(value, struct service);
} services SEC(".maps");

/* A bit for each port that any service has. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} service_ports SEC(".maps");

/* Flags of addresses, for packets of which nothing else is known. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SERVICES_MAX);
	__type(key, __be32);
	__type(value, enum address_flag);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SERVICES_MAX);
	__type(key, __be32);
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
	__type(key, __be32);
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
