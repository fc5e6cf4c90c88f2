/* Reads packets of Ethernet devices, and writes other addresses and ports into them.
 *
 * What has options, extension headers or another protocol than TCP and UDP is not read, and so is left to the kernel;
 * of ICMP, errors are read that tell of TCP or UDP. */
#ifndef PORTOLAN_PACKET_H
#define PORTOLAN_PACKET_H

#include "flows.h"

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };

/* Of a packet that comes in pieces. */
enum part { PART_WHOLE, PART_FIRST, PART_LATER };

struct packet {
	struct tuple tuple;	/* of an ICMP error: that of the packet which it tells of */
	union address outer_from;	/* of an ICMP error */
	union address outer_to;
	u32 id;		/* of all pieces of one packet */
	u32 l4;		/* where ports begin, or ICMP */
	u32 inner;	/* where the packet begins that an ICMP error tells of */
	u32 inner_l4;	/* where its ports begin */
	u8 protocol;
	u8 tcp_flags;
	u8 part;
	u8 hops;
	u8 is_v6;
	u8 is_error;
};

/* Names all pieces of one packet. */
struct piece {
	union address from;
	union address to;
	u32 id;
	u32 protocol;
};

#define L3 14	/* bytes of an Ethernet header */

struct ipv4 {
	u8 version_length, tos;
	u16 length, id, fragment;
	u8 hops, protocol;
	u16 checksum;
	u32 from, to;
};

struct ipv6 {
	u32 version_class;
	u16 length;
	u8 next, hops;
	u32 from[4], to[4];
};

struct ipv6_fragment {
	u8 next, zero;
	u16 fragment;
	u32 id;
};

#define IPV4_PLAIN 0x45	/* no options */
#define IPV4_ID_AT 4
#define IPV4_HOPS_AT 8
#define IPV4_CHECKSUM_AT 10
#define IPV4_FROM_AT 12
#define IPV6_HOPS_AT 7
#define IPV6_FROM_AT 8
#define IPV4_MORE 0x2000
#define IPV4_OFFSET 0x1fff
#define IPV6_MORE 1
#define IPV6_OFFSET 0xfff8
#define IPPROTO_FRAGMENT 44

#define ICMP_HEADER 8
#define ICMP_CHECKSUM_AT 2
#define TCP_FLAGS_AT 13
#define TCP_CHECKSUM_AT 16
#define UDP_CHECKSUM_AT 6

static inline union address mapped(u32 ip)
{
	union address address = {};

	address.bytes[10] = 0xff;
	address.bytes[11] = 0xff;
	address.words[3] = ip;
	return address;
}

static inline int is_carried(u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

static inline int read_ipv4(struct __sk_buff *skb, u32 at, struct packet *packet)
{
	struct ipv4 ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof ip) || ip.version_length != IPV4_PLAIN)
		return 0;
	u16 fragment = __builtin_bswap16(ip.fragment);

	packet->tuple.from = mapped(ip.from);
	packet->tuple.to = mapped(ip.to);
	packet->protocol = ip.protocol;
	packet->hops = ip.hops;
	packet->id = ip.id;
	packet->part = fragment & IPV4_OFFSET ? PART_LATER : fragment & IPV4_MORE ? PART_FIRST : PART_WHOLE;
	packet->l4 = at + sizeof ip;
	return 1;
}

static inline int read_ipv6(struct __sk_buff *skb, u32 at, struct packet *packet)
{
	struct ipv6 ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof ip))
		return 0;
	for (int i = 0; i < 4; i++) {
		packet->tuple.from.words[i] = ip.from[i];
		packet->tuple.to.words[i] = ip.to[i];
	}
	packet->is_v6 = 1;
	packet->protocol = ip.next;
	packet->hops = ip.hops;
	packet->l4 = at + sizeof ip;
	if (ip.next == IPPROTO_FRAGMENT) {
		struct ipv6_fragment piece;

		if (bpf_skb_load_bytes(skb, packet->l4, &piece, sizeof piece))
			return 0;
		u16 fragment = __builtin_bswap16(piece.fragment);

		packet->protocol = piece.next;
		packet->id = piece.id;
		packet->part = fragment & IPV6_OFFSET ? PART_LATER : fragment & IPV6_MORE ? PART_FIRST : PART_WHOLE;
		packet->l4 += sizeof piece;
	}
	/* An address of IPv4 in here would be taken for one. */
	return !is_v4(&packet->tuple.from) && !is_v4(&packet->tuple.to);
}

/* Both ports, which lie side by side. */
static inline int read_ports(struct __sk_buff *skb, struct packet *packet)
{
	packet->tuple.protocol = packet->protocol;
	return !bpf_skb_load_bytes(skb, packet->l4, &packet->tuple.from_port, 4);
}

static inline int tells_of_a_packet(int is_v6, u8 type)
{
	/* Unreachable, too big, time exceeded, parameter problem. */
	return is_v6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;
}

static inline int read_error(struct __sk_buff *skb, struct packet *packet)
{
	u8 type, hops = packet->hops;
	u32 l4 = packet->l4;

	if (packet->part || bpf_skb_load_bytes(skb, l4, &type, 1) || !tells_of_a_packet(packet->is_v6, type))
		return 0;
	packet->outer_from = packet->tuple.from;
	packet->outer_to = packet->tuple.to;
	packet->inner = l4 + ICMP_HEADER;
	packet->is_error = 1;
	int found = packet->is_v6 ? read_ipv6(skb, packet->inner, packet) : read_ipv4(skb, packet->inner, packet);

	/* Of a later piece nobody knows the ports, but the first one gets into the same trouble. */
	if (!found || packet->part == PART_LATER || !is_carried(packet->protocol) || !read_ports(skb, packet))
		return 0;
	packet->part = PART_WHOLE;
	packet->inner_l4 = packet->l4;
	packet->l4 = l4;
	packet->hops = hops;
	return 1;
}

/* Whether it is a packet that the programs know what to do with. Of a later piece, ports are missing. */
static __attribute__((noinline)) int parse(struct __sk_buff *skb, struct packet *packet)
{
	int found = 0;

	__builtin_memset(packet, 0, sizeof *packet);
	/* Of another network, which has a device of its own. */
	if (skb->vlan_present)
		return 0;
	if (skb->protocol == __builtin_bswap16(ETH_P_IP))
		found = read_ipv4(skb, L3, packet);
	else if (skb->protocol == __builtin_bswap16(ETH_P_IPV6))
		found = read_ipv6(skb, L3, packet);
	if (!found)
		return 0;
	if (packet->protocol == (packet->is_v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return read_error(skb, packet);
	if (!is_carried(packet->protocol))
		return 0;
	packet->tuple.protocol = packet->protocol;
	if (packet->part == PART_LATER)
		return 1;
	if (packet->protocol == IPPROTO_TCP
	    && bpf_skb_load_bytes(skb, packet->l4 + TCP_FLAGS_AT, &packet->tcp_flags, 1))
		return 0;
	return read_ports(skb, packet);
}

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
