/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Which bytes change for delivery and forwarding, and changing them: rewrite/src/edit.rs.
 *
 * Every function that fails answers the reason to drop. Pointers into the frame are fetched anew after each change of
 * its length. */
#pragma once

#include "tunnel.h"

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
	if (packet->ip.is_ipv6) {
		ip[0] = 6 << 4 | tos >> 4;
		ip[1] = tos << 4 | (ip[1] & 0xf);
	} else {
		edit_checksum(ip + IPV4_CHECKSUM, packet->ip.tos << 8 | ip[0], tos << 8 | ip[0]);
		ip[IPV4_TOS] = tos;
	}
	packet->ip.tos = tos;
	return WELL;
}

static __always_inline void write_ttl(__u8 *ip, int is_ipv6, __u8 ttl)
{
	if (is_ipv6) {
		ip[IPV6_HOP_LIMIT] = ttl;
		return;
	}
	edit_checksum(ip + IPV4_CHECKSUM, ip[IPV4_TTL], ttl);
	ip[IPV4_TTL] = ttl;
}

/* Leaves so much of the time to live of a packet that a forwarder need not drop. */
static __always_inline int lower_ttl(struct xdp_md *ctx, const struct packet *packet, __u8 ttl)
{
	__u8 *ip = BYTES_AT(ctx, packet->ip.at, IPV4_LEN);

	if (!ip)
		return DROP_TRUNCATED;
	if (packet->ip.ttl <= 1)
		return DROP_TTL_EXPIRED;
	write_ttl(ip, packet->ip.is_ipv6, ttl);
	return WELL;
}

static __always_inline __u16 ethertype_of(int is_ipv6)
{
	return is_ipv6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4;
}

/* By words: of what may be at any address, the compiler copies byte after byte. */
static __always_inline void copy_mac(void *to, const void *from)
{
	__u16 *its = to;
	const __u16 *words = from;

	its[0] = words[0];
	its[1] = words[1];
	its[2] = words[2];
}

static __always_inline void write_ethernet(__u8 *frame, const __u8 *destination, const __u8 *source, __u16 ethertype)
{
	copy_mac(frame, destination);
	copy_mac(frame + MAC_LEN, source);
	*(__be16 *)(frame + 2 * MAC_LEN) = bpf_htons(ethertype);
}

/* From the interface that leads to a node; its words have both MAC addresses. */
static __always_inline void write_ethernet_to(__u8 *frame, const struct node *node, __u16 ethertype)
{
	const __u64 *words = (const __u64 *)node->mac;

	_Static_assert(__builtin_offsetof(struct node, mac) % sizeof(__u64) == 0, "words may be read");
	_Static_assert(__builtin_offsetof(struct node, source_mac) == __builtin_offsetof(struct node, mac) + MAC_LEN,
		       "the addresses follow each other as in a frame");
	*(__u64 *)frame = words[0];
	*(__u32 *)(frame + sizeof(__u64)) = words[1];
	*(__be16 *)(frame + 2 * MAC_LEN) = bpf_htons(ethertype);
}

static __always_inline int send_to_node(struct xdp_md *ctx, const struct node *node, __u16 ethertype, int *action)
{
	__u8 *frame = BYTES_AT(ctx, 0, ETHERNET_LEN);

	if (!frame)
		return DROP_TRUNCATED;
	write_ethernet_to(frame, node, ethertype);
	*action = node->link == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(node->link, 0);
	return WELL;
}

/* Puts the packet into a tunnel to another node, and sends it there. */
static __always_inline int apply_forward(struct xdp_md *ctx, struct packet *packet, const struct journey *journey,
					 const struct verdict *verdict, int *action)
{
	struct node *node = bpf_map_lookup_elem(&nodes, &verdict->node);
	int broken = decapsulate(ctx, packet, journey);

	if (broken == WELL)
		broken = lower_ttl(ctx, packet, packet->ip.ttl - 1);
	if (broken != WELL)
		return broken;
	if (!node || !(node->flags & NODE_REACHABLE))
		return DROP_NO_NEIGHBOUR;
	if (bpf_xdp_adjust_head(ctx, (int)journey->decapsulate - (int)overhead(journey->settings, verdict->is_gue)))
		return DROP_TRANSMIT_FAILED;
	broken = write_tunnel(ctx, packet, journey, verdict, &node->address);
	if (broken != WELL)
		return broken;
	return send_to_node(ctx, node, ethertype_of(journey->settings->is_ipv6), action);
}

/* Sends the packet to another node as it is, but for its MAC addresses and its time to live. */
static __always_inline int apply_direct(struct xdp_md *ctx, const struct packet *packet, const struct verdict *verdict,
					int *action)
{
	struct node *node = bpf_map_lookup_elem(&nodes, &verdict->node);
	int broken = lower_ttl(ctx, packet, LAST_TTL);

	if (broken != WELL)
		return broken;
	if (!node || !(node->flags & NODE_REACHABLE))
		return DROP_NO_NEIGHBOUR;
	return send_to_node(ctx, node, ethertype_of(packet->ip.is_ipv6), action);
}

/* Offset of the checksum from the start of a transport header. */
static __always_inline __u32 checksum_at(__u8 protocol)
{
	return protocol == PROTOCOL_UDP ? UDP_CHECKSUM : TCP_CHECKSUM;
}

/* Zero says that a datagram has no checksum; a sum of zero is sent as its other representation (RFC 768). */
static __always_inline void edit_transport_checksum(void *field, __u8 protocol, __u64 difference)
{
	__u16 *sum = field;

	if (protocol == PROTOCOL_UDP && !*sum)
		return;
	add_to_checksum(sum, difference);
	if (protocol == PROTOCOL_UDP && !*sum)
		*sum = 0xffff;
}

/* Writes an address into an IP header, and into its checksum if there is one. */
static __always_inline int write_address(__u8 *ip, void *data_end, int is_ipv6, __u32 at, const struct address *to,
					 __u64 difference)
{
	if (!is_ipv6) {
		*(__be32 *)(ip + at) = to->words[3];
		add_to_checksum(ip + IPV4_CHECKSUM, difference);
		return WELL;
	}
	if ((void *)(ip + IPV6_LEN) > data_end)
		return DROP_TRUNCATED;
	copy_address(ip + at, to);
	return WELL;
}

/* What an ICMP error quotes had been sent the other way: its source is translated as the packet's destination is, so
 * that the local stack recognises its own segment. */
static __always_inline int translate_quote(struct xdp_md *ctx, const struct packet *packet, const struct address *to,
					   __u64 difference)
{
	const struct quote *quote = &packet->quote;
	__u32 is_ipv6 = packet->ip.is_ipv6, sum_at = quote->at + quote->len + checksum_at(quote->protocol);
	__u32 end = packet->ip.at + packet->ip.total_len;
	__u8 *icmp = BYTES_AT(ctx, packet->ip.at + packet->ip.len, ICMP_LEN);
	__u8 *quoted = BYTES_AT(ctx, quote->at, IPV4_LEN);
	__u16 *sum = BYTES_AT(ctx, sum_at, sizeof(*sum));
	__u16 before;
	int broken;

	if (!icmp || !quoted)
		return DROP_TRUNCATED;
	before = *(__u16 *)(quoted + IPV4_CHECKSUM);
	broken = write_address(quoted, (void *)(long)ctx->data_end, is_ipv6, is_ipv6 ? IPV6_SOURCE : IPV4_SOURCE, to,
			       difference);
	if (broken != WELL)
		return broken;
	add_to_checksum(icmp + ICMP_CHECKSUM, difference);
	if (is_ipv6)
		/* Which covers the packet's own addresses as well. */
		add_to_checksum(icmp + ICMP_CHECKSUM, difference);
	else
		edit_checksum(icmp + ICMP_CHECKSUM, before, *(__u16 *)(quoted + IPV4_CHECKSUM));
	if (quote->at + quote->total_len < end)
		end = quote->at + quote->total_len;
	if (!sum || sum_at + sizeof(*sum) > end)
		return WELL;
	before = *sum;
	edit_transport_checksum(sum, quote->protocol, difference);
	edit_checksum(icmp + ICMP_CHECKSUM, before, *sum);
	return WELL;
}

static __always_inline int translate(struct xdp_md *ctx, const struct packet *packet, const struct address *to)
{
	__u32 is_ipv6 = packet->ip.is_ipv6, sum_at = packet->ip.at + packet->ip.len + checksum_at(packet->ip.protocol);
	__u64 difference = address_difference(&packet->ip.destination, to, is_ipv6);
	__u16 *sum = BYTES_AT(ctx, sum_at, sizeof(*sum));
	__u8 *ip = BYTES_AT(ctx, packet->ip.at, IPV4_LEN);
	int broken;

	if (!ip)
		return DROP_TRUNCATED;
	broken = write_address(ip, (void *)(long)ctx->data_end, is_ipv6, is_ipv6 ? IPV6_DESTINATION : IPV4_DESTINATION,
			       to, difference);
	if (broken != WELL)
		return broken;
	if (packet->kind == KIND_ICMP_ERROR)
		return translate_quote(ctx, packet, to, difference);
	/* The checksum that covers the addresses is in the first fragment, for all. */
	if (packet->ip.fragment & FRAGMENT_OFFSET_MASK)
		return WELL;
	if (packet->kind == KIND_FRAGMENT && sum_at + sizeof(*sum) > packet->ip.at + packet->ip.total_len)
		return DROP_FRAGMENT;
	if (!sum)
		return DROP_TRUNCATED;
	/* Over IPv6 every datagram has one (RFC 8200, section 8.1). */
	if (is_ipv6 && packet->kind == KIND_UDP && !*sum)
		return DROP_MALFORMED;
	edit_transport_checksum(sum, packet->ip.protocol, difference);
	return WELL;
}

/* Takes the packet out of its tunnel and gives it to the local stack at the delivery address, if there is one. */
static __always_inline int apply_delivery(struct xdp_md *ctx, struct packet *packet, const struct journey *journey,
					  const struct address *delivery)
{
	__u8 source[MAC_LEN];
	__u8 *frame = BYTES_AT(ctx, 0, ETHERNET_LEN);
	int broken = decapsulate(ctx, packet, journey);

	if (broken == WELL && delivery)
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
	write_ethernet(frame, journey->settings->mac, source, ethertype_of(packet->ip.is_ipv6));
	return WELL;
}
