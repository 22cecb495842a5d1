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

struct reply {
	__be32 source;
	/* From the start of the frame. */
	__u32 transport_at;
	__u32 end;
	/* More-fragments flag and fragment offset. */
	__u16 fragment;
	__u8 protocol;
};

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

/* Of fragments only the first one has the checksum that covers the addresses, for all. */
static __always_inline int translate_transport(struct __sk_buff *skb, const struct reply *reply, __be32 to)
{
	__u64 flags = BPF_F_PSEUDO_HDR | sizeof(to);
	__u32 sum_at = reply->transport_at + TCP_CHECKSUM;

	if (reply->fragment & FRAGMENT_OFFSET_MASK)
		return WELL;
	if (reply->protocol == PROTOCOL_UDP) {
		/* Zero says that there is none. */
		flags |= BPF_F_MARK_MANGLED_0;
		sum_at = reply->transport_at + UDP_CHECKSUM;
	}
	if (sum_at + sizeof(__u16) > reply->end || bpf_l4_csum_replace(skb, sum_at, reply->source, to, flags))
		return reply->fragment ? DROP_FRAGMENT : DROP_TRUNCATED;
	return WELL;
}

static __always_inline int translate_source(struct __sk_buff *skb, const struct reply *reply, __be32 to)
{
	int broken = translate_transport(skb, reply, to);

	if (broken != WELL)
		return broken;
	if (bpf_l3_csum_replace(skb, IP_AT + IPV4_CHECKSUM, reply->source, to, sizeof(to)) ||
	    bpf_skb_store_bytes(skb, IP_AT + IPV4_SOURCE, &to, sizeof(to), 0))
		return DROP_TRUNCATED;
	return WELL;
}

static __always_inline void clamp_mss_of_syn_ack(struct __sk_buff *skb, const struct reply *reply, __u16 mss_max)
{
	__u8 tcp[TCP_LEN];

	if (reply->protocol != PROTOCOL_TCP || reply->fragment || mss_max == MSS_UNBOUNDED ||
	    bpf_skb_load_bytes(skb, reply->transport_at, tcp, sizeof(tcp)))
		return;
	if (tcp[13] & TCP_SYN)
		clamp_mss(skb, reply->transport_at, (tcp[12] >> 4) * 4, mss_max);
}

/* What becomes of a packet with this IP header, which comes from the delivery range. */
static __always_inline int handle_reply(struct __sk_buff *skb, const __u8 *ip, struct counters *counters)
{
	struct reply reply = {
		.source = *(__be32 *)(ip + IPV4_SOURCE),
		.transport_at = IP_AT + (ip[0] & 0xf) * 4,
		.end = IP_AT + bpf_ntohs(*(__be16 *)(ip + IPV4_TOTAL_LENGTH)),
		.fragment = bpf_ntohs(*(__be16 *)(ip + IPV4_FRAGMENT)) & FRAGMENT_MASK,
		.protocol = ip[IPV4_PROTOCOL],
	};
	struct delivery *delivery = bpf_map_lookup_elem(&deliveries, &reply.source);
	int broken;

	/* Nothing else is delivered, so nothing else can be a reply; and no such address may leave the node. */
	if (reply.protocol != PROTOCOL_TCP && reply.protocol != PROTOCOL_UDP)
		return TC_ACT_SHOT;
	/* The length of a joined packet may be more than its field can say (RFC 2675). */
	if (skb->gso_segs > 1)
		reply.end = IP_AT + 0xffff;
	broken = delivery ? translate_source(skb, &reply, delivery->service) : DROP_UNKNOWN_DELIVERY;
	if (broken != WELL) {
		count_drop(broken);
		return TC_ACT_SHOT;
	}
	counters->packets_replied += skb->gso_segs ? skb->gso_segs : 1;
	clamp_mss_of_syn_ack(skb, &reply, delivery->mss_max);
	return TC_ACT_UNSPEC;
}
