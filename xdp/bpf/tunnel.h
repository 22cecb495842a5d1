/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Tunnels between nodes, recognised and written: rewrite/src/tunnel.rs and rewrite/src/gue.rs.
 *
 * What carries no hop budget is somebody else's tunnel, and a packet like others. */
#pragma once

#include "flow_hash.h"
#include "verdict.h"

/* Bytes that a tunnel adds in front of a packet. */
static __always_inline __u32 overhead(__u32 is_gue)
{
	return is_gue ? IPV4_LEN + GUE_OVERHEAD : IPV4_LEN;
}

static __always_inline int recognise_ipip(const struct header *header, struct journey *journey)
{
	if (!(header->fragment & DONT_FRAGMENT) || (header->id & HOPS_MAGIC_MASK) != HOPS_MAGIC)
		return 0;
	journey->hops = header->id & ~HOPS_MAGIC_MASK;
	journey->decapsulate = header->len;
	return 1;
}

/* The checksum is not looked at: the packet inside has its own, and only peers are believed anyway. */
static __always_inline int recognise_gue(struct xdp_md *ctx, const struct header *header, struct journey *journey)
{
	__u8 *udp = BYTES_AT(ctx, header->at + header->len, GUE_OVERHEAD);
	__u8 *gue = udp + UDP_LEN;
	__u32 len, private;

	if (!udp || *(__be16 *)(udp + 2) != bpf_htons(GUE_PORT))
		return 0;
	len = bpf_ntohs(*(__be16 *)(udp + 4));
	if (len < GUE_OVERHEAD || len > header->total_len - header->len)
		return 0;
	private = bpf_ntohs(*(__be16 *)(gue + 4));
	if (gue[0] != GUE_FIRST_BYTE || gue[1] != PROTOCOL_IPV4 || *(__u16 *)(gue + 2) ||
	    (private & HOPS_MAGIC_MASK) != HOPS_MAGIC)
		return 0;
	journey->hops = private & ~HOPS_MAGIC_MASK;
	journey->decapsulate = header->len + GUE_OVERHEAD;
	return 1;
}

/* 1 when this is the outer header of a tunnel of a node's; the journey then has what it says. */
static __always_inline int recognise(struct xdp_md *ctx, const struct header *header, struct journey *journey)
{
	int is_ours = 0;

	if (is_fragment(header))
		return 0;
	if (header->protocol == PROTOCOL_IPV4)
		is_ours = recognise_ipip(header, journey);
	else if (header->protocol == PROTOCOL_UDP)
		is_ours = recognise_gue(ctx, header, journey);
	if (!is_ours)
		return 0;
	/* Larger claims than a node would ever write are cut down. */
	if (journey->hops > HOPS_FRESH - 1)
		journey->hops = HOPS_FRESH - 1;
	journey->outer_tos = header->tos;
	return 1;
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

/* UDP and GUE header, without a UDP checksum, which IPv4 lets a tunnel leave out (RFC 768). */
static __always_inline void write_gue(__u8 *udp, __u16 len, __u32 hops, __u32 hash)
{
	__u8 *gue = udp + UDP_LEN;

	*(__be16 *)udp = bpf_htons(GUE_SOURCE_PORT_MIN | hash >> 16);
	*(__be16 *)(udp + 2) = bpf_htons(GUE_PORT);
	*(__be16 *)(udp + 4) = bpf_htons(len);
	*(__be16 *)(udp + UDP_CHECKSUM) = 0;
	gue[0] = GUE_FIRST_BYTE;
	gue[1] = PROTOCOL_IPV4;
	*(__be16 *)(gue + 2) = 0;
	*(__be16 *)(gue + 4) = bpf_htons(HOPS_MAGIC | hops);
	*(__be16 *)(gue + 6) = 0;
}

/* Writes outer headers behind the Ethernet header of a frame in which there is room for them. */
static __always_inline int write_tunnel(struct xdp_md *ctx, const struct packet *packet, const struct journey *journey,
					const struct verdict *verdict, __be32 destination)
{
	__u32 total_len = packet->ip.total_len + overhead(verdict->is_gue);
	__u8 *ip = BYTES_AT(ctx, ETHERNET_LEN, IPV4_LEN);
	__u8 *udp = BYTES_AT(ctx, ETHERNET_LEN + IPV4_LEN, GUE_OVERHEAD);

	if (!ip || !udp)
		return DROP_TRUNCATED;
	write_header(ip, packet->ip.tos, total_len, HOPS_MAGIC | verdict->hops,
		     verdict->is_gue ? PROTOCOL_UDP : PROTOCOL_IPV4, journey->settings->address, destination);
	if (verdict->is_gue)
		write_gue(udp, total_len - IPV4_LEN, verdict->hops,
			  flow_hash(packet, journey->settings->flow_seed));
	return WELL;
}
