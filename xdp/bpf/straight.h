/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The straight way of most packets: director/src/straight.rs, and rewrite/src/frame/plain.rs.
 *
 * A segment over IPv4 that carries on a connection which this node has forwarded needs three look-ups, of which one is in a hash:
 * service, entry, node. Nothing is decided here, and nothing refused: whatever is not exactly so goes the general way from its
 * beginning, as if there were no other (docs/decisions/0060-straight-ways-in-the-kernel.md). */
#pragma once

#include "flows.h"
#include "rewrite.h"

/* Control bits that say whether a segment only carries a connection on. */
#define TELLING (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)
/* Both headers of a plain segment. */
#define PLAIN_LEN (IPV4_LEN + TCP_LEN)

/* Fibonacci hashing (Knuth, TAOCP vol. 3, section 6.4), as in src/tables/straight.rs. */
static __always_inline __u32 straight_index(__be32 address, __be16 port)
{
	return ((__u64)address << 16 | port) * 0x9e3779b97f4a7c15ull >> (64 - STRAIGHT_BITS);
}

/* Whether bytes may begin with a segment for a service that has a straight way: what else they may be, is found out later. */
static __always_inline int may_go_straight(const __u8 *ip)
{
	__be32 address = *(__be32 *)(ip + IPV4_DESTINATION);
	__be16 port = *(__be16 *)(ip + IPV4_LEN + 2);
	__u32 index = straight_index(address, port);
	struct straight_way *way = bpf_map_lookup_elem(&straight_ways, &index);

	return way && way->is_open && way->address == address && way->port == port;
}

/* Whether `len` bytes are a whole segment without IP options that carries a connection on, and may be forwarded. */
static __always_inline int is_plain(__u8 *ip, __u32 len)
{
	const __u8 *tcp = ip + IPV4_LEN;
	__u32 total_len = bpf_ntohs(*(__be16 *)(ip + IPV4_TOTAL_LENGTH)), tcp_len = (tcp[12] >> 4) * 4;

	return ip[0] == 0x45 && ip[IPV4_PROTOCOL] == PROTOCOL_TCP && ip[IPV4_TTL] > 1 &&
	       !(*(__be16 *)(ip + IPV4_FRAGMENT) & bpf_htons(FRAGMENT_MASK)) && (tcp[13] & TELLING) == TCP_ACK &&
	       tcp_len >= TCP_LEN && IPV4_LEN + tcp_len <= total_len && total_len <= len &&
	       header_checksum_holds(ip, IPV4_LEN, 0);
}

/* The entry of a plain segment's connection, if nothing but its deadline changes. */
static __always_inline struct flow_entry *established(const __u8 *ip, __u32 now)
{
	/* A `struct flow_key` by words: what is stored in parts has to be waited for when it is hashed as a whole. */
	__u64 key[] = { *(__be32 *)(ip + IPV4_LEN) | (__u64)PROTOCOL_TCP << 32, *(__u64 *)(ip + IPV4_SOURCE) };
	struct flow_entry *entry = bpf_map_lookup_elem(&flows, key);

	return entry && entry->state == ESTABLISHED && !entry->term && (__s32)(entry->deadline - now) > 0 ? entry : 0;
}

/* The node, if a packet in a tunnel reaches it. */
static __always_inline struct node *reachable(__u32 number, __u32 total_len)
{
	struct node *node = node_of(number);

	if (!node || (node->flags & (NODE_KNOWN | NODE_REACHABLE | NODE_OVER)) != (NODE_KNOWN | NODE_REACHABLE))
		return 0;
	return total_len <= node->mtu ? node : 0;
}

/* Puts a plain segment, for which there is room now, into a tunnel. */
static __always_inline int tunnel_straight(struct xdp_md *ctx, const struct settings *settings, const struct node *node,
					   __u32 total_len, __u8 tos)
{
	__u8 *frame = BYTES_AT(ctx, 0, ETHERNET_LEN + IPV4_LEN + IPV4_LEN), *inner = frame + ETHERNET_LEN + IPV4_LEN;

	if (!frame) {
		count_drop(DROP_TRUNCATED);
		return XDP_DROP;
	}
	edit_checksum(inner + IPV4_CHECKSUM, inner[IPV4_TTL], inner[IPV4_TTL] - 1);
	inner[IPV4_TTL]--;
	write_header(frame + ETHERNET_LEN, tos, total_len, HOPS_MAGIC, PROTOCOL_IPV4, settings->address.words[3],
		     node->address.words[3]);
	write_ethernet(frame, node->mac, node->source_mac, ETHERTYPE_IPV4);
	return node->link == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(node->link, 0);
}

/* Sends a packet on, if it goes straight; what other steps there are otherwise. */
static __always_inline int go_straight(struct xdp_md *ctx, const struct journey *journey)
{
	__u8 *ip = BYTES_AT(ctx, ETHERNET_LEN, PLAIN_LEN);
	struct flow_entry *entry;
	struct node *node;
	__u32 now, total_len;
	__u8 tos;

	if (!ip || !may_go_straight(ip) || !is_plain(ip, ctx->data_end - ctx->data - ETHERNET_LEN))
		return GO_ON;
	now = ticks_now();
	entry = established(ip, now);
	if (!entry)
		return GO_ON;
	tos = ip[IPV4_TOS];
	total_len = bpf_ntohs(*(__be16 *)(ip + IPV4_TOTAL_LENGTH)) + IPV4_LEN;
	node = reachable(entry->real_server, total_len);
	if (!node || bpf_xdp_adjust_head(ctx, -IPV4_LEN))
		return GO_ON;
	entry->deadline = deadline(journey->settings, now, ESTABLISHED);
	journey->counters->packets_forwarded++;
	return tunnel_straight(ctx, journey->settings, node, total_len, tos);
}
