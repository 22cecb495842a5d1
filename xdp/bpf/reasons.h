/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Why a packet is dropped: the names and the order of `DropReason` in model/src/verdict.rs, held together by a test. */
#pragma once

enum drop_reason {
	DROP_TRUNCATED,
	DROP_MALFORMED,
	DROP_BAD_HEADER_CHECKSUM,
	DROP_NOT_MINE,
	DROP_NO_LEASE,
	DROP_HOPS_SPENT,
	DROP_TUNNEL_FROM_STRANGER,
	DROP_TUNNEL_UNKNOWN_SERVICE,
	DROP_FRAGMENT,
	DROP_UNKNOWN_DELIVERY,
	DROP_UNKNOWN_NAT_PORT,
	DROP_NO_NAT_PORT,
	DROP_NO_ROUTE,
	DROP_NO_NEIGHBOUR,
	DROP_TOO_BIG,
	DROP_TTL_EXPIRED,
	DROP_ECN_NOT_CAPABLE,
	DROP_VERSION_MISMATCH,
	DROP_TRANSMIT_FAILED,
	/* Never in the kernel. */
	DROP_QUEUE_FULL,
};

/* What a check answers that found nothing wrong; otherwise it answers a reason. */
#define WELL (-1)
