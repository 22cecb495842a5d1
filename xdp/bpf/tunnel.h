/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Tunnels between nodes, recognised and written: rewrite/src/tunnel.rs and rewrite/src/gue.rs.
 *
 * What carries no hop budget is somebody else's tunnel, and a packet like others. */
#pragma once

#include "flow_hash.h"
#include "sum.h"
#include "verdict.h"

/* Bytes that a tunnel adds in front of a packet. */
static __always_inline __u32 overhead(const struct settings *settings, __u32 is_gue)
{
	return (settings->is_ipv6 ? IPV6_LEN : IPV4_LEN) + (is_gue ? GUE_OVERHEAD : 0);
}

/* Protocol number of a packet inside of a tunnel. */
static __always_inline __u8 protocol_inside(const struct packet *packet)
{
	return packet->ip.is_ipv6 ? PROTOCOL_IPV6 : PROTOCOL_IPV4;
}

/* What is inside of an outer header that says so: the protocol's number, or 0 when it is not a node's. */
static __always_inline __u8 recognise_ipip(struct xdp_md *ctx, const struct header *outer, struct journey *journey)
{
	__u8 *ip;
	__u32 first_word;

	if (!outer->is_ipv6) {
		if (!(outer->fragment & DONT_FRAGMENT) || (outer->id & HOPS_MAGIC_MASK) != HOPS_MAGIC)
			return 0;
		journey->hops = outer->id & ~HOPS_MAGIC_MASK;
	} else {
		ip = BYTES_AT(ctx, outer->at, IPV6_LEN);
		first_word = ip ? bpf_ntohl(*(__be32 *)ip) : 0;
		if ((first_word & LABEL_MAGIC_MASK) != LABEL_MAGIC)
			return 0;
		journey->hops = first_word >> LABEL_HOPS_SHIFT & LABEL_HOPS_MASK;
	}
	journey->decapsulate = outer->len;
	return outer->protocol;
}

/* The same of UDP and GUE header. The checksum is not looked at: the packet inside has its own, and only peers are believed
 * anyway. */
static __always_inline __u8 recognise_gue(struct xdp_md *ctx, const struct header *outer, struct journey *journey)
{
	__u8 *udp = BYTES_AT(ctx, outer->at + outer->len, GUE_OVERHEAD);
	__u8 *gue = udp + UDP_LEN;
	__u32 len, private;

	if (!udp || *(__be16 *)(udp + 2) != bpf_htons(GUE_PORT))
		return 0;
	len = bpf_ntohs(*(__be16 *)(udp + 4));
	if (len < GUE_OVERHEAD || len > outer->total_len - outer->len)
		return 0;
	private = bpf_ntohs(*(__be16 *)(gue + 4));
	if (gue[0] != GUE_FIRST_BYTE || *(__u16 *)(gue + 2) || (private & HOPS_MAGIC_MASK) != HOPS_MAGIC)
		return 0;
	if (gue[1] != PROTOCOL_IPV4 && gue[1] != PROTOCOL_IPV6)
		return 0;
	journey->hops = private & ~HOPS_MAGIC_MASK;
	journey->decapsulate = outer->len + GUE_OVERHEAD;
	return gue[1];
}

/* When this is the outer header of a tunnel of a node's, the journey has what it says, and the protocol number of what is
 * inside is the answer; otherwise 0. */
static __always_inline __u8 recognise(struct xdp_md *ctx, const struct header *outer, struct journey *journey)
{
	__u8 inside = 0;

	/* Extension headers may be longer than that: no node writes them. */
	if (is_fragment(outer) || outer->len > OUTER_LEN_MAX - GUE_OVERHEAD)
		return 0;
	if (outer->protocol == PROTOCOL_IPV4 || outer->protocol == PROTOCOL_IPV6)
		inside = recognise_ipip(ctx, outer, journey);
	else if (outer->protocol == PROTOCOL_UDP)
		inside = recognise_gue(ctx, outer, journey);
	if (!inside)
		return 0;
	/* Larger claims than a node would ever write are cut down. */
	if (journey->hops > HOPS_FRESH - 1)
		journey->hops = HOPS_FRESH - 1;
	journey->outer_tos = outer->tos;
	return inside;
}

static __always_inline void write_header(__u8 *ip, __u8 tos, __u16 total_len, __u16 id, __u8 protocol,
					 __be32 source, __be32 destination)
{
	__be32 first = bpf_htonl(0x45u << 24 | (__u32)tos << 16 | total_len);
	__be32 second = bpf_htonl((__u32)id << 16 | DONT_FRAGMENT);
	__be32 third = bpf_htonl(HOP_LIMIT << 24 | (__u32)protocol << 16);

	*(__be32 *)ip = first;
	*(__be32 *)(ip + IPV4_ID) = second;
	*(__be32 *)(ip + IPV4_TTL) = third;
	*(__be32 *)(ip + IPV4_SOURCE) = source;
	*(__be32 *)(ip + IPV4_DESTINATION) = destination;
	/* What has just been written in parts is slow to read as a whole. */
	*(__u16 *)(ip + IPV4_CHECKSUM) = ~fold((__u64)first + second + third + source + destination);
}

static __always_inline void write_ipv6_header(__u8 *ip, __u32 first_word, __u16 payload_len, __u8 protocol,
					      const struct address *source, const struct address *destination)
{
	*(__be32 *)ip = bpf_htonl(6u << 28 | first_word);
	*(__be16 *)(ip + IPV6_PAYLOAD_LENGTH) = bpf_htons(payload_len);
	ip[IPV6_PROTOCOL] = protocol;
	ip[IPV6_PROTOCOL + 1] = HOP_LIMIT;
	copy_address(ip + IPV6_SOURCE, source);
	copy_address(ip + IPV6_DESTINATION, destination);
}

/* UDP and GUE header without a UDP checksum, which IPv4 lets a tunnel leave out (RFC 768). */
static __always_inline void write_gue(__u8 *udp, const struct packet *packet, __u16 len, __u32 hops, __u32 hash)
{
	__u8 *gue = udp + UDP_LEN;

	*(__be16 *)udp = bpf_htons(GUE_SOURCE_PORT_MIN | hash >> 16);
	*(__be16 *)(udp + 2) = bpf_htons(GUE_PORT);
	*(__be16 *)(udp + 4) = bpf_htons(len);
	*(__be16 *)(udp + UDP_CHECKSUM) = 0;
	gue[0] = GUE_FIRST_BYTE;
	gue[1] = protocol_inside(packet);
	*(__be16 *)(gue + 2) = 0;
	*(__be16 *)(gue + 4) = bpf_htons(HOPS_MAGIC | hops);
	*(__be16 *)(gue + 6) = 0;
}

static __always_inline int write_tunnel_over_ipv4(struct xdp_md *ctx, const struct packet *packet,
						  const struct journey *journey, const struct verdict *verdict,
						  const struct address *destination)
{
	const struct settings *settings = journey->settings;
	__u32 total_len = packet->ip.total_len + overhead(settings, verdict->is_gue);
	__u8 *ip = BYTES_AT(ctx, ETHERNET_LEN, IPV4_LEN);
	__u8 *udp = BYTES_AT(ctx, ETHERNET_LEN + IPV4_LEN, GUE_OVERHEAD);

	if (!ip || !udp)
		return DROP_TRUNCATED;
	write_header(ip, packet->ip.tos, total_len, HOPS_MAGIC | verdict->hops,
		     verdict->is_gue ? PROTOCOL_UDP : protocol_inside(packet), settings->address.words[3],
		     destination->words[3]);
	if (verdict->is_gue)
		write_gue(udp, packet, total_len - IPV4_LEN, verdict->hops, flow_hash(packet, settings->flow_seed));
	return WELL;
}

static __always_inline int write_tunnel_over_ipv6(struct xdp_md *ctx, const struct packet *packet,
						  const struct journey *journey, const struct verdict *verdict,
						  const struct address *destination)
{
	const struct settings *settings = journey->settings;
	__u32 payload_len = packet->ip.total_len + (verdict->is_gue ? GUE_OVERHEAD : 0);
	__u32 hash = flow_hash(packet, settings->flow_seed);
	__u32 label = LABEL_MAGIC | verdict->hops << LABEL_HOPS_SHIFT | (hash & LABEL_FLOW_MASK);
	__u8 *ip = BYTES_AT(ctx, ETHERNET_LEN, IPV6_LEN);
	__u8 *udp = BYTES_AT(ctx, ETHERNET_LEN + IPV6_LEN, GUE_OVERHEAD);

	if (!ip || !udp)
		return DROP_TRUNCATED;
	if (!verdict->is_gue) {
		write_ipv6_header(ip, packet->ip.tos << 20 | label, payload_len, protocol_inside(packet),
				  &settings->address, destination);
		return WELL;
	}
	write_ipv6_header(ip, packet->ip.tos << 20 | (hash & LABEL_MASK), payload_len, PROTOCOL_UDP,
			  &settings->address, destination);
	write_gue(udp, packet, payload_len, verdict->hops, hash);
	return write_checksum_over_ipv6(ctx, payload_len, PROTOCOL_UDP);
}

/* Writes outer headers behind the Ethernet header of a frame in which there is room for them. */
static __always_inline int write_tunnel(struct xdp_md *ctx, const struct packet *packet, const struct journey *journey,
					const struct verdict *verdict, const struct address *destination)
{
	if (journey->settings->is_ipv6)
		return write_tunnel_over_ipv6(ctx, packet, journey, verdict, destination);
	return write_tunnel_over_ipv4(ctx, packet, journey, verdict, destination);
}
