/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The Internet checksum (RFC 1071), edited in place of computed anew (RFC 1624, equation 3). */
#pragma once

#include "structs.h"

/* Added to itself with its halves exchanged, a sum has in its upper half both, and the carry of the lower one. */
static __always_inline __u32 fold(__u64 sum)
{
	__u32 half;

	sum += sum << 32 | sum >> 32;
	half = sum >> 32;
	half += half << 16 | half >> 16;
	return half >> 16;
}

/* What 16-bit words that became others add to a sum; in network order, as the checksum itself. */
static __always_inline __u64 difference(__u32 old, __u32 new)
{
	return (__u64)(__u16)~(old >> 16) + (__u16)~old + (new >> 16) + (__u16)new;
}

static __always_inline __u64 address_difference(const struct address *old, const struct address *new, int is_ipv6)
{
	__u64 sum = difference(old->words[3], new->words[3]);

	if (!is_ipv6)
		return sum;
#pragma unroll
	for (int nth = 0; nth < 3; nth++)
		sum += difference(old->words[nth], new->words[nth]);
	return sum;
}

static __always_inline void add_to_checksum(void *field, __u64 difference)
{
	*(__u16 *)field = ~fold((__u16)~*(__u16 *)field + difference);
}

static __always_inline void edit_checksum(void *field, __u32 old, __u32 new)
{
	add_to_checksum(field, difference(old, new));
}
