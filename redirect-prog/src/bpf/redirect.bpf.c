/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The redirect program: decides, for each packet that a port receives, whether it goes to the AF_XDP socket
 * of its queue, to the kernel's stack, or nowhere.
 *
 * What is settled when the program is loaded is read from constants below. The verifier knows their values
 * and removes the code that they rule out, so that a lookup nobody configured costs nothing.
 *
 * It is compiled twice. With RX_METADATA it is bound to a device and notes what the card knows of a packet; the kernel
 * lets no such program use a map of programs, even in code that is never run.
 */
#include "parse.h"
#ifdef RX_METADATA
#include "metadata.h"
#endif

/* Every packet is steered; no table is asked. */
const volatile __u32 steer_all = 0;
/* Bit set of CLASS_*: the lookups that can match something. */
const volatile __u32 classes = 0;
/* Look the source address up in blocked4, blocked6. */
const volatile __u32 block4 = 0;
const volatile __u32 block6 = 0;
/* Number of queues that there are map entries for. */
const volatile __u32 queues = 0;
/* Bytes of a packet that fit the sockets' frames. */
const volatile __u32 frame_limit = 0;
/* Packets may come in several buffers: the program was loaded with BPF_F_XDP_HAS_FRAGS. */
const volatile __u32 multi_buffer = 0;
/* How long, in jiffies, a beat may stand still; 0: no heartbeat. */
const volatile __u64 stall_jiffies = 0;
/* What a stalled or stopped worker's packets meet with: XDP_PASS or XDP_DROP. */
const volatile __u32 stall_verdict = XDP_PASS;
/* What is passed goes to the program in `next` first, which was on the interface before. */
const volatile __u32 chained = 0;

/* One for each combination of table and of what is left open. The loader numbers them in the same way. */
#define CLASS_PORT_PROTOCOL 0
#define CLASS_PROTOCOL 1
#define CLASS_PORT 2
#define CLASS_ADDRESS 3
#define CLASSES_HOST4 0
#define CLASSES_HOST6 4
#define CLASSES_NET4 8
#define CLASSES_NET6 12
/* Besides, for each table: packets of which no flow can be told. */
#define FLOWLESS_HOST4 16
#define FLOWLESS_HOST6 17
#define FLOWLESS_NET4 18
#define FLOWLESS_NET6 19

/*
 * What a table entry stands for: it matches packets; it matches fragments, since some rule has a port; it
 * matches all packets of which no flow can be told.
 */
#define ENTRY_MATCH 1
#define ENTRY_FRAGMENT 2
#define ENTRY_FLOWLESS 4

/* A table's key; 0 leaves port or protocol open. IPv4 uses a quarter of the address. */
struct key {
	__be16 port;
	__u8 protocol;
	__u8 zero;
	__be32 address[4];
};

/* The same behind a prefix length that counts port, protocol and zero as its first 32 bits. */
struct net_key {
	__u32 prefix_length;
	struct key key;
};

struct block_key {
	__u32 prefix_length;
	__be32 address[4];
};

/* What a worker writes, alone on its cache line. */
struct beat {
	__u64 beat;
	__u64 padding[7];
};

/* What the program remembers of it. */
struct watch {
	__u64 beat;
	__u64 since_jiffies;
	/* The queue's worker was stopped, and no other has taken the queue since. */
	__u64 stopped;
	__u64 padding[5];
};

/* In the order of `Counters` in counters.rs, where each has its sentence. */
struct counters {
	__u64 redirected;
	__u64 passed_unmatched;
	__u64 passed_no_socket;
	__u64 passed_stalled;
	__u64 dropped_stalled;
	__u64 blocked;
	__u64 oversize;
	__u64 malformed;
};

/* The loader sets max_entries where 1 stands. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct beat);
	__uint(max_entries, 1);
} beats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct watch);
	__uint(max_entries, 1);
} watches SEC(".maps");

/* One entry more than there are queues, for packets of queues beyond. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct counters);
	__uint(max_entries, 1);
} counters SEC(".maps");

#ifndef RX_METADATA
/* The program that comes after this one. The kernel empties it when the loader is gone. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} next SEC(".maps");
#endif

#define ADDRESS4_SIZE 4
#define ADDRESS6_SIZE 16

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, __builtin_offsetof(struct key, address) + ADDRESS4_SIZE);
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} hosts4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, __builtin_offsetof(struct key, address) + ADDRESS6_SIZE);
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} hosts6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, __builtin_offsetof(struct net_key, key.address) + ADDRESS4_SIZE);
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} nets4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, __builtin_offsetof(struct net_key, key.address) + ADDRESS6_SIZE);
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} nets6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, __builtin_offsetof(struct block_key, address) + ADDRESS4_SIZE);
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} blocked4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, __builtin_offsetof(struct block_key, address) + ADDRESS6_SIZE);
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} blocked6 SEC(".maps");

/* Rules with a port speak of these protocols. */
static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
	       protocol == IPPROTO_DCCP || protocol == IPPROTO_UDPLITE;
}

static __always_inline bool found(void *map, const void *key, __u32 wanted)
{
	__u32 *entry = bpf_map_lookup_elem(map, key);

	return entry && (*entry & wanted);
}

/* One end of a packet, as rules see it. */
enum precision {
	/* Address, protocol and port are known. */
	WITH_PORT,
	/* The protocol has no ports. */
	WITHOUT_PORT,
	/* A fragment, or the part of a packet that an ICMP error quotes: the port does not count. */
	FRAGMENT,
};

static __always_inline bool in_table(void *table, void *table_key, struct key *key, __u32 first_class,
				     __be16 port, __u8 protocol, enum precision precision)
{
	const __u32 open = classes >> first_class & 0xf;
	const bool fragment = precision == FRAGMENT && open;
	/* A rule with a port stands for fragments of the protocols that have ports. */
	const __u32 wanted = fragment && has_ports(protocol) ? ENTRY_MATCH | ENTRY_FRAGMENT : ENTRY_MATCH;

	if (open & 1 << CLASS_PORT_PROTOCOL && precision == WITH_PORT) {
		key->port = port;
		key->protocol = protocol;
		if (found(table, table_key, ENTRY_MATCH))
			return true;
	}
	if (open & 1 << CLASS_PORT && precision == WITH_PORT) {
		key->port = port;
		key->protocol = 0;
		if (found(table, table_key, ENTRY_MATCH))
			return true;
	}
	key->port = 0;
	if (open & 1 << CLASS_PROTOCOL || fragment) {
		key->protocol = protocol;
		if (found(table, table_key, wanted))
			return true;
	}
	if (open & 1 << CLASS_ADDRESS || fragment) {
		key->protocol = 0;
		if (found(table, table_key, wanted))
			return true;
	}
	return false;
}

static __always_inline bool match4(__be32 address, __be16 port, __u8 protocol, enum precision precision)
{
	struct net_key net = { .prefix_length = 32 + 8 * ADDRESS4_SIZE, .key.address = { address } };

	return in_table(&hosts4, &net.key, &net.key, CLASSES_HOST4, port, protocol, precision) ||
	       in_table(&nets4, &net, &net.key, CLASSES_NET4, port, protocol, precision);
}

static __always_inline bool match6(const struct in6_addr *address, __be16 port, __u8 protocol,
				   enum precision precision)
{
	struct net_key net = { .prefix_length = 32 + 8 * ADDRESS6_SIZE };

	__builtin_memcpy(net.key.address, address, sizeof(net.key.address));
	return in_table(&hosts6, &net.key, &net.key, CLASSES_HOST6, port, protocol, precision) ||
	       in_table(&nets6, &net, &net.key, CLASSES_NET6, port, protocol, precision);
}

/* Fragments and packets with options that are matched whatever they are. */
static __always_inline bool flowless4(__be32 address)
{
	struct net_key net = { .prefix_length = 32 + 8 * ADDRESS4_SIZE, .key.address = { address } };

	return (classes & 1 << FLOWLESS_HOST4 && found(&hosts4, &net.key, ENTRY_FLOWLESS)) ||
	       (classes & 1 << FLOWLESS_NET4 && found(&nets4, &net, ENTRY_FLOWLESS));
}

static __always_inline bool flowless6(const struct in6_addr *address)
{
	struct net_key net = { .prefix_length = 32 + 8 * ADDRESS6_SIZE };

	__builtin_memcpy(net.key.address, address, sizeof(net.key.address));
	return (classes & 1 << FLOWLESS_HOST6 && found(&hosts6, &net.key, ENTRY_FLOWLESS)) ||
	       (classes & 1 << FLOWLESS_NET6 && found(&nets6, &net, ENTRY_FLOWLESS));
}

struct ports {
	__be16 source;
	__be16 destination;
};

/* How the packet that an ICMP error quotes is matched: errors quote few bytes, at times none of the ports. */
static __always_inline enum precision quoted_precision(struct ip_packet *packet, void *end)
{
	if (packet->fragment)
		return FRAGMENT;
	if (!has_ports(packet->protocol))
		return WITHOUT_PORT;
	return packet->payload + sizeof(struct ports) > end ? FRAGMENT : WITH_PORT;
}

/* An ICMP error belongs to whoever sent the packet that it quotes. */
static __noinline bool quotes_steered4(struct iphdr *ip, void *end)
{
	struct ip_packet packet;
	enum precision precision;
	__be16 port = 0;

	if (!parse_ipv4(ip, end, &packet))
		return false;
	precision = quoted_precision(&packet, end);
	if (precision == WITH_PORT) {
		struct ports *ports = packet.payload;

		if ((void *)(ports + 1) > end)
			return false;
		port = ports->source;
	}
	return match4(ip->saddr, port, packet.protocol, precision);
}

static __noinline bool quotes_steered6(struct xdp_md *ctx, struct ipv6hdr *ip, void *end)
{
	struct ip_packet packet;
	enum precision precision;
	__be16 port = 0;

	if (!parse_ipv6(ctx, ip, end, &packet))
		return false;
	precision = quoted_precision(&packet, end);
	if (precision == WITH_PORT) {
		struct ports *ports = packet.payload;

		if ((void *)(ports + 1) > end)
			return false;
		port = ports->source;
	}
	return match6(&ip->saddr, port, packet.protocol, precision);
}

#define ICMP_HEADER_SIZE 8

static __always_inline bool is_icmp4_error(__u8 type)
{
	return type == 3 || type == 11 || type == 12;
}

static __always_inline bool is_icmp6_error(__u8 type)
{
	return type >= 1 && type <= 4;
}

enum finding {
	STEERED,
	UNMATCHED,
	BLOCKED,
	MALFORMED,
};

/* The blocklist comes first: a header that cannot be read must not be a way around it. */
static __always_inline enum finding classify4(struct iphdr *ip, void *end)
{
	struct ip_packet packet;
	enum precision precision = WITHOUT_PORT;
	__be16 port = 0;

	if (block4 && (void *)(ip + 1) <= end) {
		struct block_key source = { .prefix_length = 8 * ADDRESS4_SIZE, .address = { ip->saddr } };

		if (bpf_map_lookup_elem(&blocked4, &source))
			return BLOCKED;
	}
	if (steer_all)
		return STEERED;
	if (!parse_ipv4(ip, end, &packet))
		return MALFORMED;
	if (packet.fragment) {
		precision = FRAGMENT;
	} else if (has_ports(packet.protocol)) {
		struct ports *ports = packet.payload;

		if ((void *)(ports + 1) > end)
			return MALFORMED;
		port = ports->destination;
		precision = WITH_PORT;
	}
	if (match4(ip->daddr, port, packet.protocol, precision))
		return STEERED;
	if ((packet.fragment || ip->ihl > 5) && flowless4(ip->daddr))
		return STEERED;
	if (packet.protocol == IPPROTO_ICMP && !packet.fragment) {
		void *quoted = packet.payload + ICMP_HEADER_SIZE;

		if (quoted > end)
			return MALFORMED;
		if (is_icmp4_error(*(__u8 *)packet.payload) && quotes_steered4(quoted, end))
			return STEERED;
	}
	return UNMATCHED;
}

static __always_inline enum finding classify6(struct xdp_md *ctx, struct ipv6hdr *ip, void *end)
{
	struct ip_packet packet;
	enum precision precision = WITHOUT_PORT;
	__be16 port = 0;

	if (block6 && (void *)(ip + 1) <= end) {
		struct block_key source = { .prefix_length = 8 * ADDRESS6_SIZE };

		__builtin_memcpy(source.address, &ip->saddr, sizeof(source.address));
		if (bpf_map_lookup_elem(&blocked6, &source))
			return BLOCKED;
	}
	if (steer_all)
		return STEERED;
	if (!parse_ipv6(ctx, ip, end, &packet))
		return MALFORMED;
	if (packet.fragment) {
		precision = FRAGMENT;
	} else if (has_ports(packet.protocol)) {
		struct ports *ports = packet.payload;

		if ((void *)(ports + 1) > end)
			return MALFORMED;
		port = ports->destination;
		precision = WITH_PORT;
	}
	if (match6(&ip->daddr, port, packet.protocol, precision))
		return STEERED;
	if (packet.fragment && flowless6(&ip->daddr))
		return STEERED;
	if (packet.protocol == IPPROTO_ICMPV6 && !packet.fragment) {
		void *quoted = packet.payload + ICMP_HEADER_SIZE;

		if (quoted > end)
			return MALFORMED;
		if (is_icmp6_error(*(__u8 *)packet.payload) && quotes_steered6(ctx, quoted, end))
			return STEERED;
	}
	return UNMATCHED;
}

static __always_inline enum finding classify(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__be16 ethertype = 0;
	void *network;

	/* Nothing of the packet is read where all packets are steered. */
	if (steer_all && !block4 && !block6)
		return STEERED;
	network = network_header(data, end, &ethertype);
	if (!network)
		return steer_all ? STEERED : MALFORMED;
	if (ethertype == bpf_htons(ETH_P_IP))
		return classify4(network, end);
	if (ethertype == bpf_htons(ETH_P_IPV6))
		return classify6(ctx, network, end);
	return steer_all ? STEERED : UNMATCHED;
}

/*
 * True where the queue's worker has not written its beat for the limit, counted from the first packet
 * redirected after the beat: a sleeping worker need not wake to beat. Only a busy worker's turn takes packets
 * off the ring, and each turn ends with a beat, so a packet that was taken is always followed by a new one.
 *
 * Generic XDP may run this on two CPUs for one queue. Each field is a single word, and a mixed pair is
 * put right by the next packet: at worst a worker has one limit more.
 */
static __always_inline bool stalled(__u32 queue)
{
	struct beat *beat = bpf_map_lookup_elem(&beats, &queue);
	struct watch *watch = bpf_map_lookup_elem(&watches, &queue);
	__u64 now, seen;

	if (!beat || !watch)
		return false;
	now = bpf_jiffies64();
	seen = *(volatile __u64 *)&beat->beat;
	if (seen != watch->beat) {
		watch->beat = seen;
		watch->since_jiffies = now;
		return false;
	}
	return now - watch->since_jiffies > stall_jiffies;
}

/* Nobody works on the packet's queue just now. */
static __always_inline int unattended(struct counters *count)
{
	if (stall_verdict == XDP_DROP)
		count->dropped_stalled++;
	else
		count->passed_stalled++;
	return stall_verdict;
}

/* A queue that was taken and given up is not one that was never taken: the kernel knows nothing of its flows. */
static __always_inline int without_socket(__u32 queue, struct counters *count)
{
	struct watch *watch = bpf_map_lookup_elem(&watches, &queue);

	if (watch && watch->stopped)
		return unattended(count);
	count->passed_no_socket++;
	return XDP_PASS;
}

/* The packet is steered: to the socket, unless there is none, it could not take the packet, or would not. */
static __always_inline int redirect(struct xdp_md *ctx, struct counters *count)
{
	__u32 queue = ctx->rx_queue_index;
	__u64 size = multi_buffer ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data;

	/* A redirect only takes effect when its verdict is returned: the checks below may still say otherwise. */
	if (bpf_redirect_map(&sockets, queue, XDP_PASS) != XDP_REDIRECT)
		return without_socket(queue, count);
	/* The socket would drop it unseen, and the worker, asleep, would seem to be stalled. */
	if (size > frame_limit) {
		count->oversize++;
		return XDP_PASS;
	}
	if (stall_jiffies && stalled(queue))
		return unattended(count);
	count->redirected++;
#ifdef RX_METADATA
	take_note(ctx);
#endif
	return XDP_REDIRECT;
}

static __always_inline int decide(struct xdp_md *ctx)
{
	__u32 slot = ctx->rx_queue_index < queues ? ctx->rx_queue_index : queues;
	struct counters *count = bpf_map_lookup_elem(&counters, &slot);

	if (!count)
		return XDP_PASS;
	switch (classify(ctx)) {
	case STEERED:
		return redirect(ctx, count);
	case BLOCKED:
		count->blocked++;
		return XDP_DROP;
	case MALFORMED:
		count->malformed++;
		return XDP_PASS;
	default:
		count->passed_unmatched++;
		return XDP_PASS;
	}
}

SEC("xdp")
int afx_redirect(struct xdp_md *ctx)
{
	int verdict = decide(ctx);

#ifndef RX_METADATA
	/* Returns only where there is no such program. */
	if (chained && verdict == XDP_PASS)
		bpf_tail_call(ctx, &next, 0);
#endif
	return verdict;
}

char _license[] SEC("license") = "Dual BSD/GPL";
