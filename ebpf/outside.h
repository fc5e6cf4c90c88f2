/* What becomes of a new flow from outside: plain C, compiled into the BPF object and, for tests, natively.
 *
 * As decide.h, it renders what model::decide has decided; crates/dataplane/src/ebpf/outside has written it into the
 * maps. Who includes it defines find_served, find_slot, is_node_port_ip, is_pod_ip and random_number. */
#ifndef PORTOLAN_OUTSIDE_H
#define PORTOLAN_OUTSIDE_H

#include "layout.h"

/* Who speaks with whom, as it stands in a packet. The addresses lie side by side, and so do the ports. */
struct tuple {
	union address from;
	union address to;
	u16 from_port;
	u16 to_port;
	u8 protocol;
	u8 zero[3];
};

enum {
	SERVED_MASQUERADES = 1,	/* the endpoint sees an address of the node */
	SERVED_TO_PODS = 2,	/* pods get the same */
	SERVED_BY_ADDRESS = 4,	/* the client's address chooses the slot */
	SERVED_BY_FLOW = 8,	/* the client's address and port choose the slot */
};

/* What is behind a frontend, for those outside. */
struct served {
	struct frontend id;
	struct pick pick;
	u32 flags;
};

_Static_assert(sizeof(struct tuple) == 40, "TUPLE_LEN");
_Static_assert(sizeof(struct served) == 32, "SERVED_LEN");

/* Why a flow is left to the rules underneath, or that it is not. */
enum chosen {
	CHOSEN,		/* an endpoint */
	OF_NOBODY,	/* nothing of ours is there, or only rules can do it */
	OF_A_POD,	/* pods are treated otherwise */
	WITHOUT_SLOT,	/* the map is being changed this very moment */
};

static const struct served *find_served(const struct frontend *key);
static const struct endpoint *find_slot(const struct slot *key);
static int is_node_port_ip(const union address *address);
static int is_pod_ip(const union address *address);
static u32 random_number(void);

/* model::balance::CLIENT_SEED. */
#define CLIENT_SEED 0x706f7274

static inline u32 rotated(u32 word, int bits)
{
	return word << bits | word >> (32 - bits);
}

/* jhash() of linux/jhash.h over the client as model::Balance::key lays it out: an address, and perhaps a port.
 * Words are in the machine's order; machines with the other one differ from model::hash in the last words. */
static inline u32 hash_of(const struct tuple *tuple, int with_port)
{
	int v4 = is_v4(&tuple->from);
	u32 length = (v4 ? 4 : 16) + (with_port ? 4 : 0);
	u32 port = with_port ? tuple->from_port : 0;
	u32 a = 0xdeadbeef + length + CLIENT_SEED, b = a, c = a;

	if (v4) {
		a += tuple->from.words[3];
		b += port;
	} else {
		a += tuple->from.words[0];
		b += tuple->from.words[1];
		c += tuple->from.words[2];
		a -= c; a ^= rotated(c, 4); c += b;
		b -= a; b ^= rotated(a, 6); a += c;
		c -= b; c ^= rotated(b, 8); b += a;
		a -= c; a ^= rotated(c, 16); c += b;
		b -= a; b ^= rotated(a, 19); a += c;
		c -= b; c ^= rotated(b, 4); b += a;
		a += tuple->from.words[3];
		b += port;
	}
	c ^= b; c -= rotated(b, 14);
	a ^= c; a -= rotated(c, 11);
	b ^= a; b -= rotated(a, 25);
	c ^= b; c -= rotated(b, 16);
	a ^= c; a -= rotated(c, 4);
	b ^= a; b -= rotated(a, 14);
	c ^= b; c -= rotated(b, 24);
	return c;
}

/* The very address and port, else a NodePort: model::Snapshot::frontend. */
static inline const struct served *served_at(const struct tuple *tuple)
{
	struct frontend key = {
		.address = tuple->to,
		.port = tuple->to_port,
		.protocol = tuple->protocol,
		.place = PLACE_ADDRESS,
	};
	const struct served *found = find_served(&key);

	if (found || !is_node_port_ip(&tuple->to))
		return found;
	key.place = is_v4(&key.address) ? PLACE_NODE_PORT_V4 : PLACE_NODE_PORT_V6;
	key.address = (union address){};
	return find_served(&key);
}

/* The endpoint of a new flow, in `to`. */
static inline enum chosen choose(const struct tuple *tuple, const struct served *served, struct endpoint *to)
{
	if (!served || !served->pick.slots)
		return OF_NOBODY;
	if (!(served->flags & SERVED_TO_PODS) && is_pod_ip(&tuple->from))
		return OF_A_POD;
	u32 number;

	if (served->flags & (SERVED_BY_ADDRESS | SERVED_BY_FLOW))
		number = hash_of(tuple, served->flags & SERVED_BY_FLOW);
	else
		number = random_number();
	struct slot key = {
		.id = served->id,
		.list = served->pick.list,
		.index = ((u64)number * served->pick.slots) >> 32,
	};
	const struct endpoint *found = find_slot(&key);

	if (!found)
		return WITHOUT_SLOT;
	*to = *found;
	return CHOSEN;
}

/* A client that is its own endpoint would answer itself: R-HAIRPIN-1. */
static inline int masquerades(const struct tuple *tuple, const struct served *served, const struct endpoint *to)
{
	if (served->flags & SERVED_MASQUERADES)
		return 1;
	for (int i = 0; i < 4; i++)
		if (tuple->from.words[i] != to->address.words[i])
			return 0;
	return 1;
}

#endif
