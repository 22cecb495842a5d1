/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Frames that the node makes itself: ICMP "fragmentation needed" and ARP replies. Both are rare, and both are written over
 * the frame that they answer. */
#pragma once

#include "rewrite.h"

/* Makes the frame end `len` bytes behind its start. */
static __always_inline int set_frame_len(struct xdp_md *ctx, __u32 len)
{
	__u32 now = ctx->data_end - ctx->data;

	return len == now ? 0 : bpf_xdp_adjust_tail(ctx, (int)len - (int)now);
}

static __always_inline __u32 sum_of(const __u8 *bytes, const void *data_end, __u32 len)
{
	__u64 sum = 0;

	for (__u32 at = 0; at < ICMP_ERROR_LEN_MAX - IPV4_LEN; at += 2) {
		if (at >= len || (const void *)(bytes + at + 1) > data_end)
			break;
		if ((const void *)(bytes + at + 2) > data_end) {
			/* An odd last byte is padded with zero. */
			sum += bytes[at];
			break;
		}
		sum += *(const __u16 *)(bytes + at);
	}
	return fold(sum);
}

/* Tells the sender the MTU that fits (RFC 1191, section 4): the frame becomes the answer, which quotes as much of the
 * packet as it may. */
__noinline int answer_too_big(struct xdp_md *ctx, __u32 decapsulate, __u32 total_len, __u32 mtu)
{
	__u32 quoted_len = ICMP_ERROR_LEN_MAX - IPV4_LEN - ICMP_LEN;
	struct settings *settings = settings_of_this_node();
	__u8 *frame = BYTES_AT(ctx, 0, ETHERNET_LEN);
	__u8 destination[MAC_LEN], *quoted;
	__be32 source, client;

	if (!settings || !frame || decapsulate > IPV4_LEN_MAX + GUE_OVERHEAD)
		return DROP_TRUNCATED;
	/* A packet that came through a tunnel did not come from where its sender is. */
	if (decapsulate && !settings->has_router)
		return DROP_NO_ROUTE;
	__builtin_memcpy(destination, decapsulate ? settings->router_mac : frame + MAC_LEN, MAC_LEN);
	if (total_len < quoted_len)
		quoted_len = total_len;
	if (bpf_xdp_adjust_head(ctx, (int)decapsulate - IPV4_LEN - ICMP_LEN) ||
	    set_frame_len(ctx, ETHERNET_LEN + IPV4_LEN + ICMP_LEN + quoted_len))
		return DROP_TRANSMIT_FAILED;
	frame = BYTES_AT(ctx, 0, ETHERNET_LEN + IPV4_LEN + ICMP_LEN + IPV4_LEN);
	if (!frame)
		return DROP_TRUNCATED;
	quoted = frame + ETHERNET_LEN + IPV4_LEN + ICMP_LEN;
	client = *(__be32 *)(quoted + IPV4_SOURCE);
	/* A node without an address of the packet's version answers in the name of the service. */
	source = settings->is_ipv6 ? *(__be32 *)(quoted + IPV4_DESTINATION) : settings->address.words[3];
	write_ethernet(frame, destination, settings->mac, ETHERTYPE_IPV4);
	frame += ETHERNET_LEN;
	write_header(frame, ICMP_ERROR_TOS, IPV4_LEN + ICMP_LEN + quoted_len, 0, PROTOCOL_ICMP, source, client);
	frame += IPV4_LEN;
	frame[0] = ICMP_UNREACHABLE;
	frame[1] = ICMP_FRAGMENTATION_NEEDED;
	*(__u32 *)(frame + ICMP_CHECKSUM) = 0;
	*(__be16 *)(frame + 6) = bpf_htons(mtu);
	*(__u16 *)(frame + ICMP_CHECKSUM) = ~sum_of(frame, (void *)(long)ctx->data_end, ICMP_LEN + quoted_len);
	return WELL;
}

/* Answers an ARP request for an address that this node serves and the host does not hold (RFC 826). */
static __always_inline int answer_arp(struct xdp_md *ctx, const struct settings *settings, struct counters *counters)
{
	__u8 *frame = BYTES_AT(ctx, 0, ETHERNET_LEN + ARP_LEN);
	__u8 *arp = frame + ETHERNET_LEN;
	__be32 target;
	struct home *home;

	/* Ethernet, IPv4, the lengths of their addresses, a request. */
	if (!frame || *(__be32 *)arp != bpf_htonl(0x00010800) || *(__be32 *)(arp + 4) != bpf_htonl(0x06040001))
		return XDP_PASS;
	target = *(__be32 *)(arp + 24);
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
	*(__be32 *)(arp + 14) = target;
	return XDP_TX;
}
