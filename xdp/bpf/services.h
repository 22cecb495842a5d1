/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Which service, or which address of the cluster, a packet is for: director/src/ownership.rs. */
#pragma once

#include "verdict.h"

/* The port that a service is named by among whose further ports a packet's is, in network order; 0 if there is none. */
__noinline int named_port(const struct packet *packet)
{
	struct further_ports *further;
	__u16 port;

	if (!packet)
		return 0;
	further = bpf_map_lookup_elem(&further_ports, &packet->ip.destination);
	port = bpf_ntohs(packet->flow.service_port);
	for (int nth = 0; further && nth < FURTHER_MAX; nth++) {
		const struct further_range *range = &further->ranges[nth];

		if (!range->protocol)
			return 0;
		if (range->protocol == packet->flow.protocol && range->first <= port && port <= range->last)
			return range->port;
	}
	return 0;
}

/* The service of a packet whose ports are known. */
static __always_inline struct service *service_of(const struct packet *packet, const struct journey *journey)
{
	struct service_key key = {
		.address = packet->ip.destination,
		.port = packet->flow.service_port,
		.protocol = packet->flow.protocol,
	};
	struct service *service = bpf_map_lookup_elem(&services, &key);

	if (service || !journey->settings->has_further_ports)
		return service;
	key.port = named_port(packet);
	return key.port ? bpf_map_lookup_elem(&services, &key) : 0;
}

static __always_inline struct home *home_of(const struct address *address, __u32 flags)
{
	struct home *home = bpf_map_lookup_elem(&addresses, address);

	return home && home->flags & flags ? home : 0;
}
