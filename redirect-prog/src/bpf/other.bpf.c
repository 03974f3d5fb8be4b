/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Somebody else's program, for tests: counts the packets that it sees, and passes them on.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} seen SEC(".maps");

SEC("xdp")
int others_count(struct xdp_md *ctx)
{
	__u32 first = 0;
	__u64 *count = bpf_map_lookup_elem(&seen, &first);

	if (count)
		*count += 1;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
