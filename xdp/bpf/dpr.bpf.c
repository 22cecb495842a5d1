// SPDX-License-Identifier: Apache-2.0 OR MIT
/* The packet path in the kernel: the order of steps, and nothing else.
 *
 * `dpr` sees what comes in, `dpr_reply` what local servers answer. Both do what crate `director` does; what differs is
 * written in docs/decisions/0030-xdp-plane.md. They refuse to look at anything that is not for an address of ours. */
#include "answer.h"
#include "pipeline.h"
#include "reply.h"
#include "straight.h"

/* A broken packet is ours to drop only if it is for an address of ours. */
static __always_inline int end_of_broken(const struct packet *packet, const struct journey *journey, int reason)
{
	if (!journey->decapsulate && !home_of(&packet->ip.destination, ADDRESS_SERVICE | ADDRESS_NODE))
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
	case VERDICT_TRANSLATE:
		action = XDP_TX;
		broken = apply_translation(ctx, packet, journey, verdict);
		break;
	case VERDICT_TOO_BIG:
		action = XDP_TX;
		broken = packet->ip.is_ipv6 ?
				 answer_too_big_over_ipv6(ctx, journey->decapsulate, packet->ip.total_len, verdict->mtu) :
				 answer_too_big(ctx, journey->decapsulate, packet->ip.total_len, verdict->mtu);
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

static __always_inline int is_delivery_address_v6(const struct settings *settings, const __u8 *address)
{
	const __be32 *words = (const __be32 *)address, *network = settings->delivery_network_v6.words;
	const __be32 *mask = settings->delivery_mask_v6.words;

	return mask[0] && (words[0] & mask[0]) == network[0] && (words[1] & mask[1]) == network[1] &&
	       (words[2] & mask[2]) == network[2] && (words[3] & mask[3]) == network[3];
}

/* Most of what is not ours: what is asked first where nothing goes straight, and answered by two bits. `destination` is the exclusive or of
 * the address's words. */
static __always_inline int is_for_nobody_here(__u32 destination, __u8 protocol, const __u8 *ports)
{
	__u32 first_word = 0;

	if (!has_bit(&address_bits, 0, (destination ^ destination >> 16) & 0xffff))
		return 1;
	if (!ports)
		return 0;
	if (protocol == PROTOCOL_UDP)
		first_word = BIT_WORDS;
	else if (protocol != PROTOCOL_TCP)
		return 0;
	return !has_bit(&service_ports, first_word, bpf_ntohs(*(__be16 *)(ports + 2)));
}

/* Whether a frame is for one of the MAC addresses that all nodes have. */
static __always_inline int is_for_all_nodes(const __u8 *frame)
{
	struct mac mac = {};

	__builtin_memcpy(mac.bytes, frame, MAC_LEN);
	return bpf_map_lookup_elem(&shared_macs, &mac) != 0;
}

/* Whether the interface would take a frame if it were not promiscuous: one with its own MAC address, a group's, or all nodes'. What
 * else a switch floods and a bridge passes on is somebody else's. */
static __always_inline int is_for_this_interface(const __u8 *frame, const struct settings *settings)
{
	const __u16 *to = (const __u16 *)frame, *own = (const __u16 *)settings->mac;

	return frame[0] & GROUP_MAC || !((to[0] ^ own[0]) | (to[1] ^ own[1]) | (to[2] ^ own[2])) ||
	       is_for_all_nodes(frame);
}

/* Drops what a stranger sends to a delivery address. */
static __always_inline int refuse(void)
{
	count_drop(DROP_UNKNOWN_DELIVERY);
	return XDP_DROP;
}

/* What becomes of a frame over IPv4 at first sight. */
static __always_inline int glance_at_ipv4(struct xdp_md *ctx, const struct journey *journey)
{
	__u8 *ip = BYTES_AT(ctx, ETHERNET_LEN, IPV4_LEN), *ports;
	__be32 destination;

	if (!ip || ip[0] >> 4 != 4)
		return XDP_PASS;
	destination = *(__be32 *)(ip + IPV4_DESTINATION);
	if (is_delivery_address(journey->settings, destination))
		return refuse();
	ports = BYTES_AT(ctx, ETHERNET_LEN + (ip[0] & 0xf) * 4, 4);
	if (*(__be16 *)(ip + IPV4_FRAGMENT) & bpf_htons(FRAGMENT_MASK))
		ports = 0;
	if (is_for_nobody_here(destination ^ MAPPED_PREFIX, ip[IPV4_PROTOCOL], ports))
		return XDP_PASS;
	return GO_ON;
}

static __always_inline int glance_at_ipv6(struct xdp_md *ctx, const struct journey *journey)
{
	__u8 *ip = BYTES_AT(ctx, ETHERNET_LEN, IPV6_LEN), *ports = BYTES_AT(ctx, ETHERNET_LEN + IPV6_LEN, 4);
	struct address destination;

	if (!ip || ip[0] >> 4 != 6)
		return XDP_PASS;
	if (is_delivery_address_v6(journey->settings, ip + IPV6_DESTINATION))
		return refuse();
	copy_address(&destination, ip + IPV6_DESTINATION);
	if (is_mapped(&destination) ||
	    is_for_nobody_here(destination.words[0] ^ destination.words[1] ^ destination.words[2] ^ destination.words[3],
			       ip[IPV6_PROTOCOL], ports))
		return XDP_PASS;
	return GO_ON;
}

/* If what was opened is a tunnel's, opens the packet inside. `source` is the tunnel's. */
static __always_inline int open_tunnel(struct xdp_md *ctx, struct packet *packet, struct journey *journey,
				       struct address *source)
{
	__u8 inside = recognise(ctx, &packet->ip, journey);
	__u32 at, end;
	int broken;

	if (!inside)
		return GO_ON;
	if (!is_same(&packet->ip.destination, &journey->settings->address))
		return XDP_PASS;
	*source = packet->ip.source;
	at = ETHERNET_LEN + journey->decapsulate;
	end = ETHERNET_LEN + packet->ip.total_len;
	/* From here on it is about the packet inside. */
	broken = inside == PROTOCOL_IPV6 ? parse_ipv6(ctx, at, end, &packet->ip) : parse_ipv4(ctx, at, end, &packet->ip);
	return broken == WELL ? GO_ON : end_of_broken(packet, journey, broken);
}

static __always_inline int handle_packet(struct xdp_md *ctx, struct journey *journey, int is_ipv6)
{
	__u32 end = ctx->data_end - ctx->data;
	struct address source = {};
	struct packet packet = {};
	struct verdict verdict;
	int step;

	step = is_ipv6 ? parse_ipv6(ctx, ETHERNET_LEN, end, &packet.ip) :
			 parse_ipv4(ctx, ETHERNET_LEN, end, &packet.ip);
	if (step != WELL)
		return end_of_broken(&packet, journey, step);
	step = open_tunnel(ctx, &packet, journey, &source);
	if (step != GO_ON)
		return step;
	step = parse_transport(ctx, &packet);
	if (step != WELL)
		return end_of_broken(&packet, journey, step);
	verdict = handle(ctx, &packet, journey, &source);
	return apply(ctx, &packet, journey, &verdict);
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
	int action, is_ipv6 = 0;

	if (!frame || !journey.settings || !journey.counters || !is_for_this_interface(frame, journey.settings))
		return XDP_PASS;
	switch (*(__be16 *)(frame + 2 * MAC_LEN)) {
	case bpf_htons(ETHERTYPE_IPV4):
		action = go_straight(ctx, &journey, 0);
		if (action == GO_ON)
			action = glance_at_ipv4(ctx, &journey);
		break;
	case bpf_htons(ETHERTYPE_IPV6):
		action = go_straight(ctx, &journey, 1);
		if (action == GO_ON)
			action = glance_at_ipv6(ctx, &journey);
		is_ipv6 = 1;
		break;
	case bpf_htons(ETHERTYPE_ARP):
		return answer_arp(ctx, journey.settings, journey.counters);
	default:
		return XDP_PASS;
	}
	return action == GO_ON ? handle_packet(ctx, &journey, is_ipv6) : action;
}

/* Whether a packet comes from the delivery range. */
static __always_inline int is_reply(struct __sk_buff *skb, const struct settings *settings)
{
	__u8 *ip = BYTES_AT(skb, IP_AT, IPV4_LEN);

	if (skb->protocol == bpf_htons(ETHERTYPE_IPV4))
		return ip && is_delivery_address(settings, *(__be32 *)(ip + IPV4_SOURCE));
	ip = BYTES_AT(skb, IP_AT, IPV6_LEN);
	return ip && is_delivery_address_v6(settings, ip + IPV6_SOURCE);
}

SEC("classifier")
int dpr_reply(struct __sk_buff *skb)
{
	struct settings *settings = settings_of_this_node();
	struct counters *counters = counters_of_this_processor();
	__u32 len = skb->protocol == bpf_htons(ETHERTYPE_IPV6) ? IPV6_LEN : IPV4_LEN;
	struct header header = {};

	if (!settings || !counters ||
	    (skb->protocol != bpf_htons(ETHERTYPE_IPV4) && skb->protocol != bpf_htons(ETHERTYPE_IPV6)))
		return TC_ACT_UNSPEC;
	if ((void *)(long)skb->data + IP_AT + len > (void *)(long)skb->data_end && bpf_skb_pull_data(skb, IP_AT + len))
		return TC_ACT_UNSPEC;
	if (!is_reply(skb, settings))
		return TC_ACT_UNSPEC;
	return read_reply(skb, &header) ? handle_reply(skb, &header, counters) : TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual MIT/GPL";
