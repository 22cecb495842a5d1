/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Addresses of both versions, as maps have them. */
#pragma once

#include "structs.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define MAPPED_PREFIX bpf_htonl(0xffff)

static __always_inline struct address mapped(__be32 address)
{
	return (struct address){ .words = { 0, 0, MAPPED_PREFIX, address } };
}

/* Reads an address of IPv6 by words: of what may be anywhere, the compiler copies byte after byte. */
static __always_inline void copy_address(void *to, const void *from)
{
	__be32 *its = to;
	const __be32 *words = from;

#pragma unroll
	for (int nth = 0; nth < 4; nth++)
		its[nth] = words[nth];
}

/* Whether this is how an address of IPv4 looks in maps. On the wire it is another one. */
static __always_inline int is_mapped(const struct address *address)
{
	return !address->words[0] && !address->words[1] && address->words[2] == MAPPED_PREFIX;
}

static __always_inline int is_same(const struct address *one, const struct address *other)
{
	return one->words[3] == other->words[3] && one->words[2] == other->words[2] &&
	       one->words[1] == other->words[1] && one->words[0] == other->words[0];
}
