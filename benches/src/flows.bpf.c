/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A source of packets of many flows on veth, compiled when it is needed; flows.rs makes the same packets.
 */
#include <linux/bpf.h>

/* Of libbpf's headers, which are not where this is compiled, only what is needed. */
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u32 (*bpf_get_prandom_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define bpf_htons(value) __builtin_bswap16(value)
#define bpf_htonl(value) __builtin_bswap32(value)
#else
#define bpf_htons(value) (value)
#define bpf_htonl(value) (value)
#endif

#define LENGTH 60

struct packet {
	__u8 bytes[LENGTH];
	/* Sum of the IPv4 header's words, without the client's address. */
	__u32 sum;
	/* How many flows. */
	__u32 flows;
};

/* What the source sends. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct packet);
	__uint(max_entries, 1);
} template SEC(".maps");

/* Run by BPF_PROG_TEST_RUN with live frames, which come back as their receiver left them: written whole each time. */
SEC("xdp")
int source(struct xdp_md *context)
{
	__u8 *data = (void *)(long)context->data;
	void *end = (void *)(long)context->data_end;
	__u32 first = 0;
	struct packet *packet = bpf_map_lookup_elem(&template, &first);

	if (!packet || (void *)(data + LENGTH) > end)
		return XDP_ABORTED;

	__u32 flow = (__u64)bpf_get_prandom_u32() * packet->flows >> 32;
	__u32 client = 10 << 24 | (flow * 0x3779b1 & 0xffffff);
	__u16 port = 1024 + (flow * 0x85ebca6b >> 17);
	__u32 sum = packet->sum + (client >> 16) + (client & 0xffff);

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	__builtin_memcpy(data, packet->bytes, LENGTH);
	*(__be16 *)(data + 24) = bpf_htons((__u16)~sum);
	*(__be32 *)(data + 26) = bpf_htonl(client);
	*(__be16 *)(data + 34) = bpf_htons(port);
	return XDP_TX;
}

/* A veth takes what its peer sends by XDP_TX only where there is a program. */
SEC("xdp")
int pass(struct xdp_md *context)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
