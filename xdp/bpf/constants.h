/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Numbers of protocols and of the tables' bounds. Bounds are part of the map layout: src/abi.rs has the same. */
#pragma once

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_IPV6 0x86dd
#define ETHERNET_LEN 14
#define MAC_LEN 6
/* In the first byte of a MAC address: a group's (IEEE 802, section 8.2). */
#define GROUP_MAC 1

#define PROTOCOL_HOP_BY_HOP 0
#define PROTOCOL_ICMP 1
#define PROTOCOL_IPV4 4
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_IPV6 41
#define PROTOCOL_ROUTING 43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_DESTINATION_OPTIONS 60

#define IPV4_LEN 20
#define IPV4_LEN_MAX 60
#define IPV4_TOS 1
#define IPV4_TOTAL_LENGTH 2
#define IPV4_ID 4
#define IPV4_FRAGMENT 6
#define IPV4_TTL 8
#define IPV4_PROTOCOL 9
#define IPV4_CHECKSUM 10
#define IPV4_SOURCE 12
#define IPV4_DESTINATION 16
#define DONT_FRAGMENT 0x4000
#define MORE_FRAGMENTS 0x2000
/* More-fragments flag and fragment offset. */
#define FRAGMENT_MASK 0x3fff
#define FRAGMENT_OFFSET_MASK 0x1fff
/* Of packets that a node makes itself (RFC 1700). */
#define HOP_LIMIT 64

#define IPV6_LEN 40
#define IPV6_PAYLOAD_LENGTH 4
#define IPV6_PROTOCOL 6
#define IPV6_HOP_LIMIT 7
#define IPV6_SOURCE 8
#define IPV6_DESTINATION 24
/* Every link carries packets of this length (RFC 8200, section 5). */
#define IPV6_MTU_MIN 1280
/* Extension headers that are stepped over: as many as a packet may have (RFC 8200, section 4.1), up to so many bytes. */
#define EXTENSIONS_MAX 5
#define EXTENSION_UNIT 8
#define EXTENSIONS_LEN_MAX (255 * EXTENSION_UNIT)
/* In the field of a fragment header that says where the fragment belongs, in units of eight bytes as in IPv4. */
#define IPV6_OFFSET_SHIFT 3
#define IPV6_MORE_FRAGMENTS 0x0001

/* Flow label of our tunnels: six bits of magic, two of hop budget, twelve by which flows spread (docs/decisions/0007). */
#define LABEL_MASK 0xfffff
#define LABEL_MAGIC 0xd8000
#define LABEL_MAGIC_MASK 0xfc000
#define LABEL_HOPS_SHIFT 12
#define LABEL_HOPS_MASK 0x3
#define LABEL_FLOW_MASK 0xfff

/* Outer headers of a tunnel are no longer than this. */
#define OUTER_LEN_MAX 255

/* Identification of our tunnels: twelve bits of magic, four of hop budget (docs/decisions/0007). */
#define HOPS_MAGIC 0xd940
#define HOPS_MAGIC_MASK 0xfff0
/* What a packet has that comes from outside of the cluster. */
#define HOPS_FRESH 2
/* What a packet leaves with that only changes its MAC addresses: nobody can send it on. */
#define LAST_TTL 1

#define TCP_LEN 20
#define TCP_CHECKSUM 16
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define TCP_OPTIONS_LEN_MAX 40
#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_MSS 2
#define TCP_OPTION_MSS_LEN 4

#define UDP_LEN 8
#define UDP_CHECKSUM 6

/* Generic UDP encapsulation, variant 0, with the hop budget as private data (draft-ietf-intarea-gue-09, rewrite/src/gue.rs):
 * no control message, one word behind the first. The private data begin with the same magic as the identification does. */
#define GUE_PORT 6080
#define GUE_LEN 8
#define GUE_FIRST_BYTE 1
#define GUE_OVERHEAD (UDP_LEN + GUE_LEN)
/* The dynamic range (RFC 6335, section 6). */
#define GUE_SOURCE_PORT_MIN 0xc000

#define ICMP_LEN 8
#define ICMP_CHECKSUM 2
#define ICMP_UNREACHABLE 3
#define ICMP_FRAGMENTATION_NEEDED 4
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMPV6_UNREACHABLE 1
#define ICMPV6_PACKET_TOO_BIG 2
#define ICMPV6_TIME_EXCEEDED 3
#define ICMPV6_PARAMETER_PROBLEM 4
#define ICMPV6_ECHO_REQUEST 128
/* An ICMP error is no longer than this (RFC 1812, section 4.3.2.3). */
#define ICMP_ERROR_LEN_MAX 576
/* Internetwork control (RFC 1812, section 4.3.2.5). */
#define ICMP_ERROR_TOS 0xc0
/* Errors per second, and at once after a quiet second (RFC 1812, section 4.3.2.8). */
#define ICMP_ERROR_RATE 100

#define ARP_LEN 28

/* Nodes that have a number; this one is number 0. */
#define NODES_MAX 4096
#define SELF 0
/* Lists of candidates, and candidates in each. */
#define LISTS_MAX 64
#define CANDIDATES_MAX 256
#define SERVICES_MAX 4096
/* Port ranges that the services of an address have beside their own ports: as many as a load report carries. */
#define FURTHER_MAX 16
/* Places for services whose packets may go straight: 2^14, four times as many as there are services at most. */
#define STRAIGHT_BITS 14
/* Slots of the addresses that no node holds (`SlotCount::MAX` in ownership/src/partition.rs). */
#define SLOTS_MAX 32768
/* Set in the terms of entries that were made as the owner of a slot, and in no others. */
#define TERM_BY_SLOT 0x80
/* Neighbours by which translated packets leave. */
#define HOPS_MAX 4096
#define DROP_REASONS 20
/* Bytes of changes that wait to be heard of: 16,384, as many as 800,000 connections a second make between two looks. */
#define CHANGES_LEN (1 << 20)
/* In place of the state of a connection: a server on this node has reset it. */
#define RESET_HERE 0xff
/* Words of 64 bits in a map with a bit for each number of 16 bits. */
#define BIT_WORDS 1024

/* Up to this many candidates all are compared, among more two random ones (director/src/policy/local_estimates.rs). */
#define COMPARE_ALL_MAX 4

#define NANOS_PER_SECOND 1000000000ull
/* Deadlines of entries count in units of 2^20 ns. */
#define TICK_SHIFT 20
/* Packets whose fragments are on their way, and for how long they are recognised (director/src/fragments.rs). */
#define FRAGMENTED_MAX 4096
#define FRAGMENTED_TICKS (30 * NANOS_PER_SECOND >> TICK_SHIFT)
/* Handshakes are counted for 2^10 ticks, about a second, at a time. */
#define FLOOD_WINDOW_SHIFT 10
/* A flood is over when it was quiet for so long. What it left without entries is looked for so much longer: a server sends
 * its SYN-ACK again after 1, 3 and 7 seconds (RFC 6298, section 2). */
#define FLOOD_TICKS (2 * NANOS_PER_SECOND >> TICK_SHIFT)
#define FLOOD_AFTERMATH_TICKS (8 * NANOS_PER_SECOND >> TICK_SHIFT)
