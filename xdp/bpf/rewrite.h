/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Which bytes change for delivery and forwarding, and changing them: rewrite/src/edit.rs and rewrite/src/tunnel.rs.
 *
 * Every function that fails answers the reason to drop. Pointers into the frame are fetched anew after each change of
 * its length. */
#pragma once

#include "parse.h"
#include "verdict.h"

#define ECN_MASK 0x3
#define ECN_NOT_CAPABLE 0
#define ECN_1 1
#define ECN_CONGESTION 3

/* The TOS of a packet that leaves its tunnel (RFC 6040, figure 4), or -1 when it must not leave it. */
static __always_inline int tos_after_decapsulation(__u32 inner, __u32 outer)
{
	__u32 ecn = inner & ECN_MASK;

	switch (outer & ECN_MASK) {
	case ECN_CONGESTION:
		if (ecn == ECN_NOT_CAPABLE)
			return -1;
		ecn = ECN_CONGESTION;
		break;
	case ECN_1:
		if (ecn != ECN_NOT_CAPABLE && ecn != ECN_CONGESTION)
			ecn = ECN_1;
		break;
	}
	return (inner & ~ECN_MASK) | ecn;
}

/* Congestion that the tunnel saw becomes the packet's. */
static __always_inline int decapsulate(struct xdp_md *ctx, struct packet *packet, const struct journey *journey)
{
	int tos;
	__u8 *ip;

	if (!journey->decapsulate)
		return WELL;
	tos = tos_after_decapsulation(packet->ip.tos, journey->outer_tos);
	if (tos < 0)
		return DROP_ECN_NOT_CAPABLE;
	if (tos == packet->ip.tos)
		return WELL;
	ip = BYTES_AT(ctx, packet->ip.at, IPV4_LEN);
	if (!ip)
		return DROP_TRUNCATED;
	edit_checksum(ip + IPV4_CHECKSUM, packet->ip.tos << 8 | ip[0], tos << 8 | ip[0]);
	ip[IPV4_TOS] = tos;
	packet->ip.tos = tos;
	return WELL;
}

static __always_inline int decrement_ttl(struct xdp_md *ctx, const struct packet *packet)
{
	__u8 *ip = BYTES_AT(ctx, packet->ip.at, IPV4_LEN);

	if (!ip)
		return DROP_TRUNCATED;
	if (packet->ip.ttl <= 1)
		return DROP_TTL_EXPIRED;
	edit_checksum(ip + IPV4_CHECKSUM, packet->ip.ttl, packet->ip.ttl - 1);
	ip[IPV4_TTL] = packet->ip.ttl - 1;
	return WELL;
}

static __always_inline void write_header(__u8 *ip, __u8 tos, __u16 total_len, __u16 id, __u8 protocol,
					 __be32 source, __be32 destination)
{
	__u64 sum = 0;

	ip[0] = 0x45;
	ip[IPV4_TOS] = tos;
	*(__be16 *)(ip + IPV4_TOTAL_LENGTH) = bpf_htons(total_len);
	*(__be16 *)(ip + IPV4_ID) = bpf_htons(id);
	*(__be16 *)(ip + IPV4_FRAGMENT) = bpf_htons(DONT_FRAGMENT);
	ip[IPV4_TTL] = HOP_LIMIT;
	ip[IPV4_PROTOCOL] = protocol;
	*(__u16 *)(ip + IPV4_CHECKSUM) = 0;
	*(__be32 *)(ip + IPV4_SOURCE) = source;
	*(__be32 *)(ip + IPV4_DESTINATION) = destination;
#pragma unroll
	for (int at = 0; at < IPV4_LEN; at += 4)
		sum += *(__u32 *)(ip + at);
	*(__u16 *)(ip + IPV4_CHECKSUM) = ~fold(sum);
}

static __always_inline void write_ethernet(__u8 *frame, const __u8 *destination, const __u8 *source)
{
	__builtin_memcpy(frame, destination, MAC_LEN);
	__builtin_memcpy(frame + MAC_LEN, source, MAC_LEN);
	*(__be16 *)(frame + 2 * MAC_LEN) = bpf_htons(ETHERTYPE_IPV4);
}

/* Puts the packet into a tunnel to another node, and sends it there. */
static __always_inline int apply_forward(struct xdp_md *ctx, struct packet *packet, const struct journey *journey,
					 const struct verdict *verdict, int *action)
{
	struct node *node = bpf_map_lookup_elem(&nodes, &verdict->node);
	int broken = decapsulate(ctx, packet, journey);
	__u8 *frame;

	if (broken == WELL)
		broken = decrement_ttl(ctx, packet);
	if (broken != WELL)
		return broken;
	if (!node || !(node->flags & NODE_REACHABLE))
		return DROP_NO_NEIGHBOUR;
	if (bpf_xdp_adjust_head(ctx, (int)journey->decapsulate - IPV4_LEN))
		return DROP_TRANSMIT_FAILED;
	frame = BYTES_AT(ctx, 0, ETHERNET_LEN + IPV4_LEN);
	if (!frame)
		return DROP_TRUNCATED;
	write_ethernet(frame, node->mac, node->source_mac);
	write_header(frame + ETHERNET_LEN, packet->ip.tos, packet->ip.total_len + IPV4_LEN, HOPS_MAGIC | verdict->hops,
		     PROTOCOL_IPV4, journey->settings->address, node->address);
	*action = node->link == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(node->link, 0);
	return WELL;
}

/* What an ICMP error quotes had been sent the other way: its source is translated as the packet's destination is, so
 * that the local stack recognises its own segment. */
static __always_inline int translate_quote(struct xdp_md *ctx, const struct packet *packet, __be32 to)
{
	const struct header *quote = &packet->quote;
	__u32 transport_at = quote->at + quote->len;
	__u32 end = packet->ip.at + packet->ip.total_len;
	__u8 *icmp = BYTES_AT(ctx, packet->ip.at + packet->ip.len, ICMP_LEN);
	__u8 *quoted = BYTES_AT(ctx, quote->at, IPV4_LEN);
	__u8 *tcp = BYTES_AT(ctx, transport_at, TCP_CHECKSUM + 2);
	__u16 before;

	if (!icmp || !quoted)
		return DROP_TRUNCATED;
	edit_checksum(icmp + ICMP_CHECKSUM, quote->source, to);
	*(__be32 *)(quoted + IPV4_SOURCE) = to;
	before = *(__u16 *)(quoted + IPV4_CHECKSUM);
	edit_checksum(quoted + IPV4_CHECKSUM, quote->source, to);
	edit_checksum(icmp + ICMP_CHECKSUM, before, *(__u16 *)(quoted + IPV4_CHECKSUM));
	if (quote->at + quote->total_len < end)
		end = quote->at + quote->total_len;
	if (!tcp || transport_at + TCP_CHECKSUM + 2 > end)
		return WELL;
	before = *(__u16 *)(tcp + TCP_CHECKSUM);
	edit_checksum(tcp + TCP_CHECKSUM, quote->source, to);
	edit_checksum(icmp + ICMP_CHECKSUM, before, *(__u16 *)(tcp + TCP_CHECKSUM));
	return WELL;
}

static __always_inline int translate(struct xdp_md *ctx, const struct packet *packet, __be32 to)
{
	__u8 *ip = BYTES_AT(ctx, packet->ip.at, IPV4_LEN);
	__u8 *tcp = BYTES_AT(ctx, packet->ip.at + packet->ip.len, TCP_CHECKSUM + 2);
	__be32 from = packet->ip.destination;

	if (!ip)
		return DROP_TRUNCATED;
	*(__be32 *)(ip + IPV4_DESTINATION) = to;
	edit_checksum(ip + IPV4_CHECKSUM, from, to);
	if (packet->kind == KIND_ICMP_ERROR)
		return translate_quote(ctx, packet, to);
	if (!tcp)
		return DROP_TRUNCATED;
	edit_checksum(tcp + TCP_CHECKSUM, from, to);
	return WELL;
}

/* Takes the packet out of its tunnel and gives it to the local TCP stack at the delivery address. */
static __always_inline int apply_delivery(struct xdp_md *ctx, struct packet *packet, const struct journey *journey,
					  __be32 delivery)
{
	__u8 source[MAC_LEN];
	__u8 *frame = BYTES_AT(ctx, 0, ETHERNET_LEN);
	int broken = decapsulate(ctx, packet, journey);

	if (broken == WELL)
		broken = translate(ctx, packet, delivery);
	if (broken != WELL)
		return broken;
	if (!frame)
		return DROP_TRUNCATED;
	__builtin_memcpy(source, frame + MAC_LEN, MAC_LEN);
	if (journey->decapsulate && bpf_xdp_adjust_head(ctx, journey->decapsulate))
		return DROP_TRANSMIT_FAILED;
	frame = BYTES_AT(ctx, 0, ETHERNET_LEN);
	if (!frame)
		return DROP_TRUNCATED;
	/* Whatever MAC address it was sent to: TCP takes nothing that came for a group. */
	write_ethernet(frame, journey->settings->mac, source);
	return WELL;
}
