/* What becomes of a socket that connects: plain C, compiled into the BPF object and, for tests, natively.
 *
 * It renders what model::decide has decided and crates/dataplane/src/ebpf has written into the maps; it knows nothing
 * of Services. Who includes it defines find_service, find_endpoint, answers_node_ports and random_number. */
#ifndef PORTOLAN_DECIDE_H
#define PORTOLAN_DECIDE_H

#include "layout.h"

/* The host's sockets that are bound to an address are not for us. */
#define HOST_UNBOUND 1

struct service {
	struct frontend id;
	struct pick pod;
	struct pick host;
	u32 flags;
};

_Static_assert(sizeof(struct service) == 40, "SERVICE_LEN");

/* Who connects, and where to. */
struct client {
	union address address;
	u16 port;
	u8 protocol;
	u8 is_host;
	u8 is_bound;
};

/* Why a socket is left to the rules underneath, or that it is not. */
enum outcome {
	CONNECTED,	/* to an endpoint */
	NO_SERVICE,	/* nothing of ours is there */
	NOT_FOR_US,	/* the rules do it for this client */
	NO_SLOT,	/* the map is being changed this very moment */
	OUTCOMES,
};

static const struct service *find_service(const struct frontend *key);
static const struct endpoint *find_endpoint(const struct slot *key);
static int answers_node_ports(const union address *address);
static u32 random_number(void);

/* The very address and port, else a NodePort: model::Snapshot::frontend. */
static inline const struct service *service_of(const struct client *client)
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

/* The endpoint that the socket is to connect to, in `to`. */
static inline enum outcome decide(const struct client *client, struct endpoint *to)
{
	const struct service *service = service_of(client);

	if (!service)
		return NO_SERVICE;
	struct pick pick = client->is_host ? service->host : service->pod;

	if (!pick.slots)
		return NOT_FOR_US;
	if (client->is_host && client->is_bound && (service->flags & HOST_UNBOUND))
		return NOT_FOR_US;
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

#endif
