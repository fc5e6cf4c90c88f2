/* Carries packets of flows that outside_in (tc.c) has begun and sends on, where a driver hands them over and before the
 * kernel makes anything of them. Whatever is not plain goes on to the kernel, and so to outside_in, which decides all.
 *
 * This file and the headers that it includes may be used as tc.c may. */
#include "xdp.h"
#include "tc_maps.h"

struct ethernet {
	u8 to[6];
	u8 from[6];
	u16 protocol;
};

_Static_assert(sizeof(struct ethernet) == L3, "bytes of an Ethernet header");

/* To this host, and not to another one on the same wire. */
static inline int is_ours(const struct ethernet *ethernet, const struct device *device)
{
	u32 differ = 0;

	for (int i = 0; i < 6; i++)
		differ |= ethernet->to[i] ^ device->mac[i];
	return !differ;
}

static inline u32 folded(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* What a sender writes into the place of a checksum that its device is to complete: a virtual one never does, and tells
 * the kernel so beside the frame, which is lost here. */
static inline int is_unfinished(const struct packet *packet, u16 sum)
{
	u32 words[2] = { 0, 0 };
	u8 *tail = (u8 *)words;

	tail[3] = packet->protocol;
	tail[6] = packet->length >> 8;
	tail[7] = packet->length & 0xff;
	u32 begun = folded(bpf_csum_diff(0, 0, words, sizeof words, 0));
	u32 addresses;

	if (packet->is_v6) {
		addresses = folded(bpf_csum_diff(0, 0, (void *)&packet->tuple.from, 32, 0));
	} else {
		u32 both[2] = { packet->tuple.from.words[3], packet->tuple.to.words[3] };

		addresses = folded(bpf_csum_diff(0, 0, both, sizeof both, 0));
	}
	return sum == folded((u64)begun + addresses);
}

static inline u16 changed(u16 sum, u32 by)
{
	return ~folded((u64)(u16)~sum + by);
}

/* The header of IPv4 with the addresses of `to` and one hop less. */
static __attribute__((noinline)) int write_ipv4(struct xdp_md *frame, const struct tuple *to)
{
	struct ipv4 was, now;

	if (bpf_xdp_load_bytes(frame, L3, &was, sizeof was))
		return 0;
	u16 sum = was.checksum;

	was.checksum = 0;
	now = was;
	now.hops--;
	now.from = to->from.words[3];
	now.to = to->to.words[3];
	now.checksum = changed(sum, bpf_csum_diff((void *)&was, sizeof was, (void *)&now, sizeof now, 0));
	return !bpf_xdp_store_bytes(frame, L3, &now, sizeof now);
}

static __attribute__((noinline)) int write_ipv6(struct xdp_md *frame, const struct packet *packet, const struct tuple *to)
{
	u8 hops = packet->hops - 1;

	return !bpf_xdp_store_bytes(frame, L3 + IPV6_HOPS_AT, &hops, 1)
	       && !bpf_xdp_store_bytes(frame, L3 + IPV6_FROM_AT, &to->from, 32);
}

/* Gives the packet the addresses and ports of `to`; `sum` is its checksum. Not all may have been done if it answers 0. */
static inline int rewrite(struct xdp_md *frame, const struct packet *packet, const struct tuple *to, u16 sum)
{
	u32 is_udp = packet->protocol == IPPROTO_UDP;
	u32 at = packet->l4 + (is_udp ? UDP_CHECKSUM_AT : TCP_CHECKSUM_AT);

	/* A datagram of IPv4 need not have one. */
	if (!is_udp || sum) {
		u64 by = (u64)addresses_differ(&packet->tuple, to) + ports_differ(&packet->tuple, to);

		sum = changed(sum, folded(by));
		if (is_udp && !sum)
			sum = 0xffff;
		if (bpf_xdp_store_bytes(frame, at, &sum, sizeof sum))
			return 0;
	}
	if (bpf_xdp_store_bytes(frame, packet->l4, &to->from_port, 4))
		return 0;
	return packet->is_v6 ? write_ipv6(frame, packet, to) : write_ipv4(frame, to);
}

/* The flow of a packet that can be carried here; null if the kernel shall have it. */
static inline struct flow *flow_of(const struct packet *packet)
{
	if (packet->is_error || packet->part || packet->hops <= 1)
		return 0;
	if (packet->protocol == IPPROTO_TCP && begins(packet))
		return 0;
	struct flow *flow = find_flow(&packet->tuple);

	if (!flow || flow->way != WAY_SEND)
		return 0;
	/* What is over begins anew, perhaps with another endpoint. */
	if (packet->protocol == IPPROTO_UDP && !flow->is_back && !goes_on(flow, 0, now_s()))
		return 0;
	return flow;
}

SEC("xdp.frags")
int outside_fast(struct xdp_md *frame)
{
	u32 first = 0, in = frame->ingress_ifindex, out;
	struct work *w = bpf_map_lookup_elem(&work, &first);
	const struct device *arrives = bpf_map_lookup_elem(&devices, &in), *leaves;
	struct ethernet ethernet;
	u16 sum;

	if (!w || !arrives || load(frame, 0, &ethernet, sizeof ethernet) || !is_ours(&ethernet, arrives))
		return XDP_PASS;
	if (!read_packet(frame, ethernet.protocol, &w->packet))
		return XDP_PASS;
	struct flow *flow = flow_of(&w->packet);

	if (!flow)
		return XDP_PASS;
	if (load(frame, w->packet.l4 + (w->packet.protocol == IPPROTO_UDP ? UDP_CHECKSUM_AT : TCP_CHECKSUM_AT), &sum, 2)
	    || is_unfinished(&w->packet, sum))
		return XDP_PASS;
	/* Whoever is no neighbour yet is asked for by the kernel. */
	if (find_route(frame, in, w, &flow->becomes, 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_PASS;
	out = w->route.ifindex;
	leaves = bpf_map_lookup_elem(&devices, &out);
	if (!leaves || !leaves->takes_frames)
		return XDP_PASS;
	touch(w, flow);
	/* Another processor may forget it meanwhile. */
	w->there_flow = *flow;
	for (int i = 0; i < 6; i++) {
		ethernet.to[i] = w->route.dmac[i];
		ethernet.from[i] = w->route.smac[i];
	}
	if (!rewrite(frame, &w->packet, &w->there_flow.becomes, sum)
	    || bpf_xdp_store_bytes(frame, 0, &ethernet, sizeof ethernet))
		return XDP_DROP;
	count(CARRIED_FAST);
	return out == in ? XDP_TX : bpf_redirect(out, 0);
}

char licence[] SEC("license") = "Dual MIT/GPL";
