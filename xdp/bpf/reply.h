/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Replies of local servers on their way out: the source becomes the service address again, and the MSS of a SYN-ACK is
 * lowered where the client's packets come through a tunnel.
 *
 * Segments may still be joined and their checksums partial: only helpers that know of both edit them. */
#pragma once

#include "checksum.h"
#include "verdict.h"
#include <bpf/bpf_endian.h>
#include <linux/pkt_cls.h>

#define IP_AT ETHERNET_LEN
/* No upper bound: what a u16 holds at most. */
#define MSS_UNBOUNDED 0xffff

/* Going through the options of a TCP header. Offsets count from the start of the frame. */
struct options {
	struct __sk_buff *skb;
	__u32 at;
	__u32 end;
	/* Where the value of the MSS option is; 0 when there is none. */
	__u32 mss_at;
};

/* Looks at one option; 1 ends the loop. */
static long next_option(__u32 step, struct options *options)
{
	__u8 head[2] = { TCP_OPTION_END, 0 };

	(void)step;
	if (options->at >= options->end || bpf_skb_load_bytes(options->skb, options->at, head, 1))
		return 1;
	if (head[0] == TCP_OPTION_END)
		return 1;
	if (head[0] == TCP_OPTION_NOP) {
		options->at++;
		return 0;
	}
	if (bpf_skb_load_bytes(options->skb, options->at, head, 2))
		return 1;
	if (head[0] == TCP_OPTION_MSS && head[1] == TCP_OPTION_MSS_LEN) {
		if (options->at + TCP_OPTION_MSS_LEN <= options->end)
			options->mss_at = options->at + 2;
		return 1;
	}
	options->at += head[1];
	/* A length below two would never get past the option. */
	return head[1] < 2;
}

static __always_inline void clamp_mss(struct __sk_buff *skb, __u32 tcp_at, __u32 tcp_len, __u16 mss_max)
{
	struct options options = { .skb = skb, .at = tcp_at + TCP_LEN, .end = tcp_at + tcp_len };
	__be16 old, new = bpf_htons(mss_max);
	__u32 at;
	int is_odd;

	bpf_loop(TCP_OPTIONS_LEN_MAX, next_option, &options, 0);
	at = options.mss_at;
	is_odd = (at - tcp_at) & 1;
	if (!at || bpf_skb_load_bytes(skb, at, &old, sizeof(old)) || bpf_ntohs(old) <= mss_max)
		return;
	bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0);
	/* A value that straddles two words counts with its bytes swapped (RFC 1071, section 2). */
	if (is_odd)
		bpf_l4_csum_replace(skb, tcp_at + TCP_CHECKSUM, __builtin_bswap16(old), __builtin_bswap16(new),
				    sizeof(new));
	else
		bpf_l4_csum_replace(skb, tcp_at + TCP_CHECKSUM, old, new, sizeof(new));
}

static __always_inline int translate_source(struct __sk_buff *skb, __u32 tcp_at, __be32 from, __be32 to)
{
	if (bpf_l4_csum_replace(skb, tcp_at + TCP_CHECKSUM, from, to, BPF_F_PSEUDO_HDR | sizeof(to)) ||
	    bpf_l3_csum_replace(skb, IP_AT + IPV4_CHECKSUM, from, to, sizeof(to)) ||
	    bpf_skb_store_bytes(skb, IP_AT + IPV4_SOURCE, &to, sizeof(to), 0))
		return DROP_MALFORMED;
	return WELL;
}

/* What becomes of a packet with this IP header, which comes from the delivery range. */
static __always_inline int handle_reply(struct __sk_buff *skb, const __u8 *ip, struct counters *counters)
{
	__be32 source = *(__be32 *)(ip + IPV4_SOURCE);
	__u32 tcp_at = IP_AT + (ip[0] & 0xf) * 4;
	struct delivery *delivery = bpf_map_lookup_elem(&deliveries, &source);
	__u8 tcp[TCP_LEN];
	int broken;

	/* Nothing but TCP is delivered, so nothing else can be a reply; and no such address may leave the node. */
	if (ip[IPV4_PROTOCOL] != PROTOCOL_TCP || *(__be16 *)(ip + IPV4_FRAGMENT) & bpf_htons(FRAGMENT_MASK))
		return TC_ACT_SHOT;
	broken = delivery ? WELL : DROP_UNKNOWN_DELIVERY;
	if (broken == WELL && bpf_skb_load_bytes(skb, tcp_at, tcp, sizeof(tcp)))
		broken = DROP_TRUNCATED;
	if (broken == WELL) {
		counters->packets_replied += skb->gso_segs ? skb->gso_segs : 1;
		broken = translate_source(skb, tcp_at, source, delivery->service);
	}
	if (broken != WELL) {
		count_drop(broken);
		return TC_ACT_SHOT;
	}
	if (tcp[13] & TCP_SYN && delivery->mss_max != MSS_UNBOUNDED)
		clamp_mss(skb, tcp_at, (tcp[12] >> 4) * 4, delivery->mss_max);
	return TC_ACT_UNSPEC;
}
