/* What becomes of a socket that connects, or of a datagram: plain C, compiled into the BPF object and, for tests,
 * natively.
 *
 * It renders what model::decide has decided and crates/dataplane/src/ebpf has written into the maps; it knows nothing
 * of Services. Who includes it defines the functions that are declared here. */
#ifndef PORTOLAN_DECIDE_H
#define PORTOLAN_DECIDE_H

#include "layout.h"

/* A call costs more than most of what is called. */
#define INLINE static inline __attribute__((always_inline))

/* The host's sockets that are bound to an address are not for us. */
#define HOST_UNBOUND 1

/* As `list` of a pick without slots: nobody is there, in the whole cluster. */
#define PICK_REFUSE 1

struct service {
	struct frontend id;
	struct pick pod;
	struct pick host;
	u32 flags;
	/* A pod without a new flow is forgotten after so many seconds; 0: pods are not remembered. */
	u32 affinity_s;
};

/* An endpoint that is among the slots of a list. */
struct member {
	struct frontend id;
	u32 list;
	struct endpoint to;
};

/* A pod that is remembered is known by the cookie of its network namespace: it has no address yet. */
struct sticky {
	struct frontend id;
	u32 zero;
	u64 netns;
};

/* What is remembered of it. */
struct stuck {
	struct endpoint to;
	u32 seen_s;
};

_Static_assert(sizeof(struct service) == 44, "SERVICE_LEN");
_Static_assert(sizeof(struct member) == 44, "MEMBER_LEN");
_Static_assert(sizeof(struct sticky) == 32 && sizeof(struct stuck) == 24, "without gaps");

/* Who connects, and where to. */
struct client {
	union address address;
	u16 port;
	u8 protocol;
	u8 is_host;
	u8 is_bound;
	u64 netns;
};

/* Why a socket is left to the rules underneath, or that it is not. */
enum outcome {
	CONNECTED,	/* to an endpoint */
	NO_SERVICE,	/* nothing of ours is there */
	NOT_FOR_US,	/* the rules do it for this client */
	NO_SLOT,	/* the map is being changed this very moment */
	REFUSED,	/* nobody is there: ECONNREFUSED */
	OUTCOMES,
};

static const struct service *find_service(const struct frontend *key);
static const struct endpoint *find_endpoint(const struct slot *key);
static int answers_node_ports(const union address *address);
static int is_member(const struct member *key);
static struct stuck *find_stuck(const struct sticky *key);
static void stick(const struct sticky *key, const struct stuck *value);
static u32 random_number(void);
/* Seconds since any moment. */
static u32 now_s(void);

/* The very address and port, else a NodePort: model::Snapshot::frontend. */
INLINE const struct service *service_of(const struct client *client)
{
	struct frontend key = {
		.address = client->address,
		.port = client->port,
		.protocol = client->protocol,
		.place = PLACE_ADDRESS,
	};
	const struct service *found = find_service(&key);

	if (found || !answers_node_ports(&client->address))
		return found;
	key.place = is_v4(&key.address) ? PLACE_NODE_PORT_V4 : PLACE_NODE_PORT_V6;
	key.address = (union address){};
	return find_service(&key);
}

/* One of the slots, at random. */
INLINE enum outcome draw(const struct service *service, struct pick pick, struct endpoint *to)
{
	struct slot key = {
		.id = service->id,
		.list = pick.list,
		/* reciprocal_scale() of Linux: each slot is as likely as another. */
		.index = ((u64)random_number() * pick.slots) >> 32,
	};
	const struct endpoint *found = find_endpoint(&key);

	if (!found)
		return NO_SLOT;
	*to = *found;
	return CONNECTED;
}

/* The endpoint that this pod had last, if it is not too long ago and the endpoint still among the slots; else another
 * one, which is remembered. Each time the clock starts anew. */
INLINE enum outcome draw_again(const struct service *service, struct pick pick, u64 netns, struct endpoint *to)
{
	struct sticky key = { .id = service->id, .netns = netns };
	struct stuck *known = find_stuck(&key);
	u32 now = now_s();

	if (known && now - known->seen_s < service->affinity_s) {
		struct member member = { .id = service->id, .list = pick.list, .to = known->to };

		if (is_member(&member)) {
			known->seen_s = now;
			*to = member.to;
			return CONNECTED;
		}
	}
	enum outcome outcome = draw(service, pick, to);

	if (outcome == CONNECTED) {
		struct stuck value = { .to = *to, .seen_s = now };

		stick(&key, &value);
	}
	return outcome;
}

/* The endpoint that the flow is to go to, in `to`. */
INLINE enum outcome decide(const struct client *client, struct endpoint *to)
{
	const struct service *service = service_of(client);

	if (!service)
		return NO_SERVICE;
	struct pick pick = client->is_host ? service->host : service->pod;

	if (!pick.slots)
		return pick.list == PICK_REFUSE ? REFUSED : NOT_FOR_US;
	if (client->is_host) {
		if (client->is_bound && (service->flags & HOST_UNBOUND))
			return NOT_FOR_US;
		return draw(service, pick, to);
	}
	return service->affinity_s ? draw_again(service, pick, client->netns, to) : draw(service, pick, to);
}

#endif
