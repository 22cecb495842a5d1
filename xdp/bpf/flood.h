/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Floods of SYNs: whether one is going on (docs/decisions/0035-syn-floods.md).
 *
 * While it is, SYNs get no entries and go by their flow's hash, so that no handshake is displaced, and the ACK of one that
 * succeeded is sent the same way. Processors count without locks: one may begin a window that another one counts in. */
#pragma once

#include "parse.h"
#include "maps.h"

static __always_inline struct flood *flood_of_this_node(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&flood, &first);
}

/* Counts a SYN that opens a connection which is not known; 1 when there are too many. */
static __always_inline int is_flood(const struct settings *settings, __u32 now)
{
	struct flood *flood = flood_of_this_node();
	__u32 window = now >> FLOOD_WINDOW_SHIFT;

	if (!flood || !settings->flood_from)
		return 0;
	if (flood->window != window) {
		flood->window = window;
		flood->open = 0;
	}
	__sync_fetch_and_add(&flood->open, 1);
	if (flood->open > (__s32)settings->flood_from)
		flood->until = now + FLOOD_TICKS;
	/* What is left of it, and not more than there can be: ticks wrap. */
	return flood->until && flood->until - now - 1 < FLOOD_TICKS;
}

static __always_inline void count_completed(void)
{
	struct flood *flood = flood_of_this_node();

	if (flood)
		__sync_fetch_and_add(&flood->open, -1);
}

/* Whether handshakes that have no entry may still be completed. */
static __always_inline int was_flood_lately(__u32 now)
{
	struct flood *flood = flood_of_this_node();

	return flood && flood->until &&
	       flood->until + FLOOD_AFTERMATH_TICKS - now <= FLOOD_TICKS + FLOOD_AFTERMATH_TICKS;
}
