/* Reads packets of Ethernet devices: of an sk_buff at tc, or of a frame in XDP, as CONTEXT and load() say.
 *
 * What has options, extension headers or another protocol than TCP and UDP is not read, and so is left to the kernel;
 * of ICMP, errors are read that tell of TCP or UDP. */
#ifndef PORTOLAN_READ_H
#define PORTOLAN_READ_H

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
	u16 length;	/* behind the header of IP, without options and extensions */
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

static inline int read_ipv4(CONTEXT *frame, u32 at, struct packet *packet)
{
	struct ipv4 ip;

	if (load(frame, at, &ip, sizeof ip) || ip.version_length != IPV4_PLAIN)
		return 0;
	u16 fragment = __builtin_bswap16(ip.fragment);

	packet->tuple.from = mapped(ip.from);
	packet->tuple.to = mapped(ip.to);
	packet->protocol = ip.protocol;
	packet->hops = ip.hops;
	packet->id = ip.id;
	packet->length = __builtin_bswap16(ip.length) - sizeof ip;
	packet->part = fragment & IPV4_OFFSET ? PART_LATER : fragment & IPV4_MORE ? PART_FIRST : PART_WHOLE;
	packet->l4 = at + sizeof ip;
	return 1;
}

static inline int read_ipv6(CONTEXT *frame, u32 at, struct packet *packet)
{
	struct ipv6 ip;

	if (load(frame, at, &ip, sizeof ip))
		return 0;
	for (int i = 0; i < 4; i++) {
		packet->tuple.from.words[i] = ip.from[i];
		packet->tuple.to.words[i] = ip.to[i];
	}
	packet->is_v6 = 1;
	packet->length = __builtin_bswap16(ip.length);
	packet->protocol = ip.next;
	packet->hops = ip.hops;
	packet->l4 = at + sizeof ip;
	if (ip.next == IPPROTO_FRAGMENT) {
		struct ipv6_fragment piece;

		if (load(frame, packet->l4, &piece, sizeof piece))
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
static inline int read_ports(CONTEXT *frame, struct packet *packet)
{
	packet->tuple.protocol = packet->protocol;
	return !load(frame, packet->l4, &packet->tuple.from_port, 4);
}

static inline int tells_of_a_packet(int is_v6, u8 type)
{
	/* Unreachable, too big, time exceeded, parameter problem. */
	return is_v6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;
}

static inline int read_error(CONTEXT *frame, struct packet *packet)
{
	u8 type, hops = packet->hops;
	u32 l4 = packet->l4;

	if (packet->part || load(frame, l4, &type, 1) || !tells_of_a_packet(packet->is_v6, type))
		return 0;
	packet->outer_from = packet->tuple.from;
	packet->outer_to = packet->tuple.to;
	packet->inner = l4 + ICMP_HEADER;
	packet->is_error = 1;
	int found = packet->is_v6 ? read_ipv6(frame, packet->inner, packet) : read_ipv4(frame, packet->inner, packet);

	/* Of a later piece nobody knows the ports, but the first one gets into the same trouble. */
	if (!found || packet->part == PART_LATER || !is_carried(packet->protocol) || !read_ports(frame, packet))
		return 0;
	packet->part = PART_WHOLE;
	packet->inner_l4 = packet->l4;
	packet->l4 = l4;
	packet->hops = hops;
	return 1;
}

/* Whether it is a packet that the programs know what to do with; `protocol` is what its Ethernet header says. Of a later
 * piece, ports are missing. */
static inline int read_packet(CONTEXT *frame, u16 protocol, struct packet *packet)
{
	int found = 0;

	__builtin_memset(packet, 0, sizeof *packet);
	if (protocol == __builtin_bswap16(ETH_P_IP))
		found = read_ipv4(frame, L3, packet);
	else if (protocol == __builtin_bswap16(ETH_P_IPV6))
		found = read_ipv6(frame, L3, packet);
	if (!found)
		return 0;
	if (packet->protocol == (packet->is_v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return read_error(frame, packet);
	if (!is_carried(packet->protocol))
		return 0;
	packet->tuple.protocol = packet->protocol;
	if (packet->part == PART_LATER)
		return 1;
	if (packet->protocol == IPPROTO_TCP && load(frame, packet->l4 + TCP_FLAGS_AT, &packet->tcp_flags, 1))
		return 0;
	return read_ports(frame, packet);
}

/* Whether this packet may begin a flow. */
static inline int begins(const struct packet *packet)
{
	if (packet->protocol == IPPROTO_UDP)
		return 1;
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

#endif
