/* The flows that the programs translate, each known by its packets of both directions.
 *
 *   client → Service   becomes   us or client → endpoint       the way there
 *   endpoint → us or client   becomes   Service → client       the way back
 *
 * One entry's `becomes`, turned round, is the key of the other. A table forgets whom it has not heard of for longest. */
#ifndef PORTOLAN_FLOWS_H
#define PORTOLAN_FLOWS_H

#include "outside.h"

/* How the packets of a flow leave this node. */
enum way {
	WAY_NONE,
	WAY_STACK,	/* the kernel routes them; the way back is translated where they leave */
	WAY_MASQUERADE,	/* the same, and the rules give them an address of the node */
	WAY_SEND,	/* the program gives them an address of the node, and sends them on */
};

/* What a flow has seen; bits. */
enum {
	FLOW_ANSWERED = 1,
	FLOW_ENDED_THERE = 2,	/* the client has said FIN */
	FLOW_ENDED_BACK = 4,	/* the endpoint has */
	FLOW_RESET = 8,
};

struct flow {
	struct tuple becomes;
	u32 list;	/* from which its endpoint was chosen */
	u32 seen_s;
	u8 way;
	u8 state;
	u8 is_back;
	u8 zero;
};

_Static_assert(sizeof(struct flow) == 52, "FLOW_LEN");

/* As conntrack's nf_conntrack_udp_timeout and the one of streams. */
#define UDP_QUIET_S 30
#define UDP_ANSWERED_S 180
/* A client has given up its SYNs by then. */
#define SYN_S 130
/* After the end, packets may still be under way. */
#define ENDED_S 30
/* A second SYN of a flow that was answered is an old one, unless the client has been silent for so long. */
#define OLD_SYN_S 300

static inline struct tuple turned(const struct tuple *tuple)
{
	struct tuple out = {
		.from = tuple->to,
		.to = tuple->from,
		.from_port = tuple->to_port,
		.to_port = tuple->from_port,
		.protocol = tuple->protocol,
	};

	return out;
}

static inline int same_address(const union address *a, const union address *b)
{
	u32 differ = 0;

	for (int i = 0; i < 4; i++)
		differ |= a->words[i] ^ b->words[i];
	return !differ;
}

static inline int same(const struct tuple *a, const struct tuple *b)
{
	return same_address(&a->from, &b->from) && same_address(&a->to, &b->to) && a->from_port == b->from_port
	       && a->to_port == b->to_port && a->protocol == b->protocol;
}

static inline int has_ended(const struct flow *flow)
{
	u8 both = FLOW_ENDED_THERE | FLOW_ENDED_BACK;

	return flow->state & FLOW_RESET || (flow->state & both) == both;
}

/* Whether nobody will miss it. */
static inline int is_over(const struct flow *flow, u32 now_s)
{
	u32 quiet_s = now_s - flow->seen_s;

	if (flow->becomes.protocol == IPPROTO_UDP)
		return quiet_s > (flow->state & FLOW_ANSWERED ? UDP_ANSWERED_S : UDP_QUIET_S);
	if (has_ended(flow))
		return quiet_s > ENDED_S;
	return !(flow->state & FLOW_ANSWERED) && quiet_s > SYN_S;
}

/* Whether a packet that may begin a flow belongs to the one that is there. */
static inline int goes_on(const struct flow *flow, const struct served *served, u32 now_s)
{
	if (flow->becomes.protocol == IPPROTO_UDP)
		return !is_over(flow, now_s);
	if (has_ended(flow))
		return 0;
	if (served && flow->list == served->pick.list)
		return 1;
	return flow->state & FLOW_ANSWERED && now_s - flow->seen_s <= OLD_SYN_S;
}

#endif
