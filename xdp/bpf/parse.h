/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* A packet parsed once: where its headers are and what they say, as rewrite/src/frame.rs does. */
#pragma once

#include "header.h"

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

/* What an ICMP error quotes: a packet whose source is the error's destination. */
struct quote {
	__u32 at;
	__u32 len;
	__u32 total_len;
	__u32 protocol;
};

struct packet {
	struct header ip;
	/* enum packet_kind */
	__u32 kind;
	/* TCP, UDP, errors about them, fragments: of these only the first one knows the ports. Ports and protocol are at the
	 * same place in both. */
	union {
		struct flow_key flow;
		struct flow_key_v6 flow_v6;
	};
	/* TCP; UDP has values that make it a connection that is established. */
	__u32 sequence;
	__u32 flags;
	/* Fragments: whether this one knows the ports. */
	__u32 has_ports;
	/* Number of the node that decides about it. */
	__u16 owner;
	/* By which right: enum tenure. */
	__u8 tenure;
	/* In which term of this node: entries of other terms are void. */
	__u8 term;
	/* Whether its connection may have begun before that term. */
	__u8 is_recent;
	/* Whether user space hears what becomes of its connection. */
	__u8 is_told;
	/* Whether that is so if this node keeps it, too. */
	__u8 is_told_of_kept;
	/* Whether its owner sees it as well, wherever it is. */
	__u8 all_see;
	/* Errors */
	struct quote quote;
};

/* Names the flow by its ends; ports follow. */
static __always_inline void name_flow(struct packet *packet, __u8 protocol, const struct address *client,
				      const struct address *service)
{
	if (packet->ip.is_ipv6) {
		packet->flow_v6 = (struct flow_key_v6){
			.client = *client,
			.service = *service,
			.protocol = protocol,
		};
	} else {
		packet->flow = (struct flow_key){
			.client = client->words[3],
			.service = service->words[3],
			.protocol = protocol,
		};
	}
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
	name_flow(packet, PROTOCOL_TCP, &ip->source, &ip->destination);
	packet->flow.client_port = *(__be16 *)tcp;
	packet->flow.service_port = *(__be16 *)(tcp + 2);
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
	name_flow(packet, PROTOCOL_UDP, &packet->ip.source, &packet->ip.destination);
	packet->flow.client_port = *(__be16 *)udp;
	packet->flow.service_port = *(__be16 *)(udp + 2);
	/* Whoever sends a second datagram is taken for established, and so is the first. */
	packet->sequence = 0;
	packet->flags = TCP_ACK;
	return WELL;
}

static __always_inline int parse_quoted(struct xdp_md *ctx, __u32 at, __u32 end, int is_ipv6, struct header *quoted)
{
	__u8 *version = BYTES_AT(ctx, at, 1);

	if (!version || at >= end)
		return DROP_TRUNCATED;
	/* Whatever is quoted of it. */
	if (*version >> 4 != (is_ipv6 ? 6 : 4))
		return DROP_MALFORMED;
	return is_ipv6 ? parse_quoted_ipv6(ctx, at, end, quoted) : parse_quoted_ipv4(ctx, at, end, quoted);
}

/* What an ICMP error quotes: eight bytes of the transport are guaranteed (RFC 792), the first four are the ports. */
static __always_inline int parse_quote(struct xdp_md *ctx, struct packet *packet)
{
	struct header quoted = {};
	__u32 at = packet->ip.at + packet->ip.len + ICMP_LEN;
	__u32 end = packet->ip.at + packet->ip.total_len;
	int broken = parse_quoted(ctx, at, end, packet->ip.is_ipv6, &quoted);
	__u8 *ports;

	if (broken != WELL)
		return broken;
	if ((quoted.protocol != PROTOCOL_TCP && quoted.protocol != PROTOCOL_UDP) || is_fragment(&quoted))
		return WELL;
	/* Nobody is told about somebody else's packet. */
	if (!is_same(&quoted.source, &packet->ip.destination))
		return WELL;
	ports = BYTES_AT(ctx, at + quoted.len, 4);
	if (!ports || at + quoted.len + 4 > end)
		return DROP_TRUNCATED;
	packet->kind = KIND_ICMP_ERROR;
	packet->quote = (struct quote){
		.at = at,
		.len = quoted.len,
		.total_len = quoted.total_len,
		.protocol = quoted.protocol,
	};
	/* The error is about a reply: its sender was the service, its receiver the client. */
	name_flow(packet, quoted.protocol, &quoted.destination, &quoted.source);
	packet->flow.client_port = *(__be16 *)(ports + 2);
	packet->flow.service_port = *(__be16 *)ports;
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

/* Neighbour discovery is none of it: user space answers. */
static __always_inline int parse_icmpv6(struct xdp_md *ctx, struct packet *packet)
{
	__u8 *icmp = BYTES_AT(ctx, packet->ip.at + packet->ip.len, ICMP_LEN);

	if (!icmp || packet->ip.total_len - packet->ip.len < ICMP_LEN)
		return DROP_TRUNCATED;
	switch (icmp[0]) {
	case ICMPV6_UNREACHABLE:
	case ICMPV6_PACKET_TOO_BIG:
	case ICMPV6_TIME_EXCEEDED:
	case ICMPV6_PARAMETER_PROBLEM:
		return parse_quote(ctx, packet);
	case ICMPV6_ECHO_REQUEST:
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
	name_flow(packet, ip->protocol, &ip->source, &ip->destination);
	packet->sequence = 0;
	packet->flags = TCP_ACK;
	packet->has_ports = !(ip->fragment & FRAGMENT_OFFSET_MASK) && ports && ip->total_len - ip->len >= 4;
	if (!packet->has_ports || !ports)
		return;
	packet->flow.client_port = *(__be16 *)ports;
	packet->flow.service_port = *(__be16 *)(ports + 2);
}

/* Everything behind an IP header. */
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
		return packet->ip.is_ipv6 ? WELL : parse_icmp(ctx, packet);
	case PROTOCOL_ICMPV6:
		return packet->ip.is_ipv6 ? parse_icmpv6(ctx, packet) : WELL;
	}
	return WELL;
}
