/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The straight way of most packets: director/src/straight.rs, and rewrite/src/frame/plain.rs.
 *
 * A segment that carries on a connection which this node has forwarded needs three look-ups, of which one is in a hash: service,
 * entry, node. Nothing is decided here, and nothing refused: whatever is not exactly so goes the general way from its
 * beginning, as if there were no other (docs/decisions/0060-straight-ways-in-the-kernel.md).
 *
 * `is_ipv6` says of what version the segment is, `outer_is_ipv6` the same of the tunnel; both are constants where it is compiled. */
#pragma once

#include "flows.h"
#include "rewrite.h"

/* Control bits that say whether a segment only carries a connection on. */
#define TELLING (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)

static __always_inline __u32 header_len(int is_ipv6)
{
	return is_ipv6 ? IPV6_LEN : IPV4_LEN;
}

/* Fibonacci hashing (Knuth, TAOCP vol. 3, section 6.4), as in src/tables/straight.rs. */
static __always_inline __u32 straight_index(__u64 name)
{
	return name * 0x9e3779b97f4a7c15ull >> (64 - STRAIGHT_BITS);
}

static __always_inline struct straight_way *way_of_ipv4(const __u8 *ip, __be16 port)
{
	__be32 address = *(__be32 *)(ip + IPV4_DESTINATION);
	__u32 index = straight_index((__u64)address << 16 | port);
	struct straight_way *way = bpf_map_lookup_elem(&straight_ways, &index);

	return way && way->version == 4 && way->address.words[3] == address ? way : 0;
}

static __always_inline struct straight_way *way_of_ipv6(const __u8 *ip, __be16 port)
{
	const __u64 *address = (const __u64 *)(ip + IPV6_DESTINATION), *its;
	__u32 index = straight_index(address[0] ^ address[1] ^ port);
	struct straight_way *way = bpf_map_lookup_elem(&straight_ways, &index);

	if (!way || way->version != 6)
		return 0;
	its = (const __u64 *)way->address.words;
	return its[0] == address[0] && its[1] == address[1] ? way : 0;
}

/* Whether bytes may begin with a segment for a service that has a straight way: what else they may be, is found out later. */
static __always_inline int may_go_straight(const __u8 *ip, int is_ipv6)
{
	__be16 port = *(__be16 *)(ip + header_len(is_ipv6) + 2);
	struct straight_way *way = is_ipv6 ? way_of_ipv6(ip, port) : way_of_ipv4(ip, port);

	return way && way->port == port;
}

static __always_inline __u32 total_len_of(const __u8 *ip, int is_ipv6)
{
	return is_ipv6 ? IPV6_LEN + bpf_ntohs(*(__be16 *)(ip + IPV6_PAYLOAD_LENGTH)) :
			 bpf_ntohs(*(__be16 *)(ip + IPV4_TOTAL_LENGTH));
}

/* Whether an IP header is one without options and extension headers, in front of TCP, and the packet may be forwarded. */
static __always_inline int has_plain_header(__u8 *ip, int is_ipv6)
{
	if (is_ipv6)
		return ip[0] >> 4 == 6 && ip[IPV6_PROTOCOL] == PROTOCOL_TCP && ip[IPV6_HOP_LIMIT] > 1;
	return ip[0] == 0x45 && ip[IPV4_PROTOCOL] == PROTOCOL_TCP && ip[IPV4_TTL] > 1 &&
	       !(*(__be16 *)(ip + IPV4_FRAGMENT) & bpf_htons(FRAGMENT_MASK)) && header_checksum_holds(ip, IPV4_LEN, 0);
}

/* Whether `len` bytes are a whole segment that carries a connection on, and may be forwarded. */
static __always_inline int is_plain(__u8 *ip, __u32 len, int is_ipv6)
{
	const __u8 *tcp = ip + header_len(is_ipv6);
	__u32 total_len = total_len_of(ip, is_ipv6), tcp_len = (tcp[12] >> 4) * 4;

	return (tcp[13] & TELLING) == TCP_ACK && tcp_len >= TCP_LEN && header_len(is_ipv6) + tcp_len <= total_len &&
	       total_len <= len && has_plain_header(ip, is_ipv6);
}

/* What is known of a plain segment's connection. Keys are a `struct flow_key` by words: what is stored in parts has to be waited for
 * when it is hashed as a whole. */
static __always_inline struct flow_entry *entry_of(const __u8 *ip, int is_ipv6)
{
	__u64 first = *(__be32 *)(ip + header_len(is_ipv6)) | (__u64)PROTOCOL_TCP << 32;
	const __u64 *ends = (const __u64 *)(ip + (is_ipv6 ? IPV6_SOURCE : IPV4_SOURCE));

	if (is_ipv6) {
		__u64 key[] = { first, ends[0], ends[1], ends[2], ends[3] };

		return bpf_map_lookup_elem(&flows_v6, key);
	} else {
		__u64 key[] = { first, ends[0] };

		return bpf_map_lookup_elem(&flows, key);
	}
}

/* The same, if nothing but its deadline changes. */
static __always_inline struct flow_entry *established(const __u8 *ip, __u32 now, int is_ipv6)
{
	struct flow_entry *entry = entry_of(ip, is_ipv6);

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

/* The first word of an outer header over IPv6: flow_hash.h, of a packet that is not parsed. */
static __always_inline __u32 first_word_of(const __u8 *ip, __u8 tos, __u32 seed, int is_ipv6)
{
	__u32 hash;

	if (is_ipv6)
		hash = mix_address(mix_address(seed, (const struct address *)(ip + IPV6_SOURCE)),
				   (const struct address *)(ip + IPV6_DESTINATION));
	else
		hash = mix(mix(seed, bpf_ntohl(*(__be32 *)(ip + IPV4_SOURCE))),
			   bpf_ntohl(*(__be32 *)(ip + IPV4_DESTINATION)));
	hash = finish(mix(hash, bpf_ntohl(*(__be32 *)(ip + header_len(is_ipv6)))));
	return (__u32)tos << 20 | LABEL_MAGIC | (hash & LABEL_FLOW_MASK);
}

/* Puts a plain segment into a tunnel, and sends it on, if it fits. */
static __always_inline int tunnel_straight(struct xdp_md *ctx, const struct journey *journey, const __u8 *ip,
					   struct flow_entry *entry, __u32 now, int is_ipv6, int outer_is_ipv6)
{
	const struct settings *settings = journey->settings;
	__u8 tos = is_ipv6 ? ip[0] << 4 | ip[1] >> 4 : ip[IPV4_TOS], protocol = is_ipv6 ? PROTOCOL_IPV6 : PROTOCOL_IPV4;
	__u32 first_word = outer_is_ipv6 ? first_word_of(ip, tos, settings->flow_seed, is_ipv6) : 0;
	__u32 len = total_len_of(ip, is_ipv6), outer_len = header_len(outer_is_ipv6);
	struct node *node = reachable(entry->real_server, len + outer_len);
	__u8 *frame, *inner;

	if (!node || bpf_xdp_adjust_head(ctx, -(int)outer_len))
		return GO_ON;
	entry->deadline = deadline(settings, now, ESTABLISHED);
	journey->counters->packets_forwarded++;
	frame = BYTES_AT(ctx, 0, ETHERNET_LEN + outer_len + IPV4_LEN);
	if (!frame) {
		count_drop(DROP_TRUNCATED);
		return XDP_DROP;
	}
	inner = frame + ETHERNET_LEN + outer_len;
	write_ttl(inner, is_ipv6, inner[is_ipv6 ? IPV6_HOP_LIMIT : IPV4_TTL] - 1);
	if (outer_is_ipv6)
		write_ipv6_header(frame + ETHERNET_LEN, first_word, len, protocol, &settings->address, &node->address);
	else
		write_header(frame + ETHERNET_LEN, tos, len + outer_len, HOPS_MAGIC, protocol,
			     settings->address.words[3], node->address.words[3]);
	write_ethernet_to(frame, node, ethertype_of(outer_is_ipv6));
	return node->link == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(node->link, 0);
}

/* Sends a packet on, if it goes straight; what other steps there are otherwise. */
static __always_inline int go_straight(struct xdp_md *ctx, const struct journey *journey, int is_ipv6)
{
	__u8 *ip = BYTES_AT(ctx, ETHERNET_LEN, header_len(is_ipv6) + TCP_LEN);
	struct flow_entry *entry;
	__u32 now;

	if (!ip || !may_go_straight(ip, is_ipv6) || !is_plain(ip, ctx->data_end - ctx->data - ETHERNET_LEN, is_ipv6))
		return GO_ON;
	now = ticks_now();
	entry = established(ip, now, is_ipv6);
	if (!entry)
		return GO_ON;
	return journey->settings->is_ipv6 ? tunnel_straight(ctx, journey, ip, entry, now, is_ipv6, 1) :
					    tunnel_straight(ctx, journey, ip, entry, now, is_ipv6, 0);
}
