/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* A packet's journey up to its verdict, in the order of director/src/pipeline.rs. Bytes are not changed here. */
#pragma once

#include "decide.h"
#include "fragments.h"
#include "services.h"
#include "slot.h"
#include "sockets.h"
#include "translation.h"

/* What is for no service; the kernel would not know what to do with a tunnel. */
static __always_inline struct verdict unknown(const struct journey *journey)
{
	return journey->decapsulate ? drop(DROP_TUNNEL_UNKNOWN_SERVICE) : pass();
}

static __always_inline struct verdict deliver(const struct service *service)
{
	if (service->is_alias)
		return (struct verdict){ .kind = VERDICT_DELIVER };
	if (!service->has_delivery)
		return drop(DROP_UNKNOWN_DELIVERY);
	return (struct verdict){ .kind = VERDICT_DELIVER, .delivery = &service->delivery };
}

/* 1 when one more ICMP error may be sent. Processors that ask at once may get one more each. */
static __always_inline int error_is_allowed(void)
{
	__u32 first = 0;
	struct error_limit *limit = bpf_map_lookup_elem(&error_limit, &first);
	__u64 now, due;

	if (!limit)
		return 0;
	now = bpf_ktime_get_coarse_ns();
	due = (now - limit->refilled_ns) / (NANOS_PER_SECOND / ICMP_ERROR_RATE);
	if (due) {
		limit->tokens = due + limit->tokens > ICMP_ERROR_RATE ? ICMP_ERROR_RATE : due + limit->tokens;
		limit->refilled_ns = now;
	}
	if (!limit->tokens)
		return 0;
	limit->tokens--;
	return 1;
}

static __always_inline struct verdict too_big(const struct packet *packet, __u32 mtu)
{
	if (!(packet->ip.fragment & DONT_FRAGMENT) || packet->kind == KIND_ICMP_ERROR || !error_is_allowed())
		return drop(DROP_TOO_BIG);
	return (struct verdict){ .kind = VERDICT_TOO_BIG, .mtu = mtu };
}

static __always_inline struct verdict forward(const struct packet *packet, const struct journey *journey,
					      const struct service *service, __u32 number, __u32 hops)
{
	__u32 is_gue = service->method == METHOD_GUE, more = overhead(journey->settings, is_gue);
	struct node *node = node_of(number);

	if (!journey->hops)
		return drop(DROP_HOPS_SPENT);
	if (!node || !(node->flags & NODE_KNOWN))
		return drop(DROP_NO_ROUTE);
	if (packet->ip.total_len + more > node->mtu)
		return too_big(packet, node->mtu - more);
	return (struct verdict){ .kind = VERDICT_FORWARD, .node = number, .hops = hops, .is_gue = is_gue };
}

static __always_inline struct verdict redirect(const struct packet *packet, __u32 number)
{
	struct node *node = node_of(number);

	if (packet->ip.ttl <= 1)
		return drop(DROP_TTL_EXPIRED);
	if (!node || !(node->flags & NODE_KNOWN))
		return drop(DROP_NO_ROUTE);
	return (struct verdict){ .kind = VERDICT_DIRECT, .node = number };
}

/* Whether a packet came, or may go, by direct routing. From a tunnel it goes on in a tunnel: a peer that does not know the
 * method would send it back, with all its hops before it. */
static __always_inline int is_direct(const struct journey *journey, const struct service *service)
{
	return service->method == METHOD_DR && !journey->decapsulate;
}

static __always_inline struct verdict send_to(const struct packet *packet, const struct journey *journey,
					      const struct service *service, __u32 server)
{
	if (server == SELF)
		return deliver(service);
	if (is_direct(journey, service))
		return redirect(packet, server);
	return forward(packet, journey, service, server, 0);
}

/* A packet of a flow that user space has entered, in this term, goes on as it says; all others are handed up. Of answers there is
 * no service. */
static __always_inline struct verdict carry_on(const struct packet *packet, const struct journey *journey,
					       const struct service *service)
{
	struct carried *its;

	if (!is_for_us(packet, journey))
		return pass();
	its = FOUND_IN(carried, packet, struct carried);
	if (!its || its->term != packet->term)
		return pass();
	if (!(its->flags & CARRIED_AS_SENT))
		return journey->decapsulate ? pass() : translated(packet, its);
	if (!service)
		return pass();
	its->seen = ticks_now();
	return send_to(packet, journey, service, its->next);
}

/* A packet of a connection that is not known: a kept one, one that began while another node decided, or one whose SYN got no
 * entry in a flood. Its ACK gives it one. */
static __always_inline struct verdict go_on(struct xdp_md *ctx, const struct packet *packet,
					    const struct journey *journey, const struct service *service)
{
	int was_flood = packet->kind == KIND_TCP && !(packet->flags & TCP_SYN) && was_flood_lately(ticks_now());
	__u32 chosen;

	if (!(was_flood || packet->is_recent) || holds_socket(ctx, packet, service))
		return deliver(service);
	if (!was_flood)
		/* User space asks who knows it. */
		return pass();
	chosen = decide_without_entry(packet, service, journey->settings);
	if (chosen != SELF && (packet->flags & (TCP_ACK | TCP_RST | TCP_FIN)) == TCP_ACK) {
		count_completed();
		record(packet, journey, chosen);
	}
	return send_to(packet, journey, service, chosen);
}

static __always_inline struct verdict begin(struct xdp_md *ctx, const struct packet *packet,
					    const struct journey *journey, const struct service *service)
{
	__u32 chosen;

	if (!is_first(packet))
		return go_on(ctx, packet, journey, service);
	if (holds_socket(ctx, packet, service))
		return deliver(service);
	if (packet->kind == KIND_TCP && is_flood(journey->settings, ticks_now())) {
		journey->counters->syns_without_entry++;
		chosen = decide_without_entry(packet, service, journey->settings);
		record_decision(journey, chosen);
		return send_to(packet, journey, service, chosen);
	}
	chosen = decide(packet, service, journey->settings);
	/* Without an entry the next packet would not follow, so the connection stays. */
	if (record(packet, journey, chosen))
		chosen = SELF;
	record_decision(journey, chosen);
	return send_to(packet, journey, service, chosen);
}

static __always_inline int is_gone(__u32 server)
{
	struct node *node = node_of(server);

	return server != SELF && !(node && node->flags & NODE_ALIVE);
}

static __always_inline struct verdict act_as_owner(struct xdp_md *ctx, const struct packet *packet,
						   const struct journey *journey, const struct service *service)
{
	struct observation seen = {};

	observe(packet, &seen);
	if (!seen.known)
		return begin(ctx, packet, journey, service);
	/* A late copy of the SYN must not move a connection whose real server only seems to be gone. */
	if (is_first(packet) && !(seen.retransmitted_syn && seen.state != HALF_OPEN) && is_gone(seen.real_server)) {
		/* Its SYN went to a node that has died since: the client's retransmission gets a better answer. */
		forget(packet);
		return begin(ctx, packet, journey, service);
	}
	/* What is over for a node that has just become owner may have begun again for the one before it. */
	if (seen.state == CLOSED && packet->tenure != TENURE_HOME && !(packet->flags & TCP_RST)) {
		if (holds_socket(ctx, packet, service))
			return deliver(service);
		if (packet->is_recent)
			return pass();
	}
	return send_to(packet, journey, service, seen.real_server);
}

static __always_inline struct verdict act_without_table(const struct packet *packet, const struct journey *journey,
							const struct service *service)
{
	struct address client = client_of(packet);
	int chosen = choose(service->candidates, &client, bpf_ntohs(packet->flow.client_port));

	if (chosen < 0)
		chosen = SELF;
	if (packet->kind == KIND_TCP && is_first(packet))
		record_decision(journey, chosen);
	return send_to(packet, journey, service, chosen);
}

/* A packet about whose flow user space decides. What is kept where nobody else may own it, user space need not see: the socket
 * knows it, from the end of the handshake on. What begins there while the daemon is silent, is kept, as everywhere. */
static __always_inline struct verdict act_above(struct xdp_md *ctx, const struct packet *packet,
						const struct journey *journey, const struct service *service)
{
	struct verdict verdict = carry_on(packet, journey, service);
	int is_silent, state;

	if (verdict.kind != VERDICT_PASS || journey->decapsulate || packet->kind != KIND_TCP ||
	    packet->tenure != TENURE_HOME)
		return verdict;
	is_silent = !lease_is_valid(journey->settings);
	if (is_silent && is_first(packet))
		return deliver(service);
	if (!is_silent && !carries_on(packet))
		return verdict;
	state = holds_socket(ctx, packet, service);
	if (!state)
		return verdict;
	return is_silent || (state != BPF_TCP_SYN_RECV && state != BPF_TCP_NEW_SYN_RECV) ? deliver(service) : verdict;
}

/* A packet that ends its journey here, whatever this node would have decided about it. */
static __always_inline struct verdict receive(const struct packet *packet, const struct journey *journey,
					      const struct service *service, __u32 director)
{
	struct observation seen = {};

	if (packet->kind == KIND_ICMP_ERROR || packet->kind == KIND_FRAGMENT)
		return deliver(service);
	observe(packet, &seen);
	if (!seen.known && is_first(packet)) {
		accept(journey, service, director);
		/* Only there to count a connection once: a retransmitted SYN, or every further datagram. */
		if (packet->kind == KIND_UDP || !is_flood(journey->settings, ticks_now()))
			record(packet, journey, SELF);
	} else if (seen.known && packet->kind == KIND_TCP && seen.state != HALF_OPEN) {
		forget(packet);
	}
	return deliver(service);
}

/* What becomes of a packet about whose slot this node does not decide; of kind UNDECIDED when it does. */
static __always_inline struct verdict leave_to_owner(const struct packet *packet, const struct journey *journey,
						     const struct service *service, int is_direct)
{
	int may_move = packet->tenure != TENURE_HOME;

	if (packet->owner != SELF) {
		/* Whom a packet reaches by its MAC address only, its owner has chosen. To an address that others may answer for,
		 * clients' packets come in the same way, but not with their last hop before them. */
		if (is_direct && (!may_move || packet->ip.ttl <= LAST_TTL))
			return receive(packet, journey, service, packet->owner);
		/* Of a packet with one hop before it, the owner could only be the real server. Who handed it here has an old
		 * map, and the next copy finds a newer one. */
		if (may_move && (journey->decapsulate || packet->all_see))
			return drop(DROP_NOT_MINE);
		return forward(packet, journey, service, packet->owner, journey->hops - 1);
	}
	if (packet->tenure == TENURE_PENDING || (may_move && !may_own(journey->settings)))
		return drop(DROP_NO_LEASE);
	return (struct verdict){ .kind = VERDICT_UNDECIDED };
}

/* A packet about which this node decides as the owner of its slot. */
static __always_inline struct verdict act(struct xdp_md *ctx, const struct packet *packet, const struct journey *journey,
					  const struct service *service)
{
	int server;

	if (is_direct(journey, service) && packet->ip.ttl <= LAST_TTL) {
		/* A peer that also takes itself for the owner has made the last hop. */
		journey->counters->loops_stopped++;
		return deliver(service);
	}
	if (service->is_begun_above)
		return act_above(ctx, packet, journey, service);
	if (journey->settings->policy == POLICY_STATELESS)
		return act_without_table(packet, journey, service);
	/* No connection begins in fragments. */
	if (packet->kind == KIND_ICMP_ERROR ||
	    (packet->kind == KIND_FRAGMENT && !(is_datagram(packet) && packet->has_ports))) {
		server = real_server_of(packet);
		return send_to(packet, journey, service, server < 0 ? SELF : server);
	}
	return act_as_owner(ctx, packet, journey, service);
}

/* Finds the service of a fragment; a verdict of kind UNDECIDED when this node decides, and ports and service are known. */
static __always_inline struct verdict place_fragment(struct packet *packet, const struct journey *journey,
						     struct service **service)
{
	__u32 direct_flag = is_datagram(packet) ? ADDRESS_DIRECT_UDP : ADDRESS_DIRECT_TCP;
	struct home *home = home_of(&packet->ip.destination, ADDRESS_SERVICE);
	struct verdict verdict = { .kind = VERDICT_UNDECIDED };

	if (!home)
		return unknown(journey);
	if (!journey->hops)
		return deliver(&home->service);
	find_owner(packet, &home->service);
	/* Where all nodes see all of them, the owner of both addresses brings them together. Else what others may own is brought
	 * together where it comes in. Then it goes to its flow's owner. */
	if (packet->tenure == TENURE_HOME || (packet->all_see && !journey->decapsulate))
		verdict = leave_to_owner(packet, journey, &home->service,
					 home->flags & direct_flag && !journey->decapsulate);
	if (verdict.kind != VERDICT_UNDECIDED)
		return verdict;
	if (!find_ports(packet))
		return drop(DROP_FRAGMENT);
	*service = service_of(packet, journey);
	if (!*service)
		return unknown(journey);
	find_owner(packet, *service);
	/* Nobody else knows whose it is. */
	packet->all_see = 0;
	return packet->tenure == TENURE_HOME ?
		       verdict :
		       leave_to_owner(packet, journey, *service, is_direct(journey, *service));
}

/* The same of what has ports. */
static __always_inline struct verdict place_flow(struct packet *packet, const struct journey *journey,
						 __u32 director, struct service **service)
{
	*service = service_of(packet, journey);
	if (!*service)
		/* Real servers answer whom they were sent translated packets by. */
		return journey->decapsulate ? unknown(journey) : carry_on(packet, journey, 0);
	find_owner(packet, *service);
	if (!journey->hops)
		return receive(packet, journey, *service, director);
	/* What only its home can own is handed on first. */
	if (packet->tenure != TENURE_HOME || packet->owner == SELF) {
		director = translator_of(packet, journey);
		if (director != SELF)
			return receive(packet, journey, *service, director);
	}
	return leave_to_owner(packet, journey, *service, is_direct(journey, *service));
}

/* A packet that came through a tunnel whose outer source is `source`, or directly. */
static __always_inline struct verdict handle(struct xdp_md *ctx, struct packet *packet, const struct journey *journey,
					     const struct address *source)
{
	struct service *service = 0;
	struct verdict verdict;
	__u32 director = SELF;

	if (journey->decapsulate) {
		__u32 *number = bpf_map_lookup_elem(&node_by_address, source);

		if (number)
			director = *number;
		if (director == SELF)
			return drop(DROP_TUNNEL_FROM_STRANGER);
	}
	if (packet->ip.is_ipv6 && is_mapped(&packet->ip.destination))
		return unknown(journey);
	switch (packet->kind) {
	case KIND_TCP:
	case KIND_UDP:
	case KIND_ICMP_ERROR:
		verdict = place_flow(packet, journey, director, &service);
		break;
	case KIND_FRAGMENT:
		verdict = place_fragment(packet, journey, &service);
		break;
	case KIND_ECHO_REQUEST:
		/* User space answers, also out of a tunnel. */
		return home_of(&packet->ip.destination, ADDRESS_SERVICE) ? pass() : unknown(journey);
	default:
		return unknown(journey);
	}
	if (verdict.kind != VERDICT_UNDECIDED || !service)
		return verdict;
	packet->is_told = service->tenure != TENURE_HOME;
	packet->is_told_of_kept = service->sharing & SHARING_REMEMBERS_KEPT;
	return act(ctx, packet, journey, service);
}
