/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The connection-forwarding table: what is known about a packet's connection, and what becomes of its entry.
 *
 * The rules are those of conntrack/src/tcp_state.rs and conntrack/src/table.rs. A half-open connection is in a map of its
 * own; the ACK of the handshake moves it. Flows of datagrams are in a third. Entries that are over count as unknown; user
 * space deletes them. */
#pragma once

#include "changes.h"
#include "clock.h"
#include "flood.h"
#include "verdict.h"

/* What `map` has about a packet's flow, or the one that has the same over IPv6. One look-up with two possible maps the verifier
 * would not inline: the empty statement keeps the compiler from making one of both. */
#define FOUND_IN(map, packet, type)                                                                                    \
	({                                                                                                             \
		type *found_;                                                                                          \
		if ((packet)->ip.is_ipv6) {                                                                            \
			found_ = bpf_map_lookup_elem(&map##_v6, &(packet)->flow_v6);                                   \
			asm volatile("" : "+r"(found_));                                                               \
		} else {                                                                                               \
			found_ = bpf_map_lookup_elem(&map, &(packet)->flow);                                           \
		}                                                                                                      \
		found_;                                                                                                \
	})

#define ENTRY_OF(map, packet) FOUND_IN(map, packet, struct flow_entry)

#define DELETE_ENTRY(map, packet)                                                                                      \
	((packet)->ip.is_ipv6 ? bpf_map_delete_elem(&map##_v6, &(packet)->flow_v6) :                                   \
				bpf_map_delete_elem(&map, &(packet)->flow))

#define WRITE_ENTRY(map, packet, entry)                                                                                \
	((packet)->ip.is_ipv6 ? bpf_map_update_elem(&map##_v6, &(packet)->flow_v6, entry, BPF_ANY) :                   \
				bpf_map_update_elem(&map, &(packet)->flow, entry, BPF_ANY))

enum step {
	STEP_KEEP,
	STEP_ENTER,
	/* The segment opens another connection with the same sockets. */
	STEP_REPLACE,
};

/* What is known about a connection, after the packet has advanced its state. */
struct observation {
	__u32 known;
	__u32 real_server;
	/* enum tcp_state */
	__u32 state;
	__u32 retransmitted_syn;
};

static __always_inline int is_datagram(const struct packet *packet)
{
	return packet->flow.protocol == PROTOCOL_UDP;
}

/* A SYN that asks for a new connection, as far as the table is concerned. */
static __always_inline int opens(__u32 flags)
{
	return (flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
}

/* What may begin a flow, as far as decisions are concerned: of UDP, every datagram. */
static __always_inline int is_first(const struct packet *packet)
{
	return is_datagram(packet) ||
	       (packet->flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

static __always_inline struct node *node_of(__u32 number)
{
	return bpf_map_lookup_elem(&nodes, &number);
}

static __always_inline int is_live(const struct packet *packet, const struct flow_entry *entry, __u32 now)
{
	struct node *node;

	if ((__s32)(entry->deadline - now) <= 0 || entry->term != packet->term)
		return 0;
	node = node_of(entry->real_server);
	return node && !(node->flags & NODE_OVER);
}

static __always_inline enum step reset(__u32 state, __u32 *next)
{
	switch (state) {
	case ESTABLISHED:
		*next = RESET;
		return STEP_ENTER;
	case FIN:
		*next = CLOSED;
		return STEP_ENTER;
	}
	return STEP_KEEP;
}

static __always_inline enum step reopen(__u32 state, int same_generation, __u32 *next)
{
	if (state == HALF_OPEN && same_generation) {
		*next = HALF_OPEN;
		return STEP_ENTER;
	}
	return same_generation || state == ESTABLISHED ? STEP_KEEP : STEP_REPLACE;
}

/* What a segment does to a connection in `state`. */
static __always_inline enum step step(const struct packet *packet, __u32 generation, __u32 state, __u32 *next)
{
	__u32 flags = packet->flags;

	*next = state;
	if (flags & TCP_RST)
		return reset(state, next);
	if (opens(flags))
		return reopen(state, packet->sequence == generation, next);
	if (flags & TCP_SYN || !(flags & TCP_ACK))
		return STEP_KEEP;
	if (state == CLOSED)
		*next = CLOSED;
	else if (flags & TCP_FIN || state == FIN)
		*next = FIN;
	else
		*next = ESTABLISHED;
	return STEP_ENTER;
}

static __always_inline __u32 deadline(const struct settings *settings, __u32 now, __u32 state)
{
	return now + (state < TCP_STATES ? settings->timeout[state] : 0);
}

/* The handshake is over: the entry moves. Where there is no room for it, it stays among the half-open ones. */
static __always_inline void promote(const struct packet *packet, struct flow_entry *entry, __u32 state,
				    __u32 new_deadline)
{
	struct counters *counters = counters_of_this_processor();
	struct flow_entry promoted = *entry;

	promoted.state = state;
	promoted.deadline = new_deadline;
	if (!WRITE_ENTRY(flows, packet, &promoted)) {
		DELETE_ENTRY(half_open, packet);
		tell(packet, &promoted);
		return;
	}
	entry->deadline = new_deadline;
	if (counters)
		counters->refused_full++;
}

static __always_inline void see(const struct packet *packet, const struct flow_entry *entry, __u32 state,
				struct observation *seen)
{
	seen->known = 1;
	seen->real_server = entry->real_server;
	seen->state = state;
	seen->retransmitted_syn = opens(packet->flags) && packet->sequence == entry->generation;
}

static __always_inline void observe_half_open(const struct packet *packet, const struct settings *settings, __u32 now,
					      struct observation *seen)
{
	struct flow_entry *entry = ENTRY_OF(half_open, packet);
	__u32 state;

	if (!entry || !is_live(packet, entry, now))
		return;
	switch (step(packet, entry->generation, HALF_OPEN, &state)) {
	case STEP_REPLACE:
		DELETE_ENTRY(half_open, packet);
		return;
	case STEP_ENTER:
		see(packet, entry, state, seen);
		if (state == HALF_OPEN) {
			entry->deadline = deadline(settings, now, state);
			return;
		}
		count_completed();
		if (entry->real_server == SELF && !packet->is_told_of_kept)
			/* The kernel's socket knows it from now on. */
			DELETE_ENTRY(half_open, packet);
		else
			promote(packet, entry, state, deadline(settings, now, state));
		return;
	case STEP_KEEP:
		see(packet, entry, HALF_OPEN, seen);
	}
}

static __always_inline void observe_datagram(const struct packet *packet, const struct settings *settings, __u32 now,
					     struct observation *seen)
{
	struct flow_entry *entry = ENTRY_OF(datagrams, packet);

	if (!entry || !is_live(packet, entry, now))
		return;
	entry->deadline = now + settings->timeout_udp;
	see(packet, entry, ESTABLISHED, seen);
}

/* What the table knows about a client's segment or datagram; `seen` is all zero before, and stays so for an unknown connection. */
__noinline int observe(const struct packet *packet, struct observation *seen)
{
	struct settings *settings = settings_of_this_node();
	__u32 now = ticks_now();
	struct flow_entry *entry;
	__u32 state, before;

	if (!settings || !packet || !seen)
		return 0;
	if (is_datagram(packet)) {
		observe_datagram(packet, settings, now, seen);
		return 0;
	}
	entry = ENTRY_OF(flows, packet);
	if (!entry || !is_live(packet, entry, now)) {
		observe_half_open(packet, settings, now, seen);
		return 0;
	}
	switch (step(packet, entry->generation, entry->state, &state)) {
	case STEP_REPLACE:
		DELETE_ENTRY(flows, packet);
		return 0;
	case STEP_ENTER:
		before = entry->state;
		entry->state = state;
		entry->deadline = deadline(settings, now, state);
		if (before != state)
			tell(packet, entry);
		break;
	case STEP_KEEP:
		break;
	}
	see(packet, entry, state, seen);
	return 0;
}

/* Who terminates the connection that an ICMP error is about; -1 when that is not known. */
static __always_inline int real_server_of(const struct packet *packet)
{
	struct flow_entry *entry;
	__u32 now = ticks_now();

	entry = is_datagram(packet) ? ENTRY_OF(datagrams, packet) : ENTRY_OF(flows, packet);
	if (entry && is_live(packet, entry, now))
		return entry->real_server;
	if (is_datagram(packet))
		return -1;
	entry = ENTRY_OF(half_open, packet);
	return entry && is_live(packet, entry, now) ? entry->real_server : -1;
}

static __always_inline void forget(const struct packet *packet)
{
	if (is_datagram(packet)) {
		DELETE_ENTRY(datagrams, packet);
		return;
	}
	DELETE_ENTRY(flows, packet);
	DELETE_ENTRY(half_open, packet);
}

/* Records a flow that begins; 0 when it is. For anything but a SYN the generation is a guess that holds for the ACK of a
 * handshake: one less than its sequence number (RFC 9293, section 3.5). */
static __always_inline long record(const struct packet *packet, const struct journey *journey, __u32 real_server)
{
	struct flow_entry entry = {
		.generation = opens(packet->flags) || is_datagram(packet) ? packet->sequence : packet->sequence - 1,
		.deadline = deadline(journey->settings, ticks_now(), HALF_OPEN),
		.real_server = real_server,
		.state = HALF_OPEN,
		.term = packet->term,
	};
	long broken;

	if (is_datagram(packet)) {
		entry.deadline = ticks_now() + journey->settings->timeout_udp;
		entry.state = ESTABLISHED;
		broken = WRITE_ENTRY(datagrams, packet, &entry);
		if (!broken)
			tell(packet, &entry);
		return broken;
	}
	return WRITE_ENTRY(half_open, packet, &entry);
}
