/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* A hash of the flow, by which routers and network cards spread tunnelled packets: rewrite/src/flow_hash.rs. */
#pragma once

#include "parse.h"

static __always_inline __u32 rotated(__u32 word, __u32 bits)
{
	return word << bits | word >> (32 - bits);
}

/* One round of MurmurHash3 (Appleby 2011, `MurmurHash3_x86_32`), and below its end. */
static __always_inline __u32 mix(__u32 hash, __u32 word)
{
	word = rotated(word * 0xcc9e2d51, 15) * 0x1b873593;
	return rotated(hash ^ word, 13) * 5 + 0xe6546b64;
}

static __always_inline __u32 finish(__u32 hash)
{
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	return hash ^ hash >> 16;
}

static __always_inline __u32 mix_address(__u32 hash, const struct address *address)
{
#pragma unroll
	for (int nth = 0; nth < 4; nth++)
		hash = mix(hash, bpf_ntohl(address->words[nth]));
	return hash;
}

static __always_inline __u32 mix_ends(const struct packet *packet, __u32 hash)
{
	if (packet->ip.is_ipv6)
		return mix_address(mix_address(hash, &packet->flow_v6.client), &packet->flow_v6.service);
	return mix(mix(hash, bpf_ntohl(packet->flow.client)), bpf_ntohl(packet->flow.service));
}

/* Of fragments the addresses count only, so that all of a packet go the same way. */
static __always_inline __u32 flow_hash(const struct packet *packet, __u32 seed)
{
	const struct flow_key *flow = &packet->flow;
	__u32 ports = 0;

	if (packet->kind != KIND_FRAGMENT)
		ports = (__u32)bpf_ntohs(flow->client_port) << 16 | bpf_ntohs(flow->service_port);
	return finish(mix(mix_ends(packet, seed), ports));
}
