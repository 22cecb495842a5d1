/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Network address translation of flows that user space has decided about: director/src/translation.rs, and
 * rewrite/src/translate.rs.
 *
 * User space enters what is established, and hears by `seen` that it is in use. What begins or ends a flow, and whatever else is not
 * plain, is handed up (docs/decisions/0058-translation-in-the-kernel.md). */
#pragma once

#include "decide.h"
#include "rewrite.h"

/* Whether a packet only goes on with its flow. */
static __always_inline int carries_on(const struct packet *packet)
{
	return packet->kind == KIND_UDP ||
	       (packet->kind == KIND_TCP && (packet->flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_ACK);
}

/* While the daemon is silent, nobody is above, and flows are carried on to their end. */
static __always_inline int is_for_us(const struct packet *packet, const struct journey *journey)
{
	if (carries_on(packet))
		return 1;
	return packet->kind == KIND_TCP && !(packet->flags & TCP_SYN) && !lease_is_valid(journey->settings);
}

/* A packet of a flow that user space translates. */
static __always_inline struct verdict translated(const struct packet *packet, struct carried *carried)
{
	__u32 number = carried->next;
	struct hop *hop = bpf_map_lookup_elem(&hops, &number);

	if (!hop || packet->ip.total_len > hop->mtu)
		return pass();
	if (packet->ip.ttl <= 1)
		return drop(DROP_TTL_EXPIRED);
	carried->seen = ticks_now();
	return (struct verdict){ .kind = VERDICT_TRANSLATE, .carried = carried, .hop = hop };
}

/* The number of the peer that has translated a packet which is on its last hop; SELF for all others. A flow that went on before this
 * node knew the peer stays where it is. */
static __always_inline __u32 translator_of(const struct packet *packet, const struct journey *journey)
{
	__u16 port = bpf_ntohs(packet->flow.client_port);
	struct translator *translator;
	struct address client;

	if (!journey->settings->peers_translate || journey->decapsulate)
		return SELF;
	client = client_of(packet);
	translator = bpf_map_lookup_elem(&translators, &client);
	if (!translator || port < translator->first_port || port > translator->last_port)
		return SELF;
	return real_server_of(packet) > SELF ? SELF : translator->node;
}

/* Gives the packet the ends that its flow has on the other side. */
static __always_inline int apply_translation(struct xdp_md *ctx, const struct packet *packet,
					     const struct journey *journey, const struct verdict *verdict)
{
	const struct carried *to = verdict->carried;
	__u32 is_ipv6 = packet->ip.is_ipv6, transport_at = packet->ip.at + packet->ip.len;
	__u64 of_source = address_difference(&packet->ip.source, &to->source, is_ipv6);
	__u64 of_destination = address_difference(&packet->ip.destination, &to->destination, is_ipv6);
	__u16 *sum = BYTES_AT(ctx, transport_at + checksum_at(packet->ip.protocol), sizeof(*sum));
	__u8 *frame = BYTES_AT(ctx, 0, ETHERNET_LEN), *ip = BYTES_AT(ctx, packet->ip.at, IPV4_LEN);
	__be32 *ports = BYTES_AT(ctx, transport_at, sizeof(*ports));
	void *end = (void *)(long)ctx->data_end;
	int broken;

	if (!sum || !frame || !ip || !ports)
		return DROP_TRUNCATED;
	/* Over IPv6 every datagram has one (RFC 8200, section 8.1). */
	if (is_ipv6 && packet->kind == KIND_UDP && !*sum)
		return DROP_MALFORMED;
	broken = lower_ttl(ctx, packet, packet->ip.ttl - 1);
	if (broken == WELL)
		broken = write_address(ip, end, is_ipv6, is_ipv6 ? IPV6_SOURCE : IPV4_SOURCE, &to->source, of_source);
	if (broken == WELL)
		broken = write_address(ip, end, is_ipv6, is_ipv6 ? IPV6_DESTINATION : IPV4_DESTINATION,
				       &to->destination, of_destination);
	if (broken != WELL)
		return broken;
	edit_transport_checksum(sum, packet->ip.protocol, of_source + of_destination + difference(*ports, to->ports));
	*ports = to->ports;
	write_ethernet(frame, verdict->hop->mac, journey->settings->mac, ethertype_of(is_ipv6));
	return WELL;
}
