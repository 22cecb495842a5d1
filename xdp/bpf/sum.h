/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The UDP checksum of a tunnel over IPv6: a sum over a whole packet, as there is none to begin with. */
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

static long add_block(__u32 step, struct summing *summing)
{
	__u8 *bytes = next_bytes(summing, BLOCK_LEN);

	(void)step;
	if (!bytes)
		return 1;
#pragma unroll
	for (int at = 0; at < BLOCK_LEN; at += 4)
		summing->sum += *(__u32 *)(bytes + at);
	return 0;
}

static long add_word(__u32 step, struct summing *summing)
{
	__u8 *bytes = next_bytes(summing, 2);

	(void)step;
	if (bytes)
		summing->sum += *(__u16 *)bytes;
	return !bytes;
}

/* Writes the UDP checksum of a tunnel whose headers are there, and which carries `len` bytes behind the IPv6 header. */
__noinline int write_checksum_over_ipv6(struct xdp_md *ctx, __u32 len)
{
	struct summing summing = {
		.ctx = ctx,
		.at = ETHERNET_LEN + IPV6_LEN,
		.end = ETHERNET_LEN + IPV6_LEN + len,
		.sum = (__u64)bpf_htonl(len) + bpf_htonl(PROTOCOL_UDP),
	};
	__u8 *last, *addresses = BYTES_AT(ctx, ETHERNET_LEN + IPV6_SOURCE, 2 * sizeof(struct address));
	__u16 *checksum;

	if (!addresses || summing.end > SUMMED_MAX)
		return DROP_TRANSMIT_FAILED;
#pragma unroll
	for (int at = 0; at < 2 * (int)sizeof(struct address); at += 4)
		summing.sum += *(__u32 *)(addresses + at);
	bpf_loop(SUMMED_MAX / BLOCK_LEN, add_block, &summing, 0);
	bpf_loop(BLOCK_LEN / 2, add_word, &summing, 0);
	last = next_bytes(&summing, 1);
	if (last)
		/* Padded with zero. */
		summing.sum += *last;
	checksum = BYTES_AT(ctx, ETHERNET_LEN + IPV6_LEN + UDP_CHECKSUM, sizeof(*checksum));
	if (!checksum || summing.at != summing.end)
		return DROP_TRUNCATED;
	*checksum = ~fold(summing.sum);
	/* Zero would say that there is none. */
	if (!*checksum)
		*checksum = 0xffff;
	return WELL;
}
