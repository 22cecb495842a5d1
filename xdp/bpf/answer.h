/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Frames that the node makes itself: ICMP "fragmentation needed", ICMPv6 "packet too big" and ARP replies. All are rare, and all are written over
 * the frame that they answer. */
#pragma once

#include "rewrite.h"

/* Where ICMP begins in an answer over IPv4. */
#define ICMP_AT (ETHERNET_LEN + IPV4_LEN)

/* Makes the frame end `len` bytes behind its start. */
static __always_inline int set_frame_len(struct xdp_md *ctx, __u32 len)
{
	__u32 now = ctx->data_end - ctx->data;

	return len == now ? 0 : bpf_xdp_adjust_tail(ctx, (int)len - (int)now);
}

/* Makes the frame one with `headers_len` bytes in front of the first `quoted_len` of its packet, and addresses it to whom the
 * packet came from. */
static __always_inline int make_room_for_answer(struct xdp_md *ctx, const struct settings *settings, __u32 decapsulate,
						__u32 headers_len, __u32 quoted_len, __u16 ethertype)
{
	const struct router *router = ethertype == ETHERTYPE_IPV6 ? &settings->router_v6 : &settings->router;
	__u8 *frame = BYTES_AT(ctx, 0, ETHERNET_LEN);
	__u8 destination[MAC_LEN];

	if (!frame)
		return DROP_TRUNCATED;
	/* A packet that came through a tunnel did not come from where its sender is. */
	if (decapsulate && !router->is_known)
		return DROP_NO_ROUTE;
	__builtin_memcpy(destination, decapsulate ? router->mac : frame + MAC_LEN, MAC_LEN);
	if (bpf_xdp_adjust_head(ctx, (int)decapsulate - (int)headers_len) ||
	    set_frame_len(ctx, ETHERNET_LEN + headers_len + quoted_len))
		return DROP_TRANSMIT_FAILED;
	frame = BYTES_AT(ctx, 0, ETHERNET_LEN);
	if (!frame)
		return DROP_TRUNCATED;
	write_ethernet(frame, destination, settings->mac, ethertype);
	return WELL;
}

/* Tells the sender the MTU that fits (RFC 1191, section 4): the frame becomes the answer, which quotes as much of the
 * packet as it may. */
__noinline int answer_too_big(struct xdp_md *ctx, __u32 decapsulate, __u32 total_len, __u32 mtu)
{
	__u32 quoted_len = ICMP_ERROR_LEN_MAX - IPV4_LEN - ICMP_LEN;
	struct settings *settings = settings_of_this_node();
	__u8 *ip, *icmp, *quoted;
	__u16 *checksum;
	__be32 source;
	int broken, sum;

	if (!settings || decapsulate > OUTER_LEN_MAX)
		return DROP_TRUNCATED;
	if (total_len < quoted_len)
		quoted_len = total_len;
	broken = make_room_for_answer(ctx, settings, decapsulate, IPV4_LEN + ICMP_LEN, quoted_len, ETHERTYPE_IPV4);
	if (broken != WELL)
		return broken;
	ip = BYTES_AT(ctx, ETHERNET_LEN, IPV4_LEN + ICMP_LEN + IPV4_LEN);
	if (!ip)
		return DROP_TRUNCATED;
	icmp = ip + IPV4_LEN;
	quoted = icmp + ICMP_LEN;
	/* A node without an address of the packet's version answers in the name of the service. */
	source = settings->is_ipv6 ? *(__be32 *)(quoted + IPV4_DESTINATION) : settings->address.words[3];
	write_header(ip, ICMP_ERROR_TOS, IPV4_LEN + ICMP_LEN + quoted_len, 0, PROTOCOL_ICMP, source,
		     *(__be32 *)(quoted + IPV4_SOURCE));
	icmp[0] = ICMP_UNREACHABLE;
	icmp[1] = ICMP_FRAGMENTATION_NEEDED;
	*(__u32 *)(icmp + ICMP_CHECKSUM) = 0;
	*(__be16 *)(icmp + 6) = bpf_htons(mtu);
	sum = sum_of(ctx, ICMP_AT, ICMP_AT + ICMP_LEN + quoted_len);
	checksum = BYTES_AT(ctx, ICMP_AT + ICMP_CHECKSUM, sizeof(*checksum));
	if (sum < 0 || !checksum)
		return DROP_TRANSMIT_FAILED;
	*checksum = ~sum;
	return WELL;
}

/* The same over IPv6 (RFC 4443, section 3.2). */
__noinline int answer_too_big_over_ipv6(struct xdp_md *ctx, __u32 decapsulate, __u32 total_len, __u32 mtu)
{
	__u32 quoted_len = IPV6_MTU_MIN - IPV6_LEN - ICMP_LEN;
	struct settings *settings = settings_of_this_node();
	struct address source, client;
	__u8 *ip, *icmp, *quoted;
	int broken;

	if (!settings || decapsulate > OUTER_LEN_MAX)
		return DROP_TRUNCATED;
	/* No sender would heed that (RFC 8201, section 4). */
	if (mtu < IPV6_MTU_MIN)
		return DROP_TOO_BIG;
	if (total_len < quoted_len)
		quoted_len = total_len;
	broken = make_room_for_answer(ctx, settings, decapsulate, IPV6_LEN + ICMP_LEN, quoted_len, ETHERTYPE_IPV6);
	if (broken != WELL)
		return broken;
	ip = BYTES_AT(ctx, ETHERNET_LEN, IPV6_LEN + ICMP_LEN + IPV6_LEN);
	if (!ip)
		return DROP_TRUNCATED;
	icmp = ip + IPV6_LEN;
	quoted = icmp + ICMP_LEN;
	__builtin_memcpy(&client, quoted + IPV6_SOURCE, sizeof(client));
	__builtin_memcpy(&source, quoted + IPV6_DESTINATION, sizeof(source));
	if (settings->is_ipv6)
		source = settings->address;
	write_ipv6_header(ip, ICMP_ERROR_TOS << 20, ICMP_LEN + quoted_len, PROTOCOL_ICMPV6, &source, &client);
	icmp[0] = ICMPV6_PACKET_TOO_BIG;
	icmp[1] = 0;
	*(__u32 *)(icmp + ICMP_CHECKSUM) = 0;
	*(__be16 *)(icmp + 6) = bpf_htons(mtu);
	return write_checksum_over_ipv6(ctx, ICMP_LEN + quoted_len, PROTOCOL_ICMPV6);
}

/* Answers an ARP request for an address that this node serves and the host does not hold (RFC 826). */
static __always_inline int answer_arp(struct xdp_md *ctx, const struct settings *settings, struct counters *counters)
{
	__u8 *frame = BYTES_AT(ctx, 0, ETHERNET_LEN + ARP_LEN);
	__u8 *arp = frame + ETHERNET_LEN;
	struct address target;
	struct home *home;

	/* Ethernet, IPv4, the lengths of their addresses, a request. */
	if (!frame || *(__be32 *)arp != bpf_htonl(0x00010800) || *(__be32 *)(arp + 4) != bpf_htonl(0x06040001))
		return XDP_PASS;
	target = mapped(*(__be32 *)(arp + 24));
	home = bpf_map_lookup_elem(&addresses, &target);
	if (!home || !(home->flags & ADDRESS_ANSWER_ARP))
		return XDP_PASS;
	counters->arp_answered++;
	__builtin_memcpy(frame, arp + 8, MAC_LEN);
	__builtin_memcpy(frame + MAC_LEN, settings->mac, MAC_LEN);
	arp[7] = 2;
	/* Who asked is whom the answer is for. */
	__builtin_memcpy(arp + 18, arp + 8, MAC_LEN + 4);
	__builtin_memcpy(arp + 8, settings->mac, MAC_LEN);
	*(__be32 *)(arp + 14) = target.words[3];
	return XDP_TX;
}
