/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Who gets a new connection: director/src/decide.rs and the policies of director/src/policy/.
 *
 * User space says what peers reported; the kernel counts what it sent since, so that a decision asks nobody. The functions
 * without `static` are checked by the verifier once each, and not for every way that leads to them. */
#pragma once

#include "flow_hash.h"
#include "flows.h"

/* A choice among the candidates without the one that would be the client itself, and how far it has come. */
struct choice {
	struct candidates *candidates;
	/* Candidates that may be chosen. */
	__u32 count;
	/* Position that is left out, or beyond all. */
	__u32 without;
	/* enum policy */
	__u32 policy;
	/* Position to begin at. */
	__u32 start;
	__u64 lowest_score;
	/* Lotteries: tickets of all, and the one that wins, counted down. */
	__u64 tickets;
	__u64 winner;
	/* Number of the chosen node, or -1. */
	int node;
};

static __always_inline struct node_counts *counts_of(__u32 node)
{
	return bpf_map_lookup_elem(&counts_by_node, &node);
}

static __always_inline struct candidates *candidates_of(const struct settings *settings, __u32 list)
{
	__u32 index = (settings->bank ? LISTS_MAX : 0) + list;

	return list < LISTS_MAX ? bpf_map_lookup_elem(&candidate_lists, &index) : 0;
}

/* Connections on their way to a node: sent, and not in its load report yet. */
static __always_inline __u64 outstanding(const struct candidate *candidate)
{
	struct node_counts *counts = counts_of(candidate->node);
	/* Less than nothing is settled where user space has given the node more than the programs have. */
	__s64 outstanding = counts ? counts->sent - candidate->settled : 0;

	return outstanding > 0 ? outstanding : 0;
}

static __always_inline __u64 score_with(const struct candidate *candidate, __u64 outstanding)
{
	__u64 milliload;

	if (!candidate->weight)
		return ~0ull;
	milliload = (candidate->load + 1ull) * 1000;
	if (candidate->capacity)
		milliload += outstanding * 1000000 / candidate->capacity;
	return milliload * 100 / candidate->weight;
}

/* Estimated load per weight: `Candidate::score`. */
static __always_inline __u64 score(const struct candidate *candidate)
{
	return score_with(candidate, outstanding(candidate));
}

/* Turns taken per weight: the lowest is next. */
static __always_inline __u64 turns_score(const struct candidate *candidate)
{
	struct node_counts *counts = counts_of(candidate->node);

	if (!candidate->weight || !counts)
		return ~0ull;
	return ((counts->turns - candidate->turns_settled + 1) << 20) / candidate->weight;
}

static __always_inline __u64 score_by(__u32 policy, const struct candidate *candidate)
{
	switch (policy) {
	case POLICY_LIGHTEST:
		return score_with(candidate, 0);
	case POLICY_ROUND_ROBIN:
		return turns_score(candidate);
	}
	return score(candidate);
}

static __always_inline struct candidate *nth(const struct choice *choice, __u32 position)
{
	if (position >= choice->without)
		position++;
	return &choice->candidates->list[position & (CANDIDATES_MAX - 1)];
}

static long compare(__u32 step, struct choice *choice)
{
	struct candidate *candidate = nth(choice, (choice->start + step) % choice->count);
	__u64 its_score = score_by(choice->policy, candidate);

	if (its_score < choice->lowest_score) {
		choice->lowest_score = its_score;
		choice->node = candidate->node;
	}
	return 0;
}

/* The candidate with the lowest score, looking from a random one on so that equals share; turns are taken in order. */
static __always_inline void choose_lowest(struct choice *choice)
{
	choice->start = choice->policy == POLICY_ROUND_ROBIN ? 0 : bpf_get_prandom_u32() % choice->count;
	choice->lowest_score = ~0ull;
	bpf_loop(choice->count, compare, choice, 0);
}

/* The better one of two random ones (Mitzenmacher 2001). */
static __always_inline void choose_better_of_two(struct choice *choice)
{
	__u32 first = bpf_get_prandom_u32() % choice->count;
	__u32 second = (first + 1 + bpf_get_prandom_u32() % (choice->count - 1)) % choice->count;
	struct candidate *one = nth(choice, first);
	struct candidate *other = nth(choice, second);

	if (score(other) < score(one))
		one = other;
	if (one->weight)
		choice->node = one->node;
	else
		choose_lowest(choice);
}

/* Tickets by weight over reported load; without regard to load, one for everybody who may be chosen. */
static __always_inline __u64 tickets(__u32 policy, const struct candidate *candidate)
{
	if (policy == POLICY_STATELESS)
		return candidate->weight > 0;
	return ((__u64)candidate->weight << 20) / (candidate->load + 1ull);
}

static long hand_out(__u32 position, struct choice *choice)
{
	choice->tickets += tickets(choice->policy, nth(choice, position));
	return 0;
}

static long draw(__u32 position, struct choice *choice)
{
	struct candidate *candidate = nth(choice, position);
	__u64 held = tickets(choice->policy, candidate);

	if (choice->winner < held) {
		choice->node = candidate->node;
		return 1;
	}
	choice->winner -= held;
	return 0;
}

/* A lottery, which a number decides. */
static __always_inline void choose_by_lot(struct choice *choice, __u64 number)
{
	choice->winner = number;
	bpf_loop(choice->count, hand_out, choice, 0);
	if (!choice->tickets)
		return;
	choice->winner %= choice->tickets;
	bpf_loop(choice->count, draw, choice, 0);
}

/* Looking for a candidate. */
struct search {
	struct candidates *candidates;
	__u32 node;
	/* Position of that node, or beyond all. */
	__u32 position;
	__u64 score;
	/* Whether there is one with a lower score. */
	__u32 found_lighter;
};

static long compare_node(__u32 position, struct search *search)
{
	if (search->candidates->list[position & (CANDIDATES_MAX - 1)].node != search->node)
		return 0;
	search->position = position;
	return 1;
}

static long compare_score(__u32 position, struct search *search)
{
	search->found_lighter = score(&search->candidates->list[position & (CANDIDATES_MAX - 1)]) < search->score;
	return search->found_lighter;
}

static __always_inline __u32 count_of(const struct candidates *candidates)
{
	return candidates->count > CANDIDATES_MAX ? CANDIDATES_MAX : candidates->count;
}

/* The position of the node that the client is: it cannot be served through a tunnel, as its own address would be the
 * destination of the reply. */
static __always_inline __u32 position_of(struct candidates *candidates, const struct address *client)
{
	struct search search = { .candidates = candidates, .position = count_of(candidates) };
	__u32 *number = bpf_map_lookup_elem(&node_by_address, client);

	if (number) {
		search.node = *number;
		bpf_loop(count_of(candidates), compare_node, &search, 0);
	}
	return search.position;
}

/* How many candidates there are for a client. */
static __always_inline __u32 begin_choice(struct choice *choice, const struct settings *settings, __u32 list,
					  const struct address *client)
{
	choice->candidates = candidates_of(settings, list);
	if (!choice->candidates)
		return 0;
	choice->without = position_of(choice->candidates, client);
	choice->count = count_of(choice->candidates);
	if (choice->without < choice->count)
		choice->count--;
	return choice->count;
}

/* Who gets what has no entry, by its hash and without regard to load: the same node for every packet of a flow. The number
 * of a node, or -1 when nobody may be chosen. */
__noinline int choose_by_hash(__u32 list, const struct address *client, __u32 hash)
{
	struct choice choice = { .policy = POLICY_STATELESS, .node = -1 };
	struct settings *settings = settings_of_this_node();

	if (!settings || !client || !begin_choice(&choice, settings, list, client))
		return -1;
	choose_by_lot(&choice, hash);
	return choice.node;
}

/* What the policy says: the number of a node, or -1 when nobody may be chosen. */
__noinline int choose(__u32 list, const struct address *client, __u32 client_port)
{
	struct settings *settings = settings_of_this_node();
	struct choice choice = { .node = -1 };
	struct node_counts *counts;

	if (!settings || !client || !begin_choice(&choice, settings, list, client))
		return -1;
	choice.policy = settings->policy;
	if (choice.policy == POLICY_STATELESS)
		/* By the client's port alone (Bestavros et al. 1998, section 3), with Fibonacci hashing (Knuth, TAOCP
		 * vol. 3, section 6.4). */
		choose_by_lot(&choice, (client_port * 0x9e3779b97f4a7c15ull) >> 32);
	else if (choice.policy == POLICY_INVERSE)
		choose_by_lot(&choice, (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32());
	else if (choice.policy == POLICY_LOCAL_ESTIMATES && choice.count > COMPARE_ALL_MAX)
		choose_better_of_two(&choice);
	else
		choose_lowest(&choice);
	counts = counts_of(choice.node);
	if (choice.policy == POLICY_ROUND_ROBIN && counts)
		__sync_fetch_and_add(&counts->turns, 1);
	return choice.node;
}

static __always_inline int has_lighter(struct candidates *candidates, const struct candidate *than)
{
	struct search search = { .candidates = candidates, .score = score(than) };

	bpf_loop(count_of(candidates), compare_score, &search, 0);
	return search.found_lighter;
}

enum inclination {
	/* There is nobody else, or nobody lighter. */
	NOBODY_LIGHTER,
	/* Below `Maxload` there is no need. */
	KEEPS_ITS_OWN,
	WOULD_FORWARD,
};

/* What a director thinks of its own connections before a policy is asked. */
__noinline int inclination(__u32 list)
{
	struct settings *settings = settings_of_this_node();
	struct candidates *candidates;
	struct candidate *own;
	__u64 load;

	if (!settings)
		return NOBODY_LIGHTER;
	candidates = candidates_of(settings, list);
	if (!candidates)
		return NOBODY_LIGHTER;
	if (candidates->own >= candidates->count)
		return candidates->count ? WOULD_FORWARD : NOBODY_LIGHTER;
	own = &candidates->list[candidates->own & (CANDIDATES_MAX - 1)];
	if (settings->maxload) {
		load = own->load;
		if (own->capacity)
			load += outstanding(own) * 1000 / own->capacity;
		if (load < settings->maxload)
			return KEEPS_ITS_OWN;
	}
	return has_lighter(candidates, own) ? WOULD_FORWARD : NOBODY_LIGHTER;
}

static __always_inline int lease_is_valid(const struct settings *settings)
{
	return bpf_ktime_get_boot_ns() <= settings->lease_until_ns;
}

/* Whether this node may act for addresses that others could own. */
static __always_inline int may_own(const struct settings *settings)
{
	return bpf_ktime_get_boot_ns() <= settings->owns_until_ns;
}

/* What peers said is too old to act on when the daemon is silent; a panic freeze says the same of the cluster. */
static __always_inline int may_move(const struct settings *settings)
{
	return !settings->frozen && lease_is_valid(settings);
}

/* The client of a flow, as a node's address would be in the maps. */
static __always_inline struct address client_of(const struct packet *packet)
{
	if (!packet->ip.is_ipv6)
		return mapped(packet->flow.client);
	/* What looks like an address of IPv4 is nobody's. */
	return is_mapped(&packet->flow_v6.client) ? (struct address){} : packet->flow_v6.client;
}

/* The number of the node that gets a connection of a flood. */
static __always_inline __u32 decide_without_entry(const struct packet *packet, const struct service *service,
						  const struct settings *settings)
{
	__u32 hash = flow_hash(packet, settings->flow_seed);
	struct address client = client_of(packet);
	int chosen = may_move(settings) ? choose_by_hash(service->candidates, &client, hash) : -1;

	return chosen < 0 ? SELF : chosen;
}

/* The number of the node that gets a new connection. */
static __always_inline __u32 decide(const struct packet *packet, const struct service *service,
				    const struct settings *settings)
{
	struct address client = client_of(packet);
	int chosen;

	if (!may_move(settings))
		return SELF;
	if (settings->maxload && inclination(service->candidates) != WOULD_FORWARD)
		return SELF;
	chosen = choose(service->candidates, &client, bpf_ntohs(packet->flow.client_port));
	return chosen < 0 ? SELF : chosen;
}

static __always_inline void count_sent(__u32 node)
{
	struct node_counts *counts = counts_of(node);

	if (counts)
		__sync_fetch_and_add(&counts->sent, 1);
}

static __always_inline void record_decision(const struct journey *journey, __u32 chosen)
{
	count_sent(chosen);
	if (chosen == SELF)
		journey->counters->connections_kept++;
	else
		journey->counters->connections_forwarded++;
}

/* Counts a new connection that a director has given to this node. */
static __always_inline void accept(const struct journey *journey, const struct service *service, __u32 director)
{
	struct node_counts *counts = counts_of(director);

	if (counts)
		__sync_fetch_and_add(&counts->received, 1);
	if (inclination(service->candidates) == WOULD_FORWARD)
		journey->counters->loops_stopped++;
	count_sent(SELF);
}
