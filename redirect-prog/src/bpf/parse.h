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

/* Where the walk along a chain of extension headers is, as an offset from the packet's beginning. */
struct walk {
	struct xdp_md *ctx;
	__u32 offset;
	__u8 next;
	bool fragment;
	bool arrived;
};

/* The largest offset that the verifier need reckon with. */
#define WALK_MAX 0x7fff

static __always_inline bool is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_DSTOPTS ||
	       protocol == IPPROTO_FRAGMENT;
}

/* Steps over one extension header. Returns 1 to end the walk. */
static long step(__u32 index, struct walk *walk)
{
	void *data = (void *)(long)walk->ctx->data;
	void *end = (void *)(long)walk->ctx->data_end;
	struct extension_header *extension;
	struct fragment_header *fragment;

	if (!is_extension(walk->next)) {
		walk->arrived = true;
		return 1;
	}
	if (walk->offset > WALK_MAX)
		return 1;
	extension = data + walk->offset;
	/* No extension header is shorter than eight bytes. */
	fragment = (void *)extension;
	if ((void *)(fragment + 1) > end)
		return 1;
	if (walk->next == IPPROTO_FRAGMENT) {
		walk->offset += sizeof(*fragment);
		walk->next = fragment->next;
		if (fragment->offset_and_more & bpf_htons(IPV6_MORE_FRAGMENTS_OR_OFFSET)) {
			walk->fragment = true;
			walk->arrived = true;
			return 1;
		}
	} else {
		walk->offset += (extension->length + 1) * 8;
		walk->next = extension->next;
	}
	return 0;
}

/*
 * False where the header or a header of its chain is cut short, says nonsense, or the chain is too long.
 * A fragment's protocol is the one that its fragment header names, so that all fragments of a packet agree.
 */
static __always_inline bool parse_ipv6(struct xdp_md *ctx, struct ipv6hdr *ip, void *end,
				       struct ip_packet *packet)
{
	void *data = (void *)(long)ctx->data;
	struct walk walk = { .ctx = ctx };

	packet->payload = ip + 1;
	packet->fragment = false;
	if (packet->payload > end || ip->version != 6)
		return false;
	packet->protocol = ip->nexthdr;
	if (!is_extension(ip->nexthdr))
		return true;

	/* A loop of its own, since the verifier would follow each path through an unrolled one: seconds. */
	walk.next = ip->nexthdr;
	walk.offset = packet->payload - data;
	bpf_loop(EXTENSION_HEADERS_MAX + 1, step, &walk, 0);
	if (!walk.arrived || walk.offset > WALK_MAX)
		return false;
	packet->payload = data + walk.offset;
	packet->protocol = walk.next;
	packet->fragment = walk.fragment;
	return packet->payload <= end;
}
