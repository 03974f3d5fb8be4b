/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the card knows of a packet beside its bytes, noted right before the packet, where whoever takes it off its
 * socket finds it: a descriptor of AF_XDP does not say that there is something, or how long it is, so the note has
 * one size and a mark.
 */
#ifndef AFX_METADATA_H
#define AFX_METADATA_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Bits of what the driver can tell, numbered as NETDEV_XDP_RX_METADATA_*; in a note, of what it has told. */
#define METADATA_TIMESTAMP 1
#define METADATA_HASH 2
#define METADATA_VLAN_TAG 4

const volatile __u32 metadata_wanted = 0;
/* Ends each note: a number that nobody but the receiver knows, so that bytes left in a frame are not taken for one. */
const volatile __u32 metadata_mark = 0;

/* In the order of `Note::take` in metadata.rs. Of at most 32 bytes: older kernels take no more. */
struct note {
	__u64 timestamp_ns;
	__u32 hash;
	__u16 hash_type;
	__u16 vlan_tag;
	__be16 vlan_protocol;
	__u16 known;
	__u32 mark;
};

/* Of `net/xdp.h`; all that counts here is that it is an enum. */
enum xdp_rss_hash_type {
	XDP_RSS_TYPE_NONE = 0,
};

extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp) __ksym __weak;
extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash,
				    enum xdp_rss_hash_type *type) __ksym __weak;
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *protocol, __u16 *tag) __ksym __weak;

/*
 * The kernel has them from 6.3, 6.3 and 6.8 on. Drivers answer with an error where a packet has none. To be asked before
 * there is a note: some (virtio-net) have what they know in the bytes that it will overwrite.
 */
static __always_inline void ask_driver(struct xdp_md *ctx, struct note *note)
{
	enum xdp_rss_hash_type hash_type = XDP_RSS_TYPE_NONE;

	/* Some drivers answer with 0 for none. */
	if (metadata_wanted & METADATA_TIMESTAMP && bpf_ksym_exists(bpf_xdp_metadata_rx_timestamp) &&
	    !bpf_xdp_metadata_rx_timestamp(ctx, &note->timestamp_ns) && note->timestamp_ns)
		note->known |= METADATA_TIMESTAMP;
	if (metadata_wanted & METADATA_HASH && bpf_ksym_exists(bpf_xdp_metadata_rx_hash) &&
	    !bpf_xdp_metadata_rx_hash(ctx, &note->hash, &hash_type)) {
		note->hash_type = hash_type;
		note->known |= METADATA_HASH;
	}
	if (metadata_wanted & METADATA_VLAN_TAG && bpf_ksym_exists(bpf_xdp_metadata_rx_vlan_tag) &&
	    !bpf_xdp_metadata_rx_vlan_tag(ctx, &note->vlan_protocol, &note->vlan_tag))
		note->known |= METADATA_VLAN_TAG;
}

/*
 * Writes the note. A packet with no room for one goes without: it has come with other metadata that cannot be
 * shrunk, or its driver keeps no room.
 */
static __always_inline void take_note(struct xdp_md *ctx)
{
	struct note note = {};
	struct note *place;

	ask_driver(ctx, &note);
	note.mark = metadata_mark;
	/* What is there already, of a program that has sent the packet here, is overwritten. */
	if (bpf_xdp_adjust_meta(ctx, (int)(ctx->data - ctx->data_meta) - (int)sizeof(note)))
		return;
	place = (void *)(long)ctx->data_meta;
	if ((void *)(place + 1) > (void *)(long)ctx->data)
		return;
	*place = note;
}

#endif
