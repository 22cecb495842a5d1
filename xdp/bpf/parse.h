/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* A packet parsed once: where its headers are and what they say, as rewrite/src/frame.rs does.
 *
 * Offsets count from the start of the frame. `end` is where the bytes end that a packet may use: the frame's end, or the
 * end of the packet around it. */
#pragma once

#include "checksum.h"
#include "constants.h"
#include "reasons.h"
#include "structs.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

/* No header that is looked at begins behind this: Ethernet, two IPv4 headers with all options, GUE, ICMP, a quoted header. */
#define OFFSET_MASK "0xff"

/* A pointer to `len` bytes of a frame from offset `at` on; null when they are not there. The verifier forgets the bounds
 * of numbers that were kept on the stack: the mask renews them, in a way that the compiler cannot prove needless. */
#define BYTES_AT(ctx, at, len)                                                                                         \
	({                                                                                                             \
		__u64 offset_ = (at);                                                                                  \
		void *bytes_;                                                                                          \
		asm volatile("%0 &= " OFFSET_MASK : "+r"(offset_));                                                    \
		bytes_ = (void *)(long)(ctx)->data + offset_;                                                          \
		bytes_ + (len) > (void *)(long)(ctx)->data_end ? (void *)0 : bytes_;                                   \
	})

enum packet_kind {
	KIND_OTHER,
	KIND_TCP,
	KIND_UDP,
	/* An ICMP error about a TCP segment or a UDP datagram. */
	KIND_ICMP_ERROR,
	/* A fragment of a TCP segment or a UDP datagram. */
	KIND_FRAGMENT,
	/* "Are you there?" */
	KIND_ECHO_REQUEST,
};

/* An IPv4 header. */
struct header {
	__u32 at;
	__u32 len;
	__u32 total_len;
	__u16 fragment;
	__u16 id;
	__u8 tos;
	__u8 ttl;
	__u8 protocol;
	__be32 source;
	__be32 destination;
};

struct packet {
	struct header ip;
	/* enum packet_kind */
	__u32 kind;
	/* TCP, UDP, errors about them, fragments: of these only the first one knows the ports. */
	struct flow_key flow;
	/* TCP; UDP has values that make it a connection that is established. */
	__u32 sequence;
	__u32 flags;
	/* Fragments: whether this one knows the ports. */
	__u32 has_ports;
	/* Errors */
	struct header quote;
};

static __always_inline int parse_fields(struct xdp_md *ctx, __u32 at, __u32 end, struct header *header)
{
	__u8 *ip = BYTES_AT(ctx, at, IPV4_LEN);

	if (!ip || at + IPV4_LEN > end)
		return DROP_TRUNCATED;
	if (ip[0] >> 4 != 4)
		return DROP_MALFORMED;
	header->at = at;
	header->len = (ip[0] & 0xf) * 4;
	header->total_len = bpf_ntohs(*(__be16 *)(ip + IPV4_TOTAL_LENGTH));
	if (header->len < IPV4_LEN || header->total_len < header->len)
		return DROP_MALFORMED;
	header->tos = ip[IPV4_TOS];
	header->id = bpf_ntohs(*(__be16 *)(ip + IPV4_ID));
	header->fragment = bpf_ntohs(*(__be16 *)(ip + IPV4_FRAGMENT));
	header->ttl = ip[IPV4_TTL];
	header->protocol = ip[IPV4_PROTOCOL];
	header->source = *(__be32 *)(ip + IPV4_SOURCE);
	header->destination = *(__be32 *)(ip + IPV4_DESTINATION);
	return WELL;
}

static __always_inline int header_checksum_holds(__u8 *ip, __u32 len, void *data_end)
{
	__u64 sum = 0;

#pragma unroll
	for (int at = 0; at < IPV4_LEN; at += 4)
		sum += *(__u32 *)(ip + at);
	if (len > IPV4_LEN) {
		for (int at = IPV4_LEN; at < IPV4_LEN_MAX; at += 4) {
			if (at >= len || (void *)(ip + at + 4) > data_end)
				break;
			sum += *(__u32 *)(ip + at);
		}
	}
	return fold(sum) == 0xffff;
}

static __always_inline int parse_header(struct xdp_md *ctx, __u32 at, __u32 end, struct header *header)
{
	int broken = parse_fields(ctx, at, end, header);
	__u8 *ip = BYTES_AT(ctx, at, IPV4_LEN);

	if (broken != WELL)
		return broken;
	if (!ip || at + header->total_len > end)
		return DROP_TRUNCATED;
	if (!header_checksum_holds(ip, header->len, (void *)(long)ctx->data_end))
		return DROP_BAD_HEADER_CHECKSUM;
	return WELL;
}

static __always_inline int is_fragment(const struct header *header)
{
	return header->fragment & FRAGMENT_MASK;
}

static __always_inline int parse_tcp(struct xdp_md *ctx, struct packet *packet)
{
	const struct header *ip = &packet->ip;
	__u32 payload_len = ip->total_len - ip->len;
	__u8 *tcp = BYTES_AT(ctx, ip->at + ip->len, TCP_LEN);
	__u32 len;

	if (!tcp || payload_len < TCP_LEN)
		return DROP_TRUNCATED;
	len = (tcp[12] >> 4) * 4;
	if (len < TCP_LEN)
		return DROP_MALFORMED;
	if (len > payload_len)
		return DROP_TRUNCATED;
	packet->kind = KIND_TCP;
	packet->flow = (struct flow_key){
		.client = ip->source,
		.service = ip->destination,
		.client_port = *(__be16 *)tcp,
		.service_port = *(__be16 *)(tcp + 2),
		.protocol = PROTOCOL_TCP,
	};
	packet->sequence = bpf_ntohl(*(__be32 *)(tcp + 4));
	packet->flags = tcp[13];
	return WELL;
}

static __always_inline int parse_udp(struct xdp_md *ctx, struct packet *packet)
{
	__u32 payload_len = packet->ip.total_len - packet->ip.len;
	__u8 *udp = BYTES_AT(ctx, packet->ip.at + packet->ip.len, UDP_LEN);
	__u32 len;

	if (!udp || payload_len < UDP_LEN)
		return DROP_TRUNCATED;
	len = bpf_ntohs(*(__be16 *)(udp + 4));
	if (len < UDP_LEN)
		return DROP_MALFORMED;
	if (len > payload_len)
		return DROP_TRUNCATED;
	packet->kind = KIND_UDP;
	packet->flow = (struct flow_key){
		.client = packet->ip.source,
		.service = packet->ip.destination,
		.client_port = *(__be16 *)udp,
		.service_port = *(__be16 *)(udp + 2),
		.protocol = PROTOCOL_UDP,
	};
	/* Whoever sends a second datagram is taken for established, and so is the first. */
	packet->sequence = 0;
	packet->flags = TCP_ACK;
	return WELL;
}

/* What an ICMP error quotes: eight bytes of the transport are guaranteed (RFC 792), the first four are the ports. */
static __always_inline int parse_quote(struct xdp_md *ctx, struct packet *packet)
{
	struct header *quote = &packet->quote;
	__u32 at = packet->ip.at + packet->ip.len + ICMP_LEN;
	__u32 end = packet->ip.at + packet->ip.total_len;
	__u8 *version = BYTES_AT(ctx, at, 1);
	__u8 *ports;
	int broken;

	if (!version || at >= end)
		return DROP_TRUNCATED;
	/* Whatever is quoted of it. */
	if (*version >> 4 != 4)
		return DROP_MALFORMED;
	broken = parse_fields(ctx, at, end, quote);
	if (broken != WELL)
		return broken;
	if ((quote->protocol != PROTOCOL_TCP && quote->protocol != PROTOCOL_UDP) || is_fragment(quote))
		return WELL;
	/* Nobody is told about somebody else's packet. */
	if (quote->source != packet->ip.destination)
		return WELL;
	ports = BYTES_AT(ctx, quote->at + quote->len, 4);
	if (!ports || quote->at + quote->len + 4 > end)
		return DROP_TRUNCATED;
	packet->kind = KIND_ICMP_ERROR;
	/* The error is about a reply: its sender was the service, its receiver the client. */
	packet->flow = (struct flow_key){
		.client = quote->destination,
		.service = quote->source,
		.client_port = *(__be16 *)(ports + 2),
		.service_port = *(__be16 *)ports,
		.protocol = quote->protocol,
	};
	return WELL;
}

static __always_inline int parse_icmp(struct xdp_md *ctx, struct packet *packet)
{
	__u8 *icmp = BYTES_AT(ctx, packet->ip.at + packet->ip.len, ICMP_LEN);

	if (!icmp || packet->ip.total_len - packet->ip.len < ICMP_LEN)
		return DROP_TRUNCATED;
	switch (icmp[0]) {
	case ICMP_UNREACHABLE:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETER_PROBLEM:
		return parse_quote(ctx, packet);
	case ICMP_ECHO_REQUEST:
		packet->kind = KIND_ECHO_REQUEST;
	}
	return WELL;
}

static __always_inline void parse_fragment(struct xdp_md *ctx, struct packet *packet)
{
	const struct header *ip = &packet->ip;
	__u8 *ports = BYTES_AT(ctx, ip->at + ip->len, 4);

	if (ip->protocol != PROTOCOL_TCP && ip->protocol != PROTOCOL_UDP)
		return;
	packet->kind = KIND_FRAGMENT;
	packet->flow = (struct flow_key){
		.client = ip->source,
		.service = ip->destination,
		.protocol = ip->protocol,
	};
	packet->sequence = 0;
	packet->flags = TCP_ACK;
	packet->has_ports = !(ip->fragment & FRAGMENT_OFFSET_MASK) && ports && ip->total_len - ip->len >= 4;
	if (!packet->has_ports || !ports)
		return;
	packet->flow.client_port = *(__be16 *)ports;
	packet->flow.service_port = *(__be16 *)(ports + 2);
}

/* Everything behind an IPv4 header. */
__noinline int parse_transport(struct xdp_md *ctx, struct packet *packet)
{
	if (!packet)
		return DROP_MALFORMED;
	packet->kind = KIND_OTHER;
	if (is_fragment(&packet->ip)) {
		parse_fragment(ctx, packet);
		return WELL;
	}
	switch (packet->ip.protocol) {
	case PROTOCOL_TCP:
		return parse_tcp(ctx, packet);
	case PROTOCOL_UDP:
		return parse_udp(ctx, packet);
	case PROTOCOL_ICMP:
		return parse_icmp(ctx, packet);
	}
	return WELL;
}
