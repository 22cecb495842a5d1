/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Which flow fragments are of: director/src/fragments.rs. A fragment that overtakes its first one is not kept for later. */
#pragma once

#include "flows.h"

/* 1 when the packet's ports are known: from itself, or from the first fragment. */
__noinline int find_ports(struct packet *packet)
{
	struct fragment_ports *first, ports;
	struct fragment_key key;
	__u32 now = ticks_now();

	if (!packet)
		return 0;
	key = (struct fragment_key){
		.source = packet->ip.source,
		.destination = packet->ip.destination,
		.id = packet->ip.id,
		.protocol = packet->ip.protocol,
	};
	if (packet->has_ports) {
		ports = (struct fragment_ports){
			.client_port = packet->flow.client_port,
			.service_port = packet->flow.service_port,
			.deadline = now + FRAGMENTED_TICKS,
		};
		bpf_map_update_elem(&fragments, &key, &ports, BPF_ANY);
		return 1;
	}
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first || (__s32)(first->deadline - now) < 0)
		return 0;
	packet->flow.client_port = first->client_port;
	packet->flow.service_port = first->service_port;
	return 1;
}
