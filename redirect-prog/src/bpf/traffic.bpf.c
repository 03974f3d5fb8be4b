/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A source and a sink of packets, for measurements on veth.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define LENGTH 60

struct packet {
	__u8 bytes[LENGTH];
	__u8 padding[4];
};

/* What the source sends. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct packet);
	__uint(max_entries, 1);
} template SEC(".maps");

/* Packets that came to the sink. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} arrived SEC(".maps");

/* Run by BPF_PROG_TEST_RUN with live frames, which come back as their receiver left them: written whole each time. */
SEC("xdp")
int source(struct xdp_md *context)
{
	void *data = (void *)(long)context->data;
	void *end = (void *)(long)context->data_end;
	__u32 first = 0;
	struct packet *packet = bpf_map_lookup_elem(&template, &first);

	if (!packet || data + LENGTH > end)
		return XDP_ABORTED;
	__builtin_memcpy(data, packet->bytes, LENGTH);
	return XDP_TX;
}

SEC("xdp")
int sink(struct xdp_md *context)
{
	__u32 first = 0;
	__u64 *count = bpf_map_lookup_elem(&arrived, &first);

	if (count)
		*count += 1;
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
