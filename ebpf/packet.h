/* Reads packets at tc, and writes other addresses and ports into them. */
#ifndef PORTOLAN_PACKET_H
#define PORTOLAN_PACKET_H

#ifndef CONTEXT
#define CONTEXT struct __sk_buff

static inline long load(struct __sk_buff *skb, unsigned int at, void *to, unsigned int length)
{
	return bpf_skb_load_bytes(skb, at, to, length);
}
#endif

#include "read.h"

/* What a checksum changes by, when the addresses of `from` become those of `to`. */
static inline u32 addresses_differ(const struct tuple *from, const struct tuple *to)
{
	return bpf_csum_diff((void *)&from->from, 32, (void *)&to->from, 32, 0);
}

static inline u32 ports_differ(const struct tuple *from, const struct tuple *to)
{
	return bpf_csum_diff((void *)&from->from_port, 4, (void *)&to->from_port, 4, 0);
}

/* Writes the addresses of `to` into the header at `at`. A device may have summed up the whole packet: an address of
 * IPv6 that is `summed` changes this sum, while one of IPv4 and the header's own checksum outweigh each other. */
static inline int write_addresses(struct __sk_buff *skb, u32 at, int is_v6, const struct tuple *to, u64 summed)
{
	if (is_v6)
		return !bpf_skb_store_bytes(skb, at + IPV6_FROM_AT, &to->from, 32, summed);
	u32 both[2] = { to->from.words[3], to->to.words[3] };

	return !bpf_skb_store_bytes(skb, at + IPV4_FROM_AT, both, sizeof both, 0);
}

/* Gives a packet the addresses and ports of `to`. Not all may have been done if it answers 0. */
static __attribute__((noinline)) int translate(struct __sk_buff *skb, const struct packet *packet, const struct tuple *to)
{
	const struct tuple *was = &packet->tuple;
	u32 addresses = addresses_differ(was, to), ports = ports_differ(was, to);

	if (packet->part != PART_LATER) {
		u64 udp = packet->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
		u32 at = packet->l4 + (udp ? UDP_CHECKSUM_AT : TCP_CHECKSUM_AT);

		if (bpf_l4_csum_replace(skb, at, 0, addresses, BPF_F_PSEUDO_HDR | udp)
		    || bpf_l4_csum_replace(skb, at, 0, ports, udp)
		    || bpf_skb_store_bytes(skb, packet->l4, &to->from_port, 4, 0))
			return 0;
	}
	if (!packet->is_v6 && bpf_l3_csum_replace(skb, L3 + IPV4_CHECKSUM_AT, 0, addresses, 0))
		return 0;
	return write_addresses(skb, L3, packet->is_v6, to, BPF_F_RECOMPUTE_CSUM);
}

/* Gives an ICMP error other addresses, and the packet that it tells of those and the ports of `inner`. */
static __attribute__((noinline)) int translate_error(struct __sk_buff *skb, const struct packet *packet,
						     const struct tuple *outer, const struct tuple *inner)
{
	struct tuple was = { .from = packet->outer_from, .to = packet->outer_to };
	u32 addresses = addresses_differ(&was, outer), ports = ports_differ(&packet->tuple, inner);
	u32 inside = addresses_differ(&packet->tuple, inner);
	u32 checksum = packet->l4 + ICMP_CHECKSUM_AT;

	if (packet->is_v6) {
		if (bpf_l4_csum_replace(skb, checksum, 0, addresses, BPF_F_PSEUDO_HDR)
		    || bpf_l4_csum_replace(skb, checksum, 0, inside, 0))
			return 0;
	} else if (bpf_l3_csum_replace(skb, L3 + IPV4_CHECKSUM_AT, 0, addresses, 0)
		   || bpf_l3_csum_replace(skb, packet->inner + IPV4_CHECKSUM_AT, 0, inside, 0)) {
		return 0;
	}
	return !bpf_l4_csum_replace(skb, checksum, 0, ports, 0)
	       && !bpf_skb_store_bytes(skb, packet->inner_l4, &inner->from_port, 4, 0)
	       && write_addresses(skb, packet->inner, packet->is_v6, inner, 0)
	       && write_addresses(skb, L3, packet->is_v6, outer, BPF_F_RECOMPUTE_CSUM);
}

/* One hop more. */
static inline int age(struct __sk_buff *skb, const struct packet *packet)
{
	u8 hops = packet->hops - 1;

	if (packet->is_v6)
		return !bpf_skb_store_bytes(skb, L3 + IPV6_HOPS_AT, &hops, 1, BPF_F_RECOMPUTE_CSUM);
	/* The checksum is of words of two bytes; this is the first of one. */
	return !bpf_l3_csum_replace(skb, L3 + IPV4_CHECKSUM_AT, packet->hops, hops, 2)
	       && !bpf_skb_store_bytes(skb, L3 + IPV4_HOPS_AT, &hops, 1, 0);
}

#endif
