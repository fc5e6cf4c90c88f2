/* What programs of XDP use of linux/bpf.h, beside skb.h, and how they read a frame. */
#ifndef PORTOLAN_XDP_H
#define PORTOLAN_XDP_H

#include "layout.h"
#include "skb.h"

enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };

struct xdp_md {
	unsigned int data;
	unsigned int data_end;
	unsigned int data_meta;
	unsigned int ingress_ifindex;
	unsigned int rx_queue_index;
	unsigned int egress_ifindex;
};

static long (*bpf_redirect)(unsigned int ifindex, unsigned long long flags) = (void *)23;
static long (*bpf_xdp_load_bytes)(struct xdp_md *frame, unsigned int offset, void *to, unsigned int length) = (void *)189;
static long (*bpf_xdp_store_bytes)(struct xdp_md *frame, unsigned int offset, const void *from,
				   unsigned int length) = (void *)190;

#define CONTEXT struct xdp_md

static inline long load(struct xdp_md *frame, u32 at, void *to, u32 length)
{
	return bpf_xdp_load_bytes(frame, at, to, length);
}

#endif
