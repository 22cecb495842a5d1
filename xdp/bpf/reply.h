/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Replies of local servers on their way out: the source becomes the service address again, and the MSS of a SYN-ACK is
 * lowered where the client's packets come through a tunnel. Of resets user space hears.
 *
 * Segments may still be joined and their checksums partial: only helpers that know of both edit them. */
#pragma once

#include "header.h"
#include "verdict.h"
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

/* Writes a change of address into the transport's checksum. Of fragments only the first one has it, for all. */
static __always_inline int translate_transport(struct __sk_buff *skb, const struct header *ip, const struct address *to)
{
	__u32 sum_at = ip->at + ip->len + TCP_CHECKSUM;
	__u64 flags = BPF_F_PSEUDO_HDR;
	__u16 sum;

	if (ip->fragment & FRAGMENT_OFFSET_MASK)
		return WELL;
	if (ip->protocol == PROTOCOL_UDP) {
		/* Zero says that there is none. */
		flags |= BPF_F_MARK_MANGLED_0;
		sum_at = ip->at + ip->len + UDP_CHECKSUM;
	}
	if (sum_at + sizeof(sum) > ip->at + ip->total_len || bpf_skb_load_bytes(skb, sum_at, &sum, sizeof(sum)))
		return is_fragment(ip) ? DROP_FRAGMENT : DROP_TRUNCATED;
	/* Over IPv6 every datagram has one (RFC 8200, section 8.1). */
	if (ip->is_ipv6 && ip->protocol == PROTOCOL_UDP && !is_fragment(ip) && !sum)
		return DROP_MALFORMED;
	if (!ip->is_ipv6)
		return bpf_l4_csum_replace(skb, sum_at, ip->source.words[3], to->words[3], flags | sizeof(__be32)) ?
			       DROP_TRUNCATED :
			       WELL;
	return bpf_l4_csum_replace(skb, sum_at, 0,
				   bpf_csum_diff((__be32 *)&ip->source, sizeof(*to), (__be32 *)to, sizeof(*to), 0),
				   flags) ?
		       DROP_TRUNCATED :
		       WELL;
}

static __always_inline int translate_source(struct __sk_buff *skb, const struct header *ip, const struct address *to)
{
	int broken = translate_transport(skb, ip, to);

	if (broken != WELL)
		return broken;
	if (ip->is_ipv6)
		return bpf_skb_store_bytes(skb, ip->at + IPV6_SOURCE, to, sizeof(*to), 0) ? DROP_TRUNCATED : WELL;
	if (bpf_l3_csum_replace(skb, ip->at + IPV4_CHECKSUM, ip->source.words[3], to->words[3], sizeof(__be32)) ||
	    bpf_skb_store_bytes(skb, ip->at + IPV4_SOURCE, &to->words[3], sizeof(__be32), 0))
		return DROP_TRUNCATED;
	return WELL;
}

/* A server that resets a connection may have given up its socket without a word about whose it was. Changes of connections need
 * the room more than what a flood of refusals would fill it with. */
static __always_inline void tell_reset(const struct header *ip, const __u8 *tcp, const struct address *service)
{
	struct change *change;

	if (bpf_ringbuf_query(&changes, BPF_RB_AVAIL_DATA) > CHANGES_LEN / 2)
		return;
	change = bpf_ringbuf_reserve(&changes, sizeof(*change), 0);
	if (!change)
		return;
	*change = (struct change){
		.flow = {
			.client_port = *(__be16 *)(tcp + 2),
			.service_port = *(__be16 *)tcp,
			.protocol = PROTOCOL_TCP,
			.client = ip->destination,
			.service = *service,
		},
		.entry = { .real_server = SELF, .state = RESET_HERE },
	};
	/* User space looks every few milliseconds. */
	bpf_ringbuf_submit(change, BPF_RB_NO_WAKEUP);
}

static __always_inline void look_at_segment(struct __sk_buff *skb, const struct header *ip,
					    const struct delivery *delivery)
{
	__u32 tcp_at = ip->at + ip->len;
	__u8 tcp[TCP_LEN];

	if (ip->protocol != PROTOCOL_TCP || is_fragment(ip) || bpf_skb_load_bytes(skb, tcp_at, tcp, sizeof(tcp)))
		return;
	if (tcp[13] & TCP_RST)
		tell_reset(ip, tcp, &delivery->service);
	if (tcp[13] & TCP_SYN && delivery->mss_max != MSS_UNBOUNDED)
		clamp_mss(skb, tcp_at, (tcp[12] >> 4) * 4, delivery->mss_max);
}

/* What becomes of a packet with this IP header, which comes from the delivery range. */
static __always_inline int handle_reply(struct __sk_buff *skb, struct header *ip, struct counters *counters)
{
	struct delivery *delivery = bpf_map_lookup_elem(&deliveries, &ip->source);
	int broken;

	/* Nothing else is delivered, so nothing else can be a reply; and no such address may leave the node. */
	if (ip->protocol != PROTOCOL_TCP && ip->protocol != PROTOCOL_UDP)
		return TC_ACT_SHOT;
	/* The length of a joined packet may be more than its field can say (RFC 2675). */
	if (skb->gso_segs > 1)
		ip->total_len = 0xffff;
	broken = delivery ? translate_source(skb, ip, &delivery->service) : DROP_UNKNOWN_DELIVERY;
	if (broken != WELL) {
		count_drop(broken);
		return TC_ACT_SHOT;
	}
	counters->packets_replied += skb->gso_segs ? skb->gso_segs : 1;
	look_at_segment(skb, ip, delivery);
	return TC_ACT_UNSPEC;
}

/* Reads the IP header of a packet that the local stack has made; 0 when it is not all there. */
static __always_inline int read_reply(struct __sk_buff *skb, struct header *ip)
{
	__u8 *bytes = BYTES_AT(skb, IP_AT, IPV4_LEN), start[EXTENSION_UNIT];
	int step = WELL;

	if (!bytes)
		return 0;
	if (bytes[0] >> 4 == 4) {
		read_ipv4_fields(bytes, IP_AT, ip);
		return 1;
	}
	bytes = BYTES_AT(skb, IP_AT, IPV6_LEN);
	if (!bytes)
		return 0;
	read_ipv6_fields(bytes, IP_AT, ip);
	for (int nth = 0; nth < EXTENSIONS_MAX && step == WELL && is_extension(ip); nth++) {
		if (bpf_skb_load_bytes(skb, IP_AT + ip->len, start, sizeof(start)))
			return 0;
		step = step_over(ip, start, IP_AT + ip->total_len);
	}
	return 1;
}
