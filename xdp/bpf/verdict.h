/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What is to happen to a packet: the `Verdict` of model/src/verdict.rs. */
#pragma once

#include "maps.h"
#include "reasons.h"

enum verdict_kind {
	VERDICT_PASS,
	VERDICT_DELIVER,
	VERDICT_FORWARD,
	VERDICT_DIRECT,
	VERDICT_TRANSLATE,
	VERDICT_TOO_BIG,
	VERDICT_DROP,
	/* Not yet: the next step says. */
	VERDICT_UNDECIDED,
};

struct verdict {
	/* enum verdict_kind */
	__u32 kind;
	union {
		/* FORWARD, DIRECT: number of the node. */
		__u32 node;
		/* TOO_BIG: the MTU that fits. */
		__u32 mtu;
		/* DROP */
		enum drop_reason reason;
	};
	/* DELIVER: the delivery address; null leaves the packet as it is. */
	const struct address *delivery;
	/* TRANSLATE: to whom, and by which neighbour. */
	const struct carried *carried;
	const struct hop *hop;
	/* FORWARD: what the packet may still do after it arrives. */
	__u32 hops;
	/* FORWARD: whether the tunnel is GUE. */
	__u32 is_gue;
};

/* What a step answers that another one follows; otherwise it answers what becomes of the frame. */
#define GO_ON (-1)

/* What a packet may still do, and where it stands. */
struct journey {
	__u32 hops;
	/* Bytes of outer header in front of the packet. */
	__u32 decapsulate;
	/* TOS of that header. */
	__u32 outer_tos;
	struct settings *settings;
	struct counters *counters;
};

static __always_inline struct verdict pass(void)
{
	return (struct verdict){ .kind = VERDICT_PASS };
}

static __always_inline struct verdict drop(enum drop_reason reason)
{
	return (struct verdict){ .kind = VERDICT_DROP, .reason = reason };
}

__noinline int count_drop(enum drop_reason reason)
{
	struct counters *counters = counters_of_this_processor();

	if (counters && reason < DROP_REASONS)
		counters->drops[reason]++;
	return 0;
}

static __always_inline void count_verdict(const struct journey *journey, const struct verdict *verdict)
{
	struct counters *counters = journey->counters;

	switch (verdict->kind) {
	case VERDICT_FORWARD:
	case VERDICT_DIRECT:
		counters->packets_forwarded++;
		break;
	case VERDICT_TRANSLATE:
		if (verdict->carried->flags & CARRIED_REPLY)
			counters->nat_replies++;
		else
			counters->packets_forwarded++;
		break;
	case VERDICT_DELIVER:
		if (journey->decapsulate)
			counters->packets_received++;
		else
			counters->packets_delivered++;
		break;
	case VERDICT_TOO_BIG:
		counters->icmp_too_big_sent++;
		break;
	case VERDICT_DROP:
		count_drop(verdict->reason);
		break;
	}
}
