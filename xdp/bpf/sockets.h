/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the local stack knows about a flow: node/src/dataplane/userspace/kernel_sockets.rs. */
#pragma once

#include "flows.h"

/* Both ends of a flow as the local stack knows them; the length of their names. */
static __always_inline __u32 name_sockets(struct bpf_sock_tuple *pair, const struct packet *packet,
					  const struct service *service)
{
	if (packet->ip.is_ipv6) {
		__builtin_memcpy(pair->ipv6.saddr, &packet->flow_v6.client, sizeof(pair->ipv6.saddr));
		__builtin_memcpy(pair->ipv6.daddr,
				 service->is_alias ? &packet->flow_v6.service : &service->delivery,
				 sizeof(pair->ipv6.daddr));
		pair->ipv6.sport = packet->flow.client_port;
		pair->ipv6.dport = packet->flow.service_port;
		return sizeof(pair->ipv6);
	}
	pair->ipv4.saddr = packet->flow.client;
	pair->ipv4.daddr = service->is_alias ? packet->flow.service : service->delivery.words[3];
	pair->ipv4.sport = packet->flow.client_port;
	pair->ipv4.dport = packet->flow.service_port;
	return sizeof(pair->ipv4);
}

/* Whether the local stack has a socket for exactly this flow: of TCP one that is neither LISTEN nor TIME_WAIT, whose state is the
 * answer; of UDP one that is connected. */
__noinline int holds_socket(struct xdp_md *ctx, const struct packet *packet, const struct service *service)
{
	struct bpf_sock_tuple pair = {};
	struct bpf_sock *socket;
	__u32 state, len;

	if (!packet || !service || !(service->is_alias || service->has_delivery))
		return 0;
	len = name_sockets(&pair, packet, service);
	if (is_datagram(packet)) {
		socket = bpf_sk_lookup_udp(ctx, &pair, len, BPF_F_CURRENT_NETNS, 0);
		if (!socket)
			return 0;
		state = socket->dst_port;
		bpf_sk_release(socket);
		return state;
	}
	socket = bpf_skc_lookup_tcp(ctx, &pair, len, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	state = socket->state;
	bpf_sk_release(socket);
	return state == BPF_TCP_LISTEN || state == BPF_TCP_TIME_WAIT || state == BPF_TCP_CLOSE ? 0 : state;
}
