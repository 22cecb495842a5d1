// SPDX-License-Identifier: Apache-2.0 OR MIT
/* What the packet path is measured beside, and what makes it measurable.
 *
 * A test run that repeats itself does not restore the packet: `restore` does, with another flow each time, and goes on
 * to the program under test. Its own cost is that of going on to `empty`.
 *
 * Between network namespaces, `send` makes packets that leave by an interface, `swallow` counts what comes back, and `bounce` does the
 * least that can be done in between. */
#include "parse.h"

/* Whose packet comes next; user space sets it before each run. */
struct walk {
	/* State of a linear congruential generator, whose low bits visit every flow once before any twice. */
	__u32 state;
	/* Flows, less one; a power of two, less one. */
	__u32 mask;
	/* First client: the others follow. */
	__u32 client;
	__be32 service;
	__be16 service_port;
	__u8 flags;
	/* Of the node. */
	__u8 mac[MAC_LEN];
	__u8 zero[3];
};

struct yardstick_value {
	__u64 words[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next_program SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct walk);
} walk SEC(".maps");

/* A 16-byte key and a 32-byte value. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, struct flow_key);
	__type(value, struct yardstick_value);
} yardstick SEC(".maps");

/* Packets that reached `swallow`. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} swallowed SEC(".maps");

#define WINDOW 0xffff
#define FRAME_LEN (ETHERNET_LEN + IPV4_LEN + TCP_LEN)

static __always_inline void write_frame(__u8 *frame, const struct walk *walk, __u32 index)
{
	__u8 *ip = frame + ETHERNET_LEN, *tcp = ip + IPV4_LEN;
	__u64 sum = 0;

	__builtin_memcpy(frame, walk->mac, MAC_LEN);
	*(__be16 *)(frame + 2 * MAC_LEN) = bpf_htons(ETHERTYPE_IPV4);
	*(__be32 *)ip = bpf_htonl(0x45000000 | (IPV4_LEN + TCP_LEN));
	*(__be32 *)(ip + IPV4_ID) = bpf_htonl(DONT_FRAGMENT);
	*(__be32 *)(ip + IPV4_TTL) = bpf_htonl(HOP_LIMIT << 24 | PROTOCOL_TCP << 16);
	*(__be32 *)(ip + IPV4_SOURCE) = bpf_htonl(walk->client + index);
	*(__be32 *)(ip + IPV4_DESTINATION) = walk->service;
#pragma unroll
	for (int at = 0; at < IPV4_LEN; at += 4)
		sum += *(__u32 *)(ip + at);
	*(__u16 *)(ip + IPV4_CHECKSUM) = ~fold(sum);
	*(__be16 *)tcp = bpf_htons(1024);
	*(__be16 *)(tcp + 2) = walk->service_port;
	*(__be32 *)(tcp + 4) = bpf_htonl(1);
	*(__be32 *)(tcp + 8) = 0;
	*(__be32 *)(tcp + 12) = bpf_htonl((TCP_LEN / 4) << 28 | walk->flags << 16 | WINDOW);
	*(__be32 *)(tcp + 16) = 0;
	/* The pseudo header: both addresses, protocol, length. */
	sum = (__u64)*(__be32 *)(ip + IPV4_SOURCE) + walk->service + bpf_htons(PROTOCOL_TCP) + bpf_htons(TCP_LEN);
#pragma unroll
	for (int at = 0; at < TCP_LEN; at += 4)
		sum += *(__u32 *)(tcp + at);
	*(__u16 *)(tcp + TCP_CHECKSUM) = ~fold(sum);
}

/* Makes the next frame of the walk out of what is left of the last one. */
static __always_inline int make_frame(struct xdp_md *ctx)
{
	__u32 first = 0;
	struct walk *its = bpf_map_lookup_elem(&walk, &first);
	int more = (int)(ctx->data_end - ctx->data) - FRAME_LEN;
	__u8 *frame;

	if (!its || (more && bpf_xdp_adjust_head(ctx, more)))
		return 0;
	frame = BYTES_AT(ctx, 0, FRAME_LEN);
	if (!frame)
		return 0;
	/* Numerical Recipes, section 7.1. */
	its->state = its->state * 1664525 + 1013904223;
	write_frame(frame, its, its->state & its->mask);
	return 1;
}

SEC("xdp")
int restore(struct xdp_md *ctx)
{
	if (make_frame(ctx))
		bpf_tail_call(ctx, &next_program, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int send(struct xdp_md *ctx)
{
	return make_frame(ctx) ? XDP_TX : XDP_ABORTED;
}

SEC("xdp")
int bounce(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_TX;
}

SEC("xdp")
int swallow(struct xdp_md *ctx)
{
	__u32 first = 0;
	__u64 *count = bpf_map_lookup_elem(&swallowed, &first);

	(void)ctx;
	if (count)
		++*count;
	return XDP_DROP;
}

SEC("xdp")
int empty(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

/* The key of a packet that is TCP over IPv4. */
static __always_inline int key_of(struct xdp_md *ctx, struct flow_key *key)
{
	__u8 *frame = BYTES_AT(ctx, 0, FRAME_LEN);
	__u8 *ip = frame + ETHERNET_LEN, *tcp = ip + IPV4_LEN;

	if (!frame || *(__be16 *)(frame + 2 * MAC_LEN) != bpf_htons(ETHERTYPE_IPV4) || ip[0] != 0x45 ||
	    ip[IPV4_PROTOCOL] != PROTOCOL_TCP)
		return 0;
	key->client = *(__be32 *)(ip + IPV4_SOURCE);
	key->service = *(__be32 *)(ip + IPV4_DESTINATION);
	key->client_port = *(__be16 *)tcp;
	key->service_port = *(__be16 *)(tcp + 2);
	key->protocol = PROTOCOL_TCP;
	return 1;
}

SEC("xdp")
int look_up(struct xdp_md *ctx)
{
	struct flow_key key = {};
	struct yardstick_value *value;

	if (!key_of(ctx, &key))
		return XDP_ABORTED;
	value = bpf_map_lookup_elem(&yardstick, &key);
	if (!value)
		return XDP_ABORTED;
	value->words[0]++;
	return XDP_TX;
}

SEC("xdp")
int insert(struct xdp_md *ctx)
{
	struct yardstick_value value = {};
	struct flow_key key = {};

	if (!key_of(ctx, &key) || bpf_map_update_elem(&yardstick, &key, &value, BPF_ANY))
		return XDP_ABORTED;
	return XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
