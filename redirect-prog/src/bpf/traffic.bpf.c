/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A source and a sink of packets in the kernel: for generators where there is no card, and for measurements.
 *
 * The source is run by BPF_PROG_TEST_RUN with live frames: it makes a packet of each frame that the kernel gives it, and
 * redirects it to the interface, until as many are sent as wanted. Frames come back as their receivers left them: every
 * packet is written whole.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define HEADERS 92
#define LENGTH_MAX 4096
#define SIGNATURE 18
#define SIGNATURE_MARK 0xaf58
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

/* A flow: the headers of its packets, and sums of what the checksums cover, less what differs from packet to packet. */
struct flow {
	__u8 headers[HEADERS];
	__u16 ip_sum;
	__u16 transport_sum;
	__u32 number;
	__u32 sequence;
};

/* One packet in the order: whose it is, and its length. */
struct packet {
	__u32 flow;
	__u16 length;
	__u16 padding;
};

/* Written by the program. */
struct progress {
	/* Packets given to the interface, and their bytes. */
	__u64 packets;
	__u64 bytes;
	/* Packets for which the interface could not be asked. */
	__u64 failed;
	/* The place in the order. */
	__u64 place;
	/* When the next burst is due, in 1/256 ns after the start, and what is left of the current one. */
	__u64 due;
	__u64 start;
	__u32 left;
	__u32 padding;
};

/* What all packets have in common. */
volatile const struct {
	__u32 interface;
	/* The number of packets in the order. */
	__u32 packets;
	/* 1/256 ns between two bursts; 0: as fast as it goes. Packets of a burst. */
	__u64 interval;
	__u32 burst;
	/* Where the headers lie; those of the transport protocol are followed by the payload. */
	__u16 l3;
	__u16 l4;
	__u16 headers;
	__u8 protocol;
	__u8 ipv4;
	/* Packets are as their flow's headers say, lengths and checksums too. */
	__u8 verbatim;
	__u8 signature;
} plan = {};

/* How far behind the source may be before it no longer makes up for it: 100 ms. */
#define LATE_MAX (100000000ULL << 8)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct flow);
	__uint(max_entries, 1);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct packet);
	__uint(max_entries, 1);
} order SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct progress);
	__uint(max_entries, 1);
} progress SEC(".maps");

/* Packets wanted: written from outside, lowered to end it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} wanted SEC(".maps");

/* What payloads are cleared with. */
struct zeros {
	__u8 bytes[LENGTH_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct zeros);
	__uint(max_entries, 1);
} zeros SEC(".maps");

/* Packets that came to the sink, and their bytes. */
struct arrivals {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct arrivals);
	__uint(max_entries, 1);
} arrived SEC(".maps");

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static __always_inline void put16(void *at, __u16 value)
{
	__u8 *bytes = at;

	bytes[0] = value >> 8;
	bytes[1] = value;
}

static __always_inline void put32(void *at, __u32 value)
{
	put16(at, value >> 16);
	put16(at + 2, value);
}

/* Whether a packet is due. */
static __always_inline int due(struct progress *progress)
{
	__u64 now, passed;

	if (!plan.interval) {
		if (!progress->start)
			progress->start = bpf_ktime_get_ns();
		return 1;
	}
	if (progress->left) {
		progress->left--;
		return 1;
	}
	now = bpf_ktime_get_ns();
	if (!progress->start)
		progress->start = now;
	passed = (now - progress->start) << 8;
	if (progress->due > passed)
		return 0;
	if (passed - progress->due > LATE_MAX)
		progress->due = passed - LATE_MAX;
	progress->due += plan.interval;
	progress->left = plan.burst - 1;
	return 1;
}

/* The sum of a signature, which is written at `at`. */
static __always_inline __u64 sign(void *at, __u32 flow, __u32 sequence)
{
	__u64 now = bpf_ktime_get_ns();

	put16(at, SIGNATURE_MARK);
	put32(at + 2, flow);
	put32(at + 6, sequence);
	put32(at + 10, now >> 32);
	put32(at + 14, now);
	return SIGNATURE_MARK + (flow >> 16) + (flow & 0xffff) + (sequence >> 16) + (sequence & 0xffff) +
	       (now >> 48) + (now >> 32 & 0xffff) + (now >> 16 & 0xffff) + (now & 0xffff);
}

SEC("xdp")
int afx_source(struct xdp_md *context)
{
	__u32 first = 0, place, length, payload;
	struct progress *progress_now = bpf_map_lookup_elem(&progress, &first);
	__u64 *limit = bpf_map_lookup_elem(&wanted, &first);
	struct zeros *nothing = bpf_map_lookup_elem(&zeros, &first);
	struct packet *packet;
	struct flow *flow;
	void *data, *end;
	__u64 sum;
	int i;

	if (!progress_now || !limit || !nothing)
		return XDP_ABORTED;
	if (progress_now->packets >= *limit || !due(progress_now))
		return XDP_DROP;

	place = progress_now->place;
	packet = bpf_map_lookup_elem(&order, &place);
	if (!packet)
		goto failed;
	progress_now->place = place + 1 < plan.packets ? place + 1 : 0;
	flow = bpf_map_lookup_elem(&flows, &packet->flow);
	if (!flow)
		goto failed;
	length = packet->length;
	data = (void *)(long)context->data;
	end = (void *)(long)context->data_end;
	if (length != end - data && bpf_xdp_adjust_tail(context, (int)length - (int)(end - data)))
		goto failed;

	payload = length - plan.headers;
	if (plan.signature)
		payload -= SIGNATURE;
	if (payload > 0 && payload < LENGTH_MAX)
		if (bpf_xdp_store_bytes(context, plan.headers, nothing->bytes, payload))
			goto failed;

	data = (void *)(long)context->data;
	end = (void *)(long)context->data_end;
	if (data + plan.headers > end || plan.headers > HEADERS)
		goto failed;
#pragma unroll
	for (i = 0; i < HEADERS / 4; i++)
		if (4 * i + 4 <= plan.headers)
			*(__u32 *)(data + 4 * i) = *(__u32 *)(flow->headers + 4 * i);
	if (plan.headers & 2) {
		__u32 rest = plan.headers & 0x7c;

		if (rest + 2 <= HEADERS)
			*(__u16 *)(data + rest) = *(__u16 *)(flow->headers + rest);
	}
	if (plan.verbatim)
		goto send;

	sum = flow->transport_sum;
	/* ICMP alone has no pseudo-header. */
	if (plan.protocol != PROTOCOL_ICMP)
		sum += length - plan.l4;
	if (plan.ipv4) {
		put16(data + plan.l3 + 2, length - plan.l3);
		put16(data + plan.l3 + 10, ~fold((__u64)flow->ip_sum + (length - plan.l3)));
	} else {
		put16(data + plan.l3 + 4, length - plan.l3 - 40);
	}
	if (plan.protocol == PROTOCOL_UDP) {
		put16(data + plan.l4 + 4, length - plan.l4);
		sum += length - plan.l4;
	}
	if (plan.signature) {
		__u32 at = length - SIGNATURE;
		__u64 signature;

		if (at > LENGTH_MAX || data + at + SIGNATURE > end)
			goto failed;
		signature = sign(data + at, flow->number, flow->sequence++);
		/* Behind an odd number of bytes all of them stand in the other half of their word. */
		if ((at - plan.l4) & 1)
			signature = __builtin_bswap16(fold(signature));
		sum += signature;
	}
	sum = (__u16)~fold(sum);
	switch (plan.protocol) {
	case PROTOCOL_UDP:
		put16(data + plan.l4 + 6, sum ? sum : 0xffff);
		break;
	case PROTOCOL_TCP:
		put16(data + plan.l4 + 16, sum);
		break;
	default:
		put16(data + plan.l4 + 2, sum);
	}
send:
	progress_now->packets++;
	progress_now->bytes += length;
	return bpf_redirect(plan.interface, 0);
failed:
	progress_now->failed++;
	return XDP_ABORTED;
}

SEC("xdp")
int afx_sink(struct xdp_md *context)
{
	__u32 first = 0;
	struct arrivals *count = bpf_map_lookup_elem(&arrived, &first);

	if (count) {
		count->packets++;
		count->bytes += context->data_end - context->data;
	}
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
