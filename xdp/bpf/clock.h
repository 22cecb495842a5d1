/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The time by which entries are over. */
#pragma once

#include "maps.h"

/* Ticks of the monotonic clock, as fine as a jiffy. Asking the clock takes 17 ns, asking for the jiffy, which the verifier makes
 * a load, next to nothing: the clock is asked once in each. */
static __always_inline __u32 ticks_now(void)
{
	__u64 jiffy = bpf_jiffies64() << 32;
	__u32 first = 0, ticks;
	__u64 *last = bpf_map_lookup_elem(&clock, &first);

	/* One word, so that no processor sees half of what another one writes. */
	if (last && (*last & ~0xffffffffull) == jiffy)
		return *last;
	ticks = bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
	if (last)
		*last = jiffy | ticks;
	return ticks;
}
