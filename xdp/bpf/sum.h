/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Checksums of what is sent over IPv6 and had none to begin with: a sum over a whole packet. Of a tunnel it is UDP's, of an
 * answer ICMPv6's. */
#pragma once

#include "parse.h"

/* Bytes that are added up at once. */
#define BLOCK_LEN 32
/* What is longer is dropped as `transmit-failed`: no driver that takes programs has such frames, but a packet behind the driver
 * may be so long. The verifier allows no more than twice as much. */
#define SUMMED_MAX 0x7fff

/* How far adding up has come. */
struct summing {
	struct xdp_md *ctx;
	/* From the start of the frame. */
	__u32 at;
	__u32 end;
	__u64 sum;
};

/* The next `len` bytes; null when there are not so many. */
static __always_inline __u8 *next_bytes(struct summing *summing, __u32 len)
{
	struct xdp_md *ctx = summing->ctx;
	__u64 at = summing->at;
	__u8 *bytes;

	if (at + len > summing->end)
		return 0;
	asm volatile("%0 &= 0x7fff" : "+r"(at));
	bytes = (void *)(long)ctx->data + at;
	if ((void *)(bytes + len) > (void *)(long)ctx->data_end)
		return 0;
	summing->at += len;
	return bytes;
}

/* A carry less, so that the sum stays within bounds that the verifier sees to be the same in every step. */
static __always_inline void carry(struct summing *summing)
{
	summing->sum = (summing->sum & 0xffffffff) + (summing->sum >> 32);
}

static long add_block(__u32 step, struct summing *summing)
{
	__u8 *bytes = next_bytes(summing, BLOCK_LEN);

	(void)step;
	if (!bytes)
		return 1;
	carry(summing);
#pragma unroll
	for (int at = 0; at < BLOCK_LEN; at += 4)
		summing->sum += *(__u32 *)(bytes + at);
	return 0;
}

static long add_word(__u32 step, struct summing *summing)
{
	__u8 *bytes = next_bytes(summing, 2);

	(void)step;
	if (!bytes)
		return 1;
	carry(summing);
	summing->sum += *(__u16 *)bytes;
	return 0;
}

/* The sum of a frame's bytes from `at` to `end`, folded, or -1 when they are not there. A function of its own, as to the verifier
 * its arguments may then be anything: from a place that it knows it would follow every step. */
__noinline int sum_of(struct xdp_md *ctx, __u32 at, __u32 end)
{
	struct summing summing = { .ctx = ctx, .at = at, .end = end };
	__u8 *last;

	if (end > SUMMED_MAX)
		return -1;
	bpf_loop(SUMMED_MAX / BLOCK_LEN, add_block, &summing, 0);
	bpf_loop(BLOCK_LEN / 2, add_word, &summing, 0);
	last = next_bytes(&summing, 1);
	if (last)
		/* Padded with zero. */
		summing.sum += *last;
	return summing.at == end ? fold(summing.sum) : -1;
}

/* Writes the checksum of a packet whose headers are there, and which carries `len` bytes of `protocol` behind the IPv6 header. */
__noinline int write_checksum_over_ipv6(struct xdp_md *ctx, __u32 len, __u32 protocol)
{
	__u32 checksum_at = protocol == PROTOCOL_UDP ? UDP_CHECKSUM : ICMP_CHECKSUM;
	int sum = sum_of(ctx, ETHERNET_LEN + IPV6_LEN, ETHERNET_LEN + IPV6_LEN + len);
	__u8 *addresses = BYTES_AT(ctx, ETHERNET_LEN + IPV6_SOURCE, 2 * sizeof(struct address));
	__u16 *checksum = BYTES_AT(ctx, ETHERNET_LEN + IPV6_LEN + checksum_at, sizeof(*checksum));
	__u64 pseudo = (__u64)bpf_htonl(len) + bpf_htonl(protocol);

	if (sum < 0 || !addresses || !checksum)
		return DROP_TRANSMIT_FAILED;
#pragma unroll
	for (int at = 0; at < 2 * (int)sizeof(struct address); at += 4)
		pseudo += *(__u32 *)(addresses + at);
	*checksum = ~fold(pseudo + sum);
	/* Zero would say that there is none. */
	if (protocol == PROTOCOL_UDP && !*checksum)
		*checksum = 0xffff;
	return WELL;
}
