/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The decapsulation program: takes the outer header off IP-in-IP packets that a load balancer sends to a
 * server, and lets the server's own stack receive the packet within. Everything else passes untouched.
 */
#include "parse.h"

/* Look the outer destination up in tunnel_ends; otherwise any will do. */
const volatile __u32 only_tunnel_ends = 0;

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

SEC("xdp")
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
	if (!ours || (packet.protocol != IPPROTO_IPIP && packet.protocol != IPPROTO_IPV6))
		goto other;
	/* The stack puts fragments together, and its own tunnel device, if any, takes them from there. */
	if (packet.fragment) {
		count->passed_fragment++;
		return XDP_PASS;
	}
	if (packet.protocol == IPPROTO_IPIP) {
		struct iphdr *inner = packet.payload;

		if ((void *)(inner + 1) > end || inner->version != 4)
			goto malformed;
		ethertype = bpf_htons(ETH_P_IP);
	} else {
		struct ipv6hdr *inner = packet.payload;

		if ((void *)(inner + 1) > end || inner->version != 6)
			goto malformed;
		ethertype = bpf_htons(ETH_P_IPV6);
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
