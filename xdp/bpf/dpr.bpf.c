// SPDX-License-Identifier: Apache-2.0 OR MIT
/* The packet path in the kernel: the order of steps, and nothing else.
 *
 * `dpr` sees what comes in, `dpr_reply` what local servers answer. Both do what crate `director` does; what differs is
 * written in docs/decisions/0030-xdp-plane.md. They refuse to look at anything that is not for an address of ours. */
#include "answer.h"
#include "pipeline.h"
#include "reply.h"

/* A broken packet is ours to drop only if it is for an address of ours. */
static __always_inline int end_of_broken(const struct journey *journey, __be32 destination, int reason)
{
	if (!journey->decapsulate && !home_of(destination, ADDRESS_SERVICE | ADDRESS_NODE))
		return XDP_PASS;
	count_drop(reason);
	return XDP_DROP;
}

static __always_inline int apply(struct xdp_md *ctx, struct packet *packet, const struct journey *journey,
				 const struct verdict *verdict)
{
	int broken, action = XDP_PASS;

	count_verdict(journey, verdict);
	switch (verdict->kind) {
	case VERDICT_DELIVER:
		broken = apply_delivery(ctx, packet, journey, verdict->delivery);
		break;
	case VERDICT_FORWARD:
		broken = apply_forward(ctx, packet, journey, verdict, &action);
		break;
	case VERDICT_DIRECT:
		broken = apply_direct(ctx, packet, verdict, &action);
		break;
	case VERDICT_TOO_BIG:
		action = XDP_TX;
		broken = answer_too_big(ctx, journey->decapsulate, packet->ip.total_len, verdict->mtu);
		break;
	case VERDICT_DROP:
		return XDP_DROP;
	default:
		return XDP_PASS;
	}
	if (broken == WELL)
		return action;
	count_drop(broken);
	return XDP_DROP;
}

/* An address that is valid on this node only: no stranger may send to it. */
static __always_inline int is_delivery_address(const struct settings *settings, __be32 address)
{
	return settings->delivery_mask && (address & settings->delivery_mask) == settings->delivery_network;
}

static __always_inline int is_address(const __u8 *bytes, const struct address *address)
{
	const __be32 *words = (const __be32 *)bytes;

	return words[0] == address->words[0] && words[1] == address->words[1] && words[2] == address->words[2] &&
	       words[3] == address->words[3];
}

/* Most of what is not ours: the first thing that is asked, and answered by two bits. */
static __always_inline int is_for_nobody_here(struct xdp_md *ctx, const __u8 *ip)
{
	__u32 destination = *(__be32 *)(ip + IPV4_DESTINATION);
	__u8 *ports = BYTES_AT(ctx, ETHERNET_LEN + (ip[0] & 0xf) * 4, 4);
	__u32 first_word = 0;

	if (!has_bit(&address_bits, 0, (destination ^ destination >> 16) & 0xffff))
		return 1;
	if (!ports || *(__be16 *)(ip + IPV4_FRAGMENT) & bpf_htons(FRAGMENT_MASK))
		return 0;
	if (ip[IPV4_PROTOCOL] == PROTOCOL_UDP)
		first_word = BIT_WORDS;
	else if (ip[IPV4_PROTOCOL] != PROTOCOL_TCP)
		return 0;
	return !has_bit(&service_ports, first_word, bpf_ntohs(*(__be16 *)(ports + 2)));
}

/* What a step answers that another one follows; otherwise it answers what becomes of the frame. */
#define GO_ON (-1)

/* Parses an IPv4 header, and the one inside of it if it is a tunnel's. `source` is that of the outer one. */
static __always_inline int open_ipv4(struct xdp_md *ctx, struct packet *packet, struct journey *journey,
				     struct address *source)
{
	const struct settings *settings = journey->settings;
	__u8 *ip = BYTES_AT(ctx, ETHERNET_LEN, IPV4_LEN);
	int broken;

	if (!ip || ip[0] >> 4 != 4)
		return XDP_PASS;
	packet->ip.destination = *(__be32 *)(ip + IPV4_DESTINATION);
	if (is_delivery_address(settings, packet->ip.destination)) {
		count_drop(DROP_UNKNOWN_DELIVERY);
		return XDP_DROP;
	}
	if (is_for_nobody_here(ctx, ip))
		return XDP_PASS;
	broken = parse_header(ctx, ETHERNET_LEN, ctx->data_end - ctx->data, &packet->ip);
	if (broken != WELL)
		return end_of_broken(journey, packet->ip.destination, broken);
	if (!recognise(ctx, &packet->ip, journey))
		return GO_ON;
	if (settings->is_ipv6 || packet->ip.destination != settings->address.words[3])
		return XDP_PASS;
	*source = mapped(packet->ip.source);
	/* From here on it is about the packet inside. */
	broken = parse_header(ctx, ETHERNET_LEN + journey->decapsulate, ETHERNET_LEN + packet->ip.total_len, &packet->ip);
	return broken == WELL ? GO_ON : end_of_broken(journey, packet->ip.destination, broken);
}

/* The same of IPv6, as far as it is a tunnel's with IPv4 inside. */
static __always_inline int open_ipv6(struct xdp_md *ctx, struct packet *packet, struct journey *journey,
				     struct address *source)
{
	const struct settings *settings = journey->settings;
	__u8 *ip = BYTES_AT(ctx, ETHERNET_LEN, IPV6_LEN);
	__u32 payload_len;
	int broken;

	/* An address of IPv4 looks in the settings as it does when it is mapped, which is another address on the wire. */
	if (!settings->is_ipv6 || !ip || ip[0] >> 4 != 6 || !is_address(ip + IPV6_DESTINATION, &settings->address))
		return XDP_PASS;
	payload_len = bpf_ntohs(*(__be16 *)(ip + IPV6_PAYLOAD_LENGTH));
	if (payload_len > ctx->data_end - ctx->data - ETHERNET_LEN - IPV6_LEN ||
	    !recognise_in_ipv6(ctx, ip, payload_len, journey))
		return XDP_PASS;
	__builtin_memcpy(source, ip + IPV6_SOURCE, sizeof(*source));
	broken = parse_header(ctx, ETHERNET_LEN + journey->decapsulate, ETHERNET_LEN + IPV6_LEN + payload_len,
			      &packet->ip);
	return broken == WELL ? GO_ON : end_of_broken(journey, packet->ip.destination, broken);
}

static __always_inline int handle_packet(struct xdp_md *ctx, struct packet *packet, const struct journey *journey,
					 const struct address *source)
{
	int broken = parse_transport(ctx, packet);
	struct verdict verdict;

	if (broken != WELL)
		return end_of_broken(journey, packet->ip.destination, broken);
	verdict = handle(ctx, packet, journey, source);
	return apply(ctx, packet, journey, &verdict);
}

SEC("xdp")
int dpr(struct xdp_md *ctx)
{
	__u8 *frame = BYTES_AT(ctx, 0, ETHERNET_LEN);
	struct journey journey = {
		.hops = HOPS_FRESH,
		.settings = settings_of_this_node(),
		.counters = counters_of_this_processor(),
	};
	struct packet packet = {};
	struct address source = {};
	int action;

	if (!frame || !journey.settings || !journey.counters)
		return XDP_PASS;
	switch (*(__be16 *)(frame + 2 * MAC_LEN)) {
	case bpf_htons(ETHERTYPE_IPV4):
		action = open_ipv4(ctx, &packet, &journey, &source);
		break;
	case bpf_htons(ETHERTYPE_IPV6):
		action = open_ipv6(ctx, &packet, &journey, &source);
		break;
	case bpf_htons(ETHERTYPE_ARP):
		return answer_arp(ctx, journey.settings, journey.counters);
	default:
		return XDP_PASS;
	}
	return action == GO_ON ? handle_packet(ctx, &packet, &journey, &source) : action;
}

SEC("classifier")
int dpr_reply(struct __sk_buff *skb)
{
	struct settings *settings = settings_of_this_node();
	struct counters *counters = counters_of_this_processor();
	__u8 *ip;

	if (skb->protocol != bpf_htons(ETHERTYPE_IPV4) || !settings || !counters)
		return TC_ACT_UNSPEC;
	if ((void *)(long)skb->data + IP_AT + IPV4_LEN > (void *)(long)skb->data_end &&
	    bpf_skb_pull_data(skb, IP_AT + IPV4_LEN))
		return TC_ACT_UNSPEC;
	ip = BYTES_AT(skb, IP_AT, IPV4_LEN);
	if (!ip || !is_delivery_address(settings, *(__be32 *)(ip + IPV4_SOURCE)))
		return TC_ACT_UNSPEC;
	return handle_reply(skb, ip, counters);
}

char _license[] SEC("license") = "Dual MIT/GPL";
