/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The decapsulation program: takes the outer headers off IP-in-IP packets, and off IP-in-UDP packets to one port,
 * that a load balancer sends to a server, and lets the server's own stack receive the packet within. Everything
 * else passes untouched, but for fragments, which may be dropped.
 */
#include "parse.h"

#include <linux/udp.h>

/* Look the outer destination up in tunnel_ends; otherwise any will do. */
const volatile __u32 only_tunnel_ends = 0;
/* The UDP port of Generic UDP Encapsulation; 0: none. */
const volatile __u32 gue_port = 0;
/* What becomes of fragments to a tunnel's end: dropped, or passed. */
const volatile __u32 drop_fragments = 0;

/* IPv4 addresses in their IPv4-mapped form. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(key_size, sizeof(struct in6_addr));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} tunnel_ends SEC(".maps");

/* In the order of `DecapCounters` in decap.rs, where each has its sentence. */
struct counters {
	__u64 decapsulated;
	__u64 passed_other;
	__u64 passed_fragment;
	__u64 dropped_fragment;
	__u64 malformed;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct counters);
	__uint(max_entries, 1);
} counters SEC(".maps");

static __always_inline bool is_tunnel_end4(__be32 address)
{
	struct in6_addr mapped = { .s6_addr32 = { 0, 0, bpf_htonl(0xffff), address } };

	return !only_tunnel_ends || bpf_map_lookup_elem(&tunnel_ends, &mapped);
}

static __always_inline bool is_tunnel_end6(const struct in6_addr *address)
{
	struct in6_addr copy = *address;

	return !only_tunnel_ends || bpf_map_lookup_elem(&tunnel_ends, &copy);
}

static __always_inline bool is_tunnel(__u8 protocol)
{
	return protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || (protocol == IPPROTO_UDP && gue_port);
}

/* Variant 1 of Generic UDP Encapsulation: these bits of the version of the IP header that follows UDP's. */
#define GUE_VARIANT(version) ((version) >> 2)
#define GUE_VARIANT_IP 1

enum contents {
	INNER,
	OTHER,
	MALFORMED,
};

/*
 * Finds the IP header within the packet, sets `payload` to it and `ethertype` to its kind. The checksum of UDP is
 * not verified: it may be zero, there are balancers that write a wrong one, and the packet within has its own.
 */
static __always_inline enum contents find_inner(struct ip_packet *packet, void *end, __be16 *ethertype)
{
	/* What UDP says that it carries. */
	__u32 room = 0xffff;
	__u8 version, *first;

	if (packet->protocol == IPPROTO_UDP) {
		struct udphdr *udp = packet->payload;

		if ((void *)(udp + 1) > end)
			return MALFORMED;
		if (udp->dest != bpf_htons(gue_port))
			return OTHER;
		room = bpf_ntohs(udp->len);
		if (room < sizeof(*udp))
			return MALFORMED;
		room -= sizeof(*udp);
		packet->payload = udp + 1;
	}
	first = packet->payload;
	if ((void *)(first + 1) > end || !room)
		return MALFORMED;
	version = *first >> 4;
	if (packet->protocol == IPPROTO_UDP && GUE_VARIANT(version) != GUE_VARIANT_IP)
		return OTHER;
	if (version == 4 && packet->protocol != IPPROTO_IPV6) {
		*ethertype = bpf_htons(ETH_P_IP);
		return room < sizeof(struct iphdr) || first + sizeof(struct iphdr) > (__u8 *)end ? MALFORMED : INNER;
	}
	if (version == 6 && packet->protocol != IPPROTO_IPIP) {
		*ethertype = bpf_htons(ETH_P_IPV6);
		return room < sizeof(struct ipv6hdr) || first + sizeof(struct ipv6hdr) > (__u8 *)end ? MALFORMED :
												       INNER;
	}
	return MALFORMED;
}

/* The link header is at most this long: Ethernet and its tags. */
#define LINK_HEADER_MAX (sizeof(struct ethhdr) + VLAN_TAGS_MAX * sizeof(struct vlan_tag))

/* Moves the link header of `size` bytes, a constant, over the outer header, and names the inner protocol. */
static __always_inline bool strip(struct xdp_md *ctx, __u32 size, __u32 outer_size, __be16 ethertype)
{
	__u8 link[LINK_HEADER_MAX];
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;

	if (data + size > end)
		return false;
	__builtin_memcpy(link, data, size);
	__builtin_memcpy(link + size - sizeof(ethertype), &ethertype, sizeof(ethertype));
	if (bpf_xdp_adjust_head(ctx, outer_size))
		return false;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + size > end)
		return false;
	__builtin_memcpy(data, link, size);
	return true;
}

/* Headers are read and moved in a packet's first buffer: it may have others. */
SEC("xdp.frags")
int afx_decap(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ip_packet packet;
	__be16 ethertype = 0;
	__u32 zero = 0, link_size, outer_size;
	bool stripped, ours;
	void *network;
	struct counters *count = bpf_map_lookup_elem(&counters, &zero);

	if (!count)
		return XDP_PASS;
	network = network_header(data, end, &ethertype);
	if (!network)
		goto malformed;
	if (ethertype == bpf_htons(ETH_P_IP)) {
		if (!parse_ipv4(network, end, &packet))
			goto malformed;
		ours = is_tunnel_end4(((struct iphdr *)network)->daddr);
	} else if (ethertype == bpf_htons(ETH_P_IPV6)) {
		if (!parse_ipv6(ctx, network, end, &packet))
			goto malformed;
		ours = is_tunnel_end6(&((struct ipv6hdr *)network)->daddr);
	} else {
		goto other;
	}
	if (!ours)
		goto other;
	if (packet.fragment && drop_fragments) {
		count->dropped_fragment++;
		return XDP_DROP;
	}
	if (!is_tunnel(packet.protocol))
		goto other;
	/* The stack puts fragments together, and its own tunnel device, if any, takes them from there. */
	if (packet.fragment) {
		count->passed_fragment++;
		return XDP_PASS;
	}
	switch (find_inner(&packet, end, &ethertype)) {
	case INNER:
		break;
	case OTHER:
		goto other;
	default:
		goto malformed;
	}
	link_size = network - data;
	outer_size = packet.payload - network;
	if (link_size == sizeof(struct ethhdr))
		stripped = strip(ctx, sizeof(struct ethhdr), outer_size, ethertype);
	else if (link_size == sizeof(struct ethhdr) + sizeof(struct vlan_tag))
		stripped = strip(ctx, sizeof(struct ethhdr) + sizeof(struct vlan_tag), outer_size, ethertype);
	else
		stripped = strip(ctx, LINK_HEADER_MAX, outer_size, ethertype);
	if (!stripped)
		goto malformed;
	count->decapsulated++;
	return XDP_PASS;

other:
	count->passed_other++;
	return XDP_PASS;
malformed:
	count->malformed++;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
