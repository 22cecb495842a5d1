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

static __always_inline int recognise_ipip(const struct header *header, struct journey *journey)
{
	if (!(header->fragment & DONT_FRAGMENT) || (header->id & HOPS_MAGIC_MASK) != HOPS_MAGIC)
		return 0;
	journey->hops = header->id & ~HOPS_MAGIC_MASK;
	journey->decapsulate = header->len;
	return 1;
}

/* UDP and GUE header at `at`, with so many bytes from there to the end of the packet around them. The checksum is not looked at: the
 * packet inside has its own, and only peers are believed anyway. */
static __always_inline int recognise_gue(struct xdp_md *ctx, __u32 at, __u32 payload_len, struct journey *journey)
{
	__u8 *udp = BYTES_AT(ctx, at, GUE_OVERHEAD);
	__u8 *gue = udp + UDP_LEN;
	__u32 len, private;

	if (!udp || *(__be16 *)(udp + 2) != bpf_htons(GUE_PORT))
		return 0;
	len = bpf_ntohs(*(__be16 *)(udp + 4));
	if (len < GUE_OVERHEAD || len > payload_len)
		return 0;
	private = bpf_ntohs(*(__be16 *)(gue + 4));
	if (gue[0] != GUE_FIRST_BYTE || gue[1] != PROTOCOL_IPV4 || *(__u16 *)(gue + 2) ||
	    (private & HOPS_MAGIC_MASK) != HOPS_MAGIC)
		return 0;
	journey->hops = private & ~HOPS_MAGIC_MASK;
	journey->decapsulate = at - ETHERNET_LEN + GUE_OVERHEAD;
	return 1;
}

/* Larger claims than a node would ever write are cut down. */
static __always_inline void believe(struct journey *journey, __u8 tos)
{
	if (journey->hops > HOPS_FRESH - 1)
		journey->hops = HOPS_FRESH - 1;
	journey->outer_tos = tos;
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
		is_ours = recognise_gue(ctx, header->at + header->len, header->total_len - header->len, journey);
	if (is_ours)
		believe(journey, header->tos);
	return is_ours;
}

/* The same of an outer header of IPv6 behind the Ethernet header. Extension headers are in no tunnel of a node's. */
static __always_inline int recognise_in_ipv6(struct xdp_md *ctx, const __u8 *ip, __u32 payload_len,
					     struct journey *journey)
{
	__u32 first_word = bpf_ntohl(*(__be32 *)ip);
	int is_ours = 0;

	if (ip[IPV6_PROTOCOL] == PROTOCOL_IPV4 && (first_word & LABEL_MAGIC_MASK) == LABEL_MAGIC) {
		journey->hops = first_word >> LABEL_HOPS_SHIFT & LABEL_HOPS_MASK;
		journey->decapsulate = IPV6_LEN;
		is_ours = 1;
	} else if (ip[IPV6_PROTOCOL] == PROTOCOL_UDP) {
		is_ours = recognise_gue(ctx, ETHERNET_LEN + IPV6_LEN, payload_len, journey);
	}
	if (is_ours)
		believe(journey, first_word >> 20);
	return is_ours;
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

static __always_inline void write_ipv6_header(__u8 *ip, __u32 first_word, __u16 payload_len, __u8 protocol,
					      const struct address *source, const struct address *destination)
{
	*(__be32 *)ip = bpf_htonl(6u << 28 | first_word);
	*(__be16 *)(ip + IPV6_PAYLOAD_LENGTH) = bpf_htons(payload_len);
	ip[IPV6_PROTOCOL] = protocol;
	ip[IPV6_PROTOCOL + 1] = HOP_LIMIT;
	__builtin_memcpy(ip + IPV6_SOURCE, source, sizeof(*source));
	__builtin_memcpy(ip + IPV6_DESTINATION, destination, sizeof(*destination));
}

/* UDP and GUE header without a UDP checksum, which IPv4 lets a tunnel leave out (RFC 768). */
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
		     verdict->is_gue ? PROTOCOL_UDP : PROTOCOL_IPV4, settings->address.words[3],
		     destination->words[3]);
	if (verdict->is_gue)
		write_gue(udp, total_len - IPV4_LEN, verdict->hops, flow_hash(packet, settings->flow_seed));
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
		write_ipv6_header(ip, packet->ip.tos << 20 | label, payload_len, PROTOCOL_IPV4, &settings->address,
				  destination);
		return WELL;
	}
	write_ipv6_header(ip, packet->ip.tos << 20 | (hash & LABEL_MASK), payload_len, PROTOCOL_UDP,
			  &settings->address, destination);
	write_gue(udp, payload_len, verdict->hops, hash);
	return write_checksum_over_ipv6(ctx, payload_len);
}

/* Writes outer headers behind the Ethernet header of a frame in which there is room for them. */
static __always_inline int write_tunnel(struct xdp_md *ctx, const struct packet *packet, const struct journey *journey,
					const struct verdict *verdict, const struct address *destination)
{
	if (journey->settings->is_ipv6)
		return write_tunnel_over_ipv6(ctx, packet, journey, verdict, destination);
	return write_tunnel_over_ipv4(ctx, packet, journey, verdict, destination);
}
