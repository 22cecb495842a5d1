/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* IP headers of both versions: rewrite/src/ipv4.rs and rewrite/src/ipv6.rs.
 *
 * Offsets count from the start of the frame. `end` is where the bytes end that a packet may use: the frame's end, or the
 * end of the packet around it. */
#pragma once

#include "address.h"
#include "checksum.h"
#include "reasons.h"

/* No header that is looked at begins behind this: Ethernet, two IP headers with all options or extension headers, GUE, ICMP, a
 * quoted header. */
#define OFFSET_MASK "0x3fff"

/* A pointer to `len` bytes of a frame from offset `at` on; null when they are not there. The verifier forgets the bounds
 * of numbers that were kept on the stack: the mask renews them, in a way that the compiler cannot prove needless. */
#define BYTES_AT(ctx, at, len)                                                                                         \
	({                                                                                                             \
		__u64 offset_ = (at);                                                                                  \
		void *bytes_;                                                                                          \
		if (!__builtin_constant_p(at))                                                                         \
			asm volatile("%0 &= " OFFSET_MASK : "+r"(offset_));                                            \
		bytes_ = (void *)(long)(ctx)->data + offset_;                                                          \
		bytes_ + (len) > (void *)(long)(ctx)->data_end ? (void *)0 : bytes_;                                   \
	})

/* An IP header. */
struct header {
	__u32 at;
	/* With options, or with the extension headers that were stepped over. */
	__u32 len;
	__u32 total_len;
	/* The same in all fragments of a packet. */
	__u32 id;
	/* As in IPv4. IPv6 never lets a router cut a packet. */
	__u16 fragment;
	/* Or traffic class. */
	__u8 tos;
	/* Or hop limit. */
	__u8 ttl;
	__u8 protocol;
	__u8 is_ipv6;
	__u16 zero;
	struct address source;
	struct address destination;
};

static __always_inline int is_fragment(const struct header *header)
{
	return header->fragment & FRAGMENT_MASK;
}

static __always_inline void read_ipv4_fields(const __u8 *ip, __u32 at, struct header *header)
{
	header->at = at;
	header->len = (ip[0] & 0xf) * 4;
	header->total_len = bpf_ntohs(*(__be16 *)(ip + IPV4_TOTAL_LENGTH));
	header->tos = ip[IPV4_TOS];
	header->id = bpf_ntohs(*(__be16 *)(ip + IPV4_ID));
	header->fragment = bpf_ntohs(*(__be16 *)(ip + IPV4_FRAGMENT));
	header->ttl = ip[IPV4_TTL];
	header->protocol = ip[IPV4_PROTOCOL];
	header->is_ipv6 = 0;
	header->source = mapped(*(__be32 *)(ip + IPV4_SOURCE));
	header->destination = mapped(*(__be32 *)(ip + IPV4_DESTINATION));
}

/* A header that is quoted: what follows it may be cut off, and its checksum need not hold. */
static __always_inline int parse_quoted_ipv4(struct xdp_md *ctx, __u32 at, __u32 end, struct header *header)
{
	__u8 *ip = BYTES_AT(ctx, at, IPV4_LEN);

	if (!ip || at + IPV4_LEN > end)
		return DROP_TRUNCATED;
	if (ip[0] >> 4 != 4)
		return DROP_MALFORMED;
	read_ipv4_fields(ip, at, header);
	if (header->len < IPV4_LEN || header->total_len < header->len)
		return DROP_MALFORMED;
	return WELL;
}

static __always_inline int header_checksum_holds(__u8 *ip, __u32 len, void *data_end)
{
	__u64 sum = 0;

#pragma unroll
	for (int at = 0; at < IPV4_LEN; at += 4)
		sum += *(__u32 *)(ip + at);
	if (len > IPV4_LEN) {
		for (int at = IPV4_LEN; at < IPV4_LEN_MAX; at += 4) {
			if (at >= len || (void *)(ip + at + 4) > data_end)
				break;
			sum += *(__u32 *)(ip + at);
		}
	}
	return fold(sum) == 0xffff;
}

static __always_inline int parse_ipv4(struct xdp_md *ctx, __u32 at, __u32 end, struct header *header)
{
	int broken = parse_quoted_ipv4(ctx, at, end, header);
	__u8 *ip = BYTES_AT(ctx, at, IPV4_LEN);

	if (broken != WELL)
		return broken;
	if (!ip || at + header->total_len > end)
		return DROP_TRUNCATED;
	if (!header_checksum_holds(ip, header->len, (void *)(long)ctx->data_end))
		return DROP_BAD_HEADER_CHECKSUM;
	return WELL;
}

static __always_inline void read_ipv6_fields(const __u8 *ip, __u32 at, struct header *header)
{
	header->at = at;
	header->len = IPV6_LEN;
	header->total_len = IPV6_LEN + bpf_ntohs(*(__be16 *)(ip + IPV6_PAYLOAD_LENGTH));
	header->id = 0;
	header->fragment = DONT_FRAGMENT;
	header->tos = ip[0] << 4 | ip[1] >> 4;
	header->ttl = ip[IPV6_HOP_LIMIT];
	header->protocol = ip[IPV6_PROTOCOL];
	header->is_ipv6 = 1;
	copy_address(&header->source, ip + IPV6_SOURCE);
	copy_address(&header->destination, ip + IPV6_DESTINATION);
}

/* Extension headers that are stepped over. Behind the header of a fragment nothing is looked for. */
static __always_inline int is_extension(const struct header *header)
{
	if (is_fragment(header))
		return 0;
	switch (header->protocol) {
	case PROTOCOL_HOP_BY_HOP:
	case PROTOCOL_ROUTING:
	case PROTOCOL_FRAGMENT:
	case PROTOCOL_DESTINATION_OPTIONS:
		return 1;
	}
	return 0;
}

/* What a step answers behind which there is none. */
#define NO_FURTHER (WELL - 1)

/* Steps over the extension header whose first bytes these are. */
static __always_inline int step_over(struct header *header, const __u8 *start, __u32 end)
{
	__u32 len = EXTENSION_UNIT, field;

	/* There are segments left: the destination is not the last one (RFC 8200, section 4.4). */
	if (header->protocol == PROTOCOL_ROUTING && start[3])
		return NO_FURTHER;
	if (header->protocol != PROTOCOL_FRAGMENT)
		len += start[1] * EXTENSION_UNIT;
	if (header->at + header->len + len > end)
		return DROP_TRUNCATED;
	if (header->len - IPV6_LEN + len > EXTENSIONS_LEN_MAX)
		return NO_FURTHER;
	if (header->protocol == PROTOCOL_FRAGMENT) {
		field = bpf_ntohs(*(__be16 *)(start + 2));
		header->fragment |= field >> IPV6_OFFSET_SHIFT;
		if (field & IPV6_MORE_FRAGMENTS)
			header->fragment |= MORE_FRAGMENTS;
		header->id = bpf_ntohl(*(__be32 *)(start + 4));
	}
	header->len += len;
	header->protocol = start[0];
	return WELL;
}

/* The same of IPv6. */
__noinline int parse_quoted_ipv6(struct xdp_md *ctx, __u32 at, __u32 end, struct header *header)
{
	__u8 *ip = BYTES_AT(ctx, at, IPV6_LEN), *start;
	int step;

	if (!header)
		return DROP_MALFORMED;
	if (!ip || at + IPV6_LEN > end)
		return DROP_TRUNCATED;
	if (ip[0] >> 4 != 6)
		return DROP_MALFORMED;
	read_ipv6_fields(ip, at, header);
	if (at + header->total_len < end)
		end = at + header->total_len;
	for (int nth = 0; nth < EXTENSIONS_MAX && is_extension(header); nth++) {
		start = BYTES_AT(ctx, at + header->len, EXTENSION_UNIT);
		if (!start || at + header->len + EXTENSION_UNIT > end)
			return DROP_TRUNCATED;
		step = step_over(header, start, end);
		if (step != WELL)
			return step == NO_FURTHER ? WELL : step;
	}
	return WELL;
}

static __always_inline int parse_ipv6(struct xdp_md *ctx, __u32 at, __u32 end, struct header *header)
{
	int broken = parse_quoted_ipv6(ctx, at, end, header);

	if (broken != WELL)
		return broken;
	return at + header->total_len > end ? DROP_TRUNCATED : WELL;
}
