/* The programs at the devices through which traffic from outside comes and goes.
 *
 * outside_in stands where packets arrive, outside_out where they leave. A flow that begins at a frontend gets an
 * endpoint (outside.h) and an entry in a table (flows.h); its packets are translated in both directions. What the
 * programs leave alone meets the rules of nftables mode.
 *
 * This file and the headers that it includes may be used under the project's licence, the MIT licence or version 2 of
 * the GNU GPL, as you like: the kernel lends bpf_fib_lookup only to programs that say so. */
#include "tc_maps.h"

/* The next program's turn, and then the kernel's. */
#define NEXT -1
#define DROP 2

/* portolan_dataplane::nftables::MASQUERADE_MARK. */
#define MASQUERADE_MARK 0x4000

/* Ports that are tried for a flow before it is left to the rules to give it one. */
#define PORTS_TRIED 16

/* As read_packet. */
static __attribute__((noinline)) int parse(struct __sk_buff *skb, struct packet *packet)
{
	/* Of another network, which has a device of its own. */
	return !skb->vlan_present && read_packet(skb, skb->protocol, packet);
}

/* Whoever is no neighbour yet can be reached, too. */
static inline int has_route(struct __sk_buff *skb, struct work *w, const struct tuple *tuple, u32 mtu)
{
	long found = find_route(skb, skb->ifindex, w, tuple, mtu);

	return found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH;
}

static inline int is_null(const union address *address)
{
	return !(address->words[0] | address->words[1] | address->words[2] | address->words[3]);
}

/* How a flow that the client has begun shall go to its endpoint, `there_flow.becomes`; if it is sent, `becomes` has the
 * address of the device that it leaves by. */
static __attribute__((noinline)) enum way way_of(struct __sk_buff *skb, struct work *w, int masquerade)
{
	u32 in = skb->ifindex, out;
	const struct device *arrives = bpf_map_lookup_elem(&devices, &in), *leaves;
	enum way otherwise = masquerade ? WAY_MASQUERADE : WAY_STACK;

	if (!arrives)
		return WAY_NONE;
	w->back = turned(&w->packet.tuple);
	if (!has_route(skb, w, &w->back, 0))
		return WAY_NONE;
	out = w->route.ifindex;
	if (!bpf_map_lookup_elem(&devices, &out))
		return WAY_NONE;
	/* What is sent on has passed no filter of the kernel's for where clients may be. */
	if (!masquerade || out != in)
		return otherwise;
	/* Whoever is larger than the way is told so by the kernel. */
	if (!has_route(skb, w, &w->there_flow.becomes, arrives->mtu))
		return otherwise;
	out = w->route.ifindex;
	leaves = bpf_map_lookup_elem(&devices, &out);
	if (!leaves || leaves->mtu > arrives->mtu)
		return otherwise;
	const union address *own = is_v4(&w->packet.tuple.to) ? &leaves->v4 : &leaves->v6;

	if (is_null(own))
		return otherwise;
	w->there_flow.becomes.from = *own;
	return WAY_SEND;
}

/* Makes `back` lead to `back_flow`, unless another flow that is not over has it. */
static __attribute__((noinline)) int claim(struct work *w)
{
	if (!put_flow(&w->back, &w->back_flow, BPF_NOEXIST))
		return 1;
	struct flow *other = find_flow(&w->back);

	if (!other)
		return 0;
	struct tuple there = turned(&other->becomes);

	if (!same(&there, &w->packet.tuple)) {
		if (!is_over(other, w->back_flow.seen_s))
			return 0;
		forget_flow(&there);
	}
	return !put_flow(&w->back, &w->back_flow, BPF_ANY);
}

/* A source port of ours. */
static inline int claim_port(struct work *w)
{
	u32 first = 0;
	const struct ports *ports = bpf_map_lookup_elem(&source_ports, &first);

	if (!ports || !ports->count)
		return 0;
	u32 offset = ((u64)random_number() * ports->count) >> 32;

	for (int i = 0; i < PORTS_TRIED; i++) {
		u16 port = ports->first + (offset + i) % ports->count;

		w->there_flow.becomes.from_port = __builtin_bswap16(port);
		w->back = turned(&w->there_flow.becomes);
		if (claim(w))
			return 1;
	}
	return 0;
}

static inline void tally(struct work *w)
{
	w->pair.at = (struct frontend){
		.address = w->packet.tuple.to,
		.port = w->packet.tuple.to_port,
		.protocol = w->packet.tuple.protocol,
	};
	w->pair.to = w->to;
	u64 *flows = bpf_map_lookup_elem(&pairs, &w->pair), one = 1;

	if (flows)
		__sync_fetch_and_add(flows, 1);
	else
		bpf_map_update_elem(&pairs, &w->pair, &one, BPF_NOEXIST);
}

/* The entry of a new flow, or null. */
static __attribute__((noinline)) struct flow *begin(struct __sk_buff *skb, struct work *w, const struct served *served)
{
	const struct tuple *tuple = &w->packet.tuple;
	enum chosen chosen = choose(tuple, served, &w->to);

	if (chosen != CHOSEN) {
		count(chosen == OF_A_POD ? LEFT_OF_A_POD : chosen == OF_NOBODY ? LEFT_OF_NOBODY : LEFT_WITHOUT_SLOT);
		return 0;
	}
	__builtin_memset(&w->there_flow, 0, sizeof w->there_flow);
	w->there_flow.becomes = *tuple;
	w->there_flow.becomes.to = w->to.address;
	w->there_flow.becomes.to_port = w->to.port;
	w->there_flow.list = served->pick.list;
	w->there_flow.seen_s = now_s();
	int masquerade = masquerades(tuple, served, &w->to);
	enum way way = way_of(skb, w, masquerade);

	if (way == WAY_NONE) {
		count(LEFT_WITHOUT_WAY);
		return 0;
	}
	w->there_flow.way = way;
	w->back_flow = w->there_flow;
	w->back_flow.becomes = turned(tuple);
	w->back_flow.is_back = 1;
	if (way == WAY_SEND && !claim_port(w)) {
		way = WAY_MASQUERADE;
		w->there_flow.way = w->back_flow.way = way;
		w->there_flow.becomes.from = tuple->from;
		w->there_flow.becomes.from_port = tuple->from_port;
	}
	if (way != WAY_SEND) {
		w->back = turned(&w->there_flow.becomes);
		if (!claim(w)) {
			count(LEFT_FOR_ANOTHER);
			return 0;
		}
	}
	if (put_flow(tuple, &w->there_flow, BPF_ANY)) {
		forget_flow(&w->back);
		count(LEFT_FOR_ANOTHER);
		return 0;
	}
	count(way == WAY_SEND ? TAKEN_TO_SEND : way == WAY_STACK ? TAKEN_TO_STACK : TAKEN_TO_MASQUERADE);
	tally(w);
	return find_flow(tuple);
}

/* The entry of this packet's flow; if it begins one, a new entry. Null if it is not for us. */
static inline struct flow *flow_in(struct __sk_buff *skb, struct work *w)
{
	const struct packet *packet = &w->packet;
	struct flow *flow = find_flow(&packet->tuple);

	if (flow && flow->is_back)
		return flow->way == WAY_SEND ? flow : 0;
	if (!begins(packet))
		return flow;
	if (packet->part == PART_LATER)
		return flow;
	/* UDP does not look for what it will not need. */
	if (flow && packet->protocol == IPPROTO_UDP && goes_on(flow, 0, now_s()))
		return flow;
	const struct served *served = served_at(&packet->tuple);

	if (flow) {
		if (goes_on(flow, served, now_s()))
			return flow;
		struct tuple back = turned(&flow->becomes);

		forget_flow(&back);
		forget_flow(&packet->tuple);
	}
	if (!served) {
		if (packet->protocol != IPPROTO_TCP)
			return 0;
		/* Who begins a connection to the endpoint itself wants no answers of a Service. */
		struct tuple back = turned(&packet->tuple);

		flow = find_flow(&back);
		if (flow && flow->is_back && flow->way != WAY_SEND)
			forget_flow(&back);
		return 0;
	}
	return begin(skb, w, served);
}

/* Gives a later piece the ports of the first one, which tells them. */
static __attribute__((noinline)) int find_ports(struct packet *packet)
{
	struct piece piece = {
		.from = packet->tuple.from,
		.to = packet->tuple.to,
		.id = packet->id,
		.protocol = packet->protocol,
	};
	u32 ports = packet->tuple.from_port | (u32)packet->tuple.to_port << 16;

	if (packet->part == PART_FIRST) {
		bpf_map_update_elem(&pieces, &piece, &ports, BPF_ANY);
		return 1;
	}
	const u32 *found = bpf_map_lookup_elem(&pieces, &piece);

	if (!found)
		return 0;
	packet->tuple.from_port = *found;
	packet->tuple.to_port = *found >> 16;
	return 1;
}

/* Sends a packet that is translated to `to` on to its next hop. */
static __attribute__((noinline)) int send(struct __sk_buff *skb, struct work *w, const struct tuple *to)
{
	struct bpf_redir_neigh hop = {};

	if (!has_route(skb, w, to, 0)) {
		count(LOST_WITHOUT_ROUTE);
		return DROP;
	}
	if (!age(skb, &w->packet))
		return DROP;
	hop.nh_family = w->route.family;
	for (int i = 0; i < 4; i++)
		hop.ipv6_nh[i] = w->route.ipv6_dst[i];
	return bpf_redirect_neigh(w->route.ifindex, &hop, sizeof hop, 0);
}

/* An ICMP error tells of a packet as it was where it got into trouble. Its receiver shall read of its own. */
static __attribute__((noinline)) int carry_error(struct __sk_buff *skb, struct work *w, int is_in)
{
	struct packet *packet = &w->packet;

	w->back = turned(&packet->tuple);
	struct flow *flow = find_flow(&w->back);

	if (!flow)
		return NEXT;
	if (is_in ? flow->is_back && flow->way != WAY_SEND : !flow->is_back || flow->way == WAY_SEND)
		return NEXT;
	w->there_flow = *flow;
	flow = &w->there_flow;
	if (flow->way == WAY_SEND && packet->hops <= 1)
		return NEXT;
	w->outer = flow->becomes;
	/* Who tells it keeps its address, if the flow's own sender does. */
	if (same_address(&flow->becomes.from, &w->back.from))
		w->outer.from = packet->outer_from;
	w->back = turned(&flow->becomes);
	if (!translate_error(skb, packet, &w->outer, &w->back))
		return DROP;
	if (flow->way == WAY_MASQUERADE && is_in)
		skb->mark |= MASQUERADE_MARK;
	if (flow->way != WAY_SEND)
		return NEXT;
	/* Its route is that of its flow. */
	return send(skb, w, &flow->becomes);
}

SEC("classifier")
int outside_in(struct __sk_buff *skb)
{
	u32 first = 0;
	struct work *w = bpf_map_lookup_elem(&work, &first);

	if (!w || skb->pkt_type != PACKET_HOST || !parse(skb, &w->packet))
		return NEXT;
	if (w->packet.is_error)
		return carry_error(skb, w, 1);
	if (w->packet.part && !find_ports(&w->packet))
		return NEXT;
	struct flow *flow = flow_in(skb, w);

	if (!flow)
		return NEXT;
	if (flow->way == WAY_SEND && w->packet.hops <= 1)
		return flow->is_back ? DROP : NEXT;
	touch(w, flow);
	/* Another processor may forget it meanwhile. */
	w->there_flow = *flow;
	flow = &w->there_flow;
	if (!translate(skb, &w->packet, &flow->becomes))
		return DROP;
	if (flow->way == WAY_MASQUERADE)
		skb->mark |= MASQUERADE_MARK;
	if (flow->way != WAY_SEND)
		return NEXT;
	return send(skb, w, &flow->becomes);
}

SEC("classifier")
int outside_out(struct __sk_buff *skb)
{
	u32 first = 0;
	struct work *w = bpf_map_lookup_elem(&work, &first);

	if (!w || !parse(skb, &w->packet))
		return NEXT;
	if (w->packet.is_error)
		return carry_error(skb, w, 0);
	if (w->packet.part && !find_ports(&w->packet))
		return NEXT;
	struct flow *flow = find_flow(&w->packet.tuple);

	if (!flow || !flow->is_back || flow->way == WAY_SEND)
		return NEXT;
	touch(w, flow);
	w->there_flow = *flow;
	return translate(skb, &w->packet, &w->there_flow.becomes) ? NEXT : DROP;
}

char licence[] SEC("license") = "Dual MIT/GPL";
