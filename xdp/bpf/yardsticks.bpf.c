// SPDX-License-Identifier: Apache-2.0 OR MIT
/* What the packet path is measured beside, and what makes it measurable.
 *
 * A test run that repeats itself does not restore the packet: `restore` does, with another flow each time, and goes on
 * to the program under test. Its own cost is that of going on to `empty`.
 *
 * Between network namespaces, `send` makes packets that leave by an interface, `swallow` counts what comes back, and `bounce` does the
 * least that can be done in between; where packets go on to another machine, `relay` does. */
#include "parse.h"

/* Whose packet comes next; user space sets it before each run. */
struct walk {
	/* State of a linear congruential generator, whose low bits visit every flow once before any twice. */
	__u32 state;
	/* Flows, less one; a power of two, less one. */
	__u32 mask;
	/* First client: the others follow, by the last word. */
	struct address client;
	struct address service;
	__be16 service_port;
	__u8 flags;
	__u8 is_ipv6;
	/* Of the node. */
	__u8 mac[MAC_LEN];
	__u8 zero[2];
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

/* A 40-byte key. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, struct flow_key_v6);
	__type(value, struct yardstick_value);
} yardstick_v6 SEC(".maps");

/* Packets that reached `swallow`. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} swallowed SEC(".maps");

/* Where `relay` sends to. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mac);
} relay_to SEC(".maps");

#define WINDOW 0xffff
#define FRAME_LEN (ETHERNET_LEN + IPV4_LEN + TCP_LEN)
#define FRAME_LEN_V6 (ETHERNET_LEN + IPV6_LEN + TCP_LEN)

/* The `nth` client's last word. */
static __always_inline __be32 client_word(const struct walk *walk, __u32 nth)
{
	return bpf_htonl(bpf_ntohl(walk->client.words[3]) + nth);
}

/* `addresses` is the sum of both. */
static __always_inline void write_segment(__u8 *tcp, const struct walk *walk, __u64 addresses)
{
	/* The pseudo header: addresses, protocol, length. */
	__u64 sum = addresses + bpf_htons(PROTOCOL_TCP) + bpf_htons(TCP_LEN);

	*(__be16 *)tcp = bpf_htons(1024);
	*(__be16 *)(tcp + 2) = walk->service_port;
	*(__be32 *)(tcp + 4) = bpf_htonl(1);
	*(__be32 *)(tcp + 8) = 0;
	*(__be32 *)(tcp + 12) = bpf_htonl((TCP_LEN / 4) << 28 | walk->flags << 16 | WINDOW);
	*(__be32 *)(tcp + 16) = 0;
#pragma unroll
	for (int at = 0; at < TCP_LEN; at += 4)
		sum += *(__u32 *)(tcp + at);
	*(__u16 *)(tcp + TCP_CHECKSUM) = ~fold(sum);
}

static __always_inline void write_ipv4(__u8 *ip, const struct walk *walk, __u32 nth)
{
	__be32 client = client_word(walk, nth);
	__u64 sum = 0;

	*(__be32 *)ip = bpf_htonl(0x45000000 | (IPV4_LEN + TCP_LEN));
	*(__be32 *)(ip + IPV4_ID) = bpf_htonl(DONT_FRAGMENT);
	*(__be32 *)(ip + IPV4_TTL) = bpf_htonl(HOP_LIMIT << 24 | PROTOCOL_TCP << 16);
	*(__be32 *)(ip + IPV4_SOURCE) = client;
	*(__be32 *)(ip + IPV4_DESTINATION) = walk->service.words[3];
#pragma unroll
	for (int at = 0; at < IPV4_LEN; at += 4)
		sum += *(__u32 *)(ip + at);
	*(__u16 *)(ip + IPV4_CHECKSUM) = ~fold(sum);
	write_segment(ip + IPV4_LEN, walk, (__u64)client + walk->service.words[3]);
}

static __always_inline void write_ipv6(__u8 *ip, const struct walk *walk, __u32 nth)
{
	__u64 sum = 0;

	*(__be32 *)ip = bpf_htonl(6u << 28);
	*(__be32 *)(ip + IPV6_PAYLOAD_LENGTH) = bpf_htonl(TCP_LEN << 16 | PROTOCOL_TCP << 8 | HOP_LIMIT);
	copy_address(ip + IPV6_SOURCE, &walk->client);
	*(__be32 *)(ip + IPV6_SOURCE + 12) = client_word(walk, nth);
	copy_address(ip + IPV6_DESTINATION, &walk->service);
#pragma unroll
	for (int at = IPV6_SOURCE; at < IPV6_LEN; at += 4)
		sum += *(__u32 *)(ip + at);
	write_segment(ip + IPV6_LEN, walk, sum);
}

/* All of a frame of `len` bytes, made of what is left of the last one. */
static __always_inline __u8 *frame_of(struct xdp_md *ctx, const struct walk *walk, int len)
{
	int more = (int)(ctx->data_end - ctx->data) - len;
	__u8 *frame;

	if (more && bpf_xdp_adjust_head(ctx, more))
		return 0;
	frame = BYTES_AT(ctx, 0, len);
	if (!frame)
		return 0;
	__builtin_memcpy(frame, walk->mac, MAC_LEN);
	*(__be16 *)(frame + 2 * MAC_LEN) = bpf_htons(len == FRAME_LEN ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
	return frame;
}

/* Makes the next frame of the walk. */
static __always_inline int make_frame(struct xdp_md *ctx)
{
	__u32 first = 0, nth;
	struct walk *its = bpf_map_lookup_elem(&walk, &first);
	__u8 *frame;

	if (!its)
		return 0;
	/* Numerical Recipes, section 7.1. */
	its->state = its->state * 1664525 + 1013904223;
	nth = its->state & its->mask;
	if (its->is_ipv6) {
		frame = frame_of(ctx, its, FRAME_LEN_V6);
		if (frame)
			write_ipv6(frame + ETHERNET_LEN, its, nth);
		return frame != 0;
	}
	frame = frame_of(ctx, its, FRAME_LEN);
	if (frame)
		write_ipv4(frame + ETHERNET_LEN, its, nth);
	return frame != 0;
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

/* Sends IPv4 on to a MAC address, and is otherwise the host that it would be without: the least that a hop between two machines can be. */
SEC("xdp")
int relay(struct xdp_md *ctx)
{
	__u8 *frame = BYTES_AT(ctx, 0, ETHERNET_LEN);
	__u32 first = 0;
	struct mac *to = bpf_map_lookup_elem(&relay_to, &first);

	if (!frame || !to || *(__be16 *)(frame + 2 * MAC_LEN) != bpf_htons(ETHERTYPE_IPV4))
		return XDP_PASS;
	__builtin_memcpy(frame + MAC_LEN, frame, MAC_LEN);
	__builtin_memcpy(frame, to->bytes, MAC_LEN);
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

/* The same over IPv6. */
static __always_inline int key_of_v6(struct xdp_md *ctx, struct flow_key_v6 *key)
{
	__u8 *frame = BYTES_AT(ctx, 0, FRAME_LEN_V6);
	__u8 *ip = frame + ETHERNET_LEN, *tcp = ip + IPV6_LEN;

	if (!frame || *(__be16 *)(frame + 2 * MAC_LEN) != bpf_htons(ETHERTYPE_IPV6) || ip[0] >> 4 != 6 ||
	    ip[IPV6_PROTOCOL] != PROTOCOL_TCP)
		return 0;
	copy_address(&key->client, ip + IPV6_SOURCE);
	copy_address(&key->service, ip + IPV6_DESTINATION);
	key->client_port = *(__be16 *)tcp;
	key->service_port = *(__be16 *)(tcp + 2);
	key->protocol = PROTOCOL_TCP;
	return 1;
}

static __always_inline int touch(struct yardstick_value *value)
{
	if (!value)
		return XDP_ABORTED;
	value->words[0]++;
	return XDP_TX;
}

SEC("xdp")
int look_up(struct xdp_md *ctx)
{
	struct flow_key key = {};

	return key_of(ctx, &key) ? touch(bpf_map_lookup_elem(&yardstick, &key)) : XDP_ABORTED;
}

SEC("xdp")
int look_up_v6(struct xdp_md *ctx)
{
	struct flow_key_v6 key = {};

	return key_of_v6(ctx, &key) ? touch(bpf_map_lookup_elem(&yardstick_v6, &key)) : XDP_ABORTED;
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

SEC("xdp")
int insert_v6(struct xdp_md *ctx)
{
	struct yardstick_value value = {};
	struct flow_key_v6 key = {};

	if (!key_of_v6(ctx, &key) || bpf_map_update_elem(&yardstick_v6, &key, &value, BPF_ANY))
		return XDP_ABORTED;
	return XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
