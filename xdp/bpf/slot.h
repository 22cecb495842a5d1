/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Who decides about a packet: of an address that a node holds that node, of all others the owner of the packet's slot.
 *
 * Slots are those of ownership/src/partition.rs, by the hash of ownership/src/hash.rs. */
#pragma once

#include "parse.h"
#include "maps.h"

/* Seed of the hash. */
#define SLOT_SEED 0x64707220736c6f74ull

/* Takes a word into the hash (SplitMix64: Steele, Lea, Flood 2014). */
static __always_inline __u64 take_word(__u64 hash, __u64 word)
{
	hash = (hash ^ word) + 0x9e3779b97f4a7c15ull;
	hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9ull;
	hash = (hash ^ hash >> 27) * 0x94d049bb133111ebull;
	return hash ^ hash >> 31;
}

static __always_inline __u64 take_address_v6(__u64 hash, const struct address *address)
{
	hash = take_word(hash, (__u64)bpf_ntohl(address->words[0]) << 32 | bpf_ntohl(address->words[1]));
	return take_word(hash, (__u64)bpf_ntohl(address->words[2]) << 32 | bpf_ntohl(address->words[3]));
}

static __always_inline __u64 take_client(__u64 hash, const struct packet *packet)
{
	return packet->ip.is_ipv6 ? take_address_v6(hash, &packet->flow_v6.client) :
				    take_word(hash, bpf_ntohl(packet->flow.client));
}

static __always_inline __u64 take_service(__u64 hash, const struct packet *packet)
{
	return packet->ip.is_ipv6 ? take_address_v6(hash, &packet->flow_v6.service) :
				    take_word(hash, bpf_ntohl(packet->flow.service));
}

static __always_inline __u64 slot_hash(const struct packet *packet, const struct service *service)
{
	__u64 client_port = bpf_ntohs(packet->flow.client_port), service_port = bpf_ntohs(service->port);

	switch (service->partition) {
	case PARTITION_SOURCE_ADDRESS:
		return take_client(SLOT_SEED, packet);
	case PARTITION_DESTINATION_ADDRESS:
		return take_service(SLOT_SEED, packet);
	case PARTITION_SOURCE_PORT:
		return take_word(SLOT_SEED, client_port);
	case PARTITION_DESTINATION_PORT:
		return take_word(SLOT_SEED, service_port);
	case PARTITION_ALL:
		return take_word(take_service(take_client(SLOT_SEED, packet), packet), client_port << 16 | service_port);
	case PARTITION_ADDRESSES:
		return take_service(take_client(SLOT_SEED, packet), packet);
	default:
		return take_word(take_client(SLOT_SEED, packet), client_port);
	}
}

__noinline int find_owner_of_slot(struct packet *packet, const struct service *service)
{
	struct settings *settings = settings_of_this_node();
	struct slot *slot;
	__u32 index;

	if (!settings || !packet || !service)
		return 0;
	packet->tenure = TENURE_PENDING;
	index = slot_hash(packet, service) >> settings->slot_shift & (SLOTS_MAX - 1);
	if (settings->bank)
		index += SLOTS_MAX;
	slot = bpf_map_lookup_elem(&slots, &index);
	if (!slot)
		return 0;
	packet->owner = slot->owner;
	if (slot->owner != SELF || !(service->sharing & SHARING_CHANGES_HANDS))
		packet->tenure = slot->tenure;
	packet->term = (service->term + slot->term) | TERM_BY_SLOT;
	packet->is_recent |= slot->is_recent;
	return 0;
}

/* Finds out who decides about a packet of a service, and by which right. */
static __always_inline void find_owner(struct packet *packet, const struct service *service)
{
	packet->owner = service->owner;
	packet->tenure = service->tenure;
	packet->term = service->term;
	packet->is_recent = service->is_recent;
	packet->all_see = service->sharing & SHARING_ALL_SEE;
	if (service->tenure == TENURE_BY_SLOT)
		find_owner_of_slot(packet, service);
}
