/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What user space hears of connections that others may have to go on with (docs/decisions/0054-owned-addresses-in-the-kernel.md). */
#pragma once

#include "address.h"
#include "parse.h"

static __always_inline void name_change(struct flow_key_v6 *name, const struct packet *packet)
{
	if (packet->ip.is_ipv6) {
		*name = packet->flow_v6;
		return;
	}
	*name = (struct flow_key_v6){
		.client_port = packet->flow.client_port,
		.service_port = packet->flow.service_port,
		.protocol = packet->flow.protocol,
		.client = mapped(packet->flow.client),
		.service = mapped(packet->flow.service),
	};
}

/* Says what has become of a connection. What finds no room is found by user space's next walk through the tables. */
__noinline int tell(const struct packet *packet, const struct flow_entry *entry)
{
	struct change *change;

	if (!packet || !entry || !packet->is_told)
		return 0;
	change = bpf_ringbuf_reserve(&changes, sizeof(*change), 0);
	if (!change)
		return 0;
	name_change(&change->flow, packet);
	change->entry = *entry;
	/* User space looks every few milliseconds. */
	bpf_ringbuf_submit(change, BPF_RB_NO_WAKEUP);
	return 0;
}
