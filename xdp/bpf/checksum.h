/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The Internet checksum (RFC 1071), edited in place of computed anew (RFC 1624, equation 3). */
#pragma once

#include <linux/types.h>

static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* A checksum, of which 16-bit words became others; in network order, as the field itself. */
static __always_inline __u16 edited(__u16 checksum, __u32 old, __u32 new)
{
	__u64 sum = (__u16)~checksum;

	sum += (__u16)~(old >> 16);
	sum += (__u16)~old;
	sum += new >> 16;
	sum += (__u16)new;
	return ~fold(sum);
}

static __always_inline void edit_checksum(void *field, __u32 old, __u32 new)
{
	*(__u16 *)field = edited(*(__u16 *)field, old, new);
}
