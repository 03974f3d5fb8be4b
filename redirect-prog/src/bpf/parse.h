/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Ethernet, VLAN and IP headers, read within the bounds that the verifier asks for. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define VLAN_TAGS_MAX 2
/* A chain of more extension headers than this counts as malformed: no honest sender makes one. */
#define EXTENSION_HEADERS_MAX 8

#define IPV4_MORE_FRAGMENTS_OR_OFFSET 0x3fff
#define IPV6_MORE_FRAGMENTS_OR_OFFSET 0xfff9

struct vlan_tag {
	__be16 tci;
	__be16 ethertype;
};

struct extension_header {
	__u8 next;
	/* In units of eight bytes, the first eight not counted (RFC 8200, 4.2). */
	__u8 length;
};

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset_and_more;
	__be32 identification;
};

/* What the IP header says, whichever its version. */
struct ip_packet {
	void *payload;
	__u8 protocol;
	/* First fragments too. IPv6: a fragment header on a whole packet (RFC 6946) does not make a fragment. */
	bool fragment;
};

/* The network header, and its ethertype in `ethertype`; NULL where the frame ends before it. */
static __always_inline void *network_header(void *data, void *end, __be16 *ethertype)
{
	struct ethhdr *ethernet = data;
	struct vlan_tag *tag = (void *)(ethernet + 1);

	if ((void *)tag > end)
		return NULL;
	*ethertype = ethernet->h_proto;
#pragma unroll
	for (int i = 0; i < VLAN_TAGS_MAX; i++) {
		if (*ethertype != bpf_htons(ETH_P_8021Q) && *ethertype != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > end)
			return NULL;
		*ethertype = tag->ethertype;
		tag++;
	}
	return tag;
}

/* False where the header is cut short or says nonsense. */
static __always_inline bool parse_ipv4(struct iphdr *ip, void *end, struct ip_packet *packet)
{
	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return false;
	packet->payload = (void *)ip + ip->ihl * 4;
	packet->protocol = ip->protocol;
	packet->fragment = ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS_OR_OFFSET);
	return packet->payload <= end;
}

/*
 * False where the header or a header of its chain is cut short, says nonsense, or the chain is too long.
 * A fragment's protocol is the one that its fragment header names, so that all fragments of a packet agree.
 */
static __always_inline bool parse_ipv6(struct ipv6hdr *ip, void *end, struct ip_packet *packet)
{
	void *header = ip + 1;
	__u8 next;

	if (header > end || ip->version != 6)
		return false;
	next = ip->nexthdr;
	packet->fragment = false;
#pragma unroll
	for (int i = 0; i <= EXTENSION_HEADERS_MAX; i++) {
		if (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS) {
			struct extension_header *extension = header;

			if ((void *)(extension + 1) > end)
				return false;
			next = extension->next;
			header += (extension->length + 1) * 8;
		} else if (next == IPPROTO_FRAGMENT) {
			struct fragment_header *fragment = header;

			if ((void *)(fragment + 1) > end)
				return false;
			next = fragment->next;
			header = fragment + 1;
			if (fragment->offset_and_more & bpf_htons(IPV6_MORE_FRAGMENTS_OR_OFFSET)) {
				packet->fragment = true;
				break;
			}
		} else {
			break;
		}
		if (i == EXTENSION_HEADERS_MAX)
			return false;
	}
	packet->payload = header;
	packet->protocol = next;
	return header <= end;
}
