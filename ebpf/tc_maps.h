/* The maps of the programs at devices, and how they are asked. */
#ifndef PORTOLAN_TC_MAPS_H
#define PORTOLAN_TC_MAPS_H

#include "skb.h"
#include "packet.h"

/* crates/kernel/src/ebpf/tc/maps.rs sets the numbers of entries anew, and gives their reasons. */
struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 65536);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, struct frontend);
	TYPE(value, struct served);
} served SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 524288);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, struct slot);
	TYPE(value, struct endpoint);
} slots SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 1024);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, union address);
	TYPE(value, u8);
} node_ips SEC(".maps");

/* A range of addresses; of IPv4, its length is 96 more. */
struct range {
	u32 length;
	union address address;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_LPM_TRIE);
	NUMBER(max_entries, 1024);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, struct range);
	TYPE(value, u8);
} pod_ranges SEC(".maps");

/* A device at which these programs stand. */
struct device {
	union address v4;	/* its own addresses, for the source of what is sent; 0 if it has none */
	union address v6;
	u32 mtu;
	u8 mac[6];
	u8 takes_frames;	/* whether XDP may send through it */
	u8 zero;
};

_Static_assert(sizeof(struct device) == 44, "DEVICE_LEN");

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 64);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, u32);
	TYPE(value, struct device);
} devices SEC(".maps");

/* Source ports that nobody else on the node uses; none if the count is 0. */
struct ports {
	u32 first;
	u32 count;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct ports);
} source_ports SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 262144);
	TYPE(key, struct tuple);
	TYPE(value, struct flow);
} flows_v4 SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 131072);
	TYPE(key, struct tuple);
	TYPE(value, struct flow);
} flows_v6 SEC(".maps");

/* The ports of a datagram that comes in pieces: only the first one has them. */
struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 4096);
	TYPE(key, struct piece);
	TYPE(value, u32);
} pieces SEC(".maps");

/* What became of packets that may begin a flow, and of those that had to be dropped. */
enum outcome_outside {
	TAKEN_TO_STACK,
	TAKEN_TO_MASQUERADE,
	TAKEN_TO_SEND,
	LEFT_OF_NOBODY,
	LEFT_OF_A_POD,
	LEFT_WITHOUT_SLOT,
	LEFT_WITHOUT_WAY,	/* its answers would not leave by a device of ours */
	LEFT_FOR_ANOTHER,	/* another flow has the same endpoint, client and port */
	LOST_WITHOUT_ROUTE,
	CARRIED_FAST,		/* packets that XDP has carried */
	OUTCOMES_OUTSIDE,
};

struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, OUTCOMES_OUTSIDE);
	TYPE(key, u32);
	TYPE(value, u64);
} outcomes SEC(".maps");

/* How many flows began, by what was asked for and endpoint; when there is no room, new pairs are not counted. */
struct pair {
	struct frontend at;
	struct endpoint to;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 32768);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, struct pair);
	TYPE(value, u64);
} pairs SEC(".maps");

/* More than a stack holds. */
struct work {
	struct packet packet;
	struct tuple back;
	struct tuple outer;
	struct flow there_flow;
	struct flow back_flow;
	struct endpoint to;
	struct pair pair;
	struct bpf_fib_lookup route;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct work);
} work SEC(".maps");

static inline const struct served *find_served(const struct frontend *key)
{
	return bpf_map_lookup_elem(&served, key);
}

static inline const struct endpoint *find_slot(const struct slot *key)
{
	return bpf_map_lookup_elem(&slots, key);
}

static inline int is_node_port_ip(const union address *address)
{
	return bpf_map_lookup_elem(&node_ips, address) != 0;
}

static inline int is_pod_ip(const union address *address)
{
	struct range one = { .length = 128, .address = *address };

	return bpf_map_lookup_elem(&pod_ranges, &one) != 0;
}

static inline u32 random_number(void)
{
	return bpf_get_prandom_u32();
}

static inline u32 now_s(void)
{
	return bpf_ktime_get_coarse_ns() / 1000000000;
}

static inline void count(u32 outcome)
{
	u64 *counter = bpf_map_lookup_elem(&outcomes, &outcome);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

static inline struct flow *find_flow(const struct tuple *key)
{
	return is_v4(&key->to) ? bpf_map_lookup_elem(&flows_v4, key) : bpf_map_lookup_elem(&flows_v6, key);
}

static inline long put_flow(const struct tuple *key, const struct flow *flow, u64 flags)
{
	return is_v4(&key->to) ? bpf_map_update_elem(&flows_v4, key, flow, flags)
			       : bpf_map_update_elem(&flows_v6, key, flow, flags);
}

static inline void forget_flow(const struct tuple *key)
{
	if (is_v4(&key->to))
		bpf_map_delete_elem(&flows_v4, key);
	else
		bpf_map_delete_elem(&flows_v6, key);
}

/* Writes down what this packet tells of its flow; of the other direction's entry only what is new, or once a second, so
 * that the table forgets neither of the two before the other. */
static __attribute__((noinline)) void touch(struct work *w, struct flow *flow)
{
	u32 now = now_s();
	u8 state = flow->state;

	if (flow->is_back)
		state |= FLOW_ANSWERED;
	if (w->packet.tcp_flags & TCP_RST)
		state |= FLOW_RESET;
	if (w->packet.tcp_flags & TCP_FIN)
		state |= flow->is_back ? FLOW_ENDED_BACK : FLOW_ENDED_THERE;
	if (state == flow->state && now == flow->seen_s)
		return;
	flow->state = state;
	flow->seen_s = now;
	w->back = turned(&flow->becomes);
	struct flow *other = find_flow(&w->back);

	if (other) {
		other->state = state;
		other->seen_s = now;
		return;
	}
	w->back_flow = *flow;
	w->back_flow.becomes = turned(&w->packet.tuple);
	w->back_flow.is_back = !flow->is_back;
	put_flow(&w->back, &w->back_flow, BPF_NOEXIST);
}

/* Asks the kernel's routes; the answer is in w->route. */
static inline long find_route(CONTEXT *frame, u32 in, struct work *w, const struct tuple *tuple, u32 mtu)
{
	__builtin_memset(&w->route, 0, sizeof w->route);
	w->route.ifindex = in;
	w->route.tot_len = mtu;
	w->route.l4_protocol = tuple->protocol;
	w->route.sport = tuple->from_port;
	w->route.dport = tuple->to_port;
	if (is_v4(&tuple->to)) {
		w->route.family = AF_INET;
		w->route.ipv4_src = tuple->from.words[3];
		w->route.ipv4_dst = tuple->to.words[3];
	} else {
		w->route.family = AF_INET6;
		for (int i = 0; i < 4; i++) {
			w->route.ipv6_src[i] = tuple->from.words[i];
			w->route.ipv6_dst[i] = tuple->to.words[i];
		}
	}
	return bpf_fib_lookup(frame, &w->route, sizeof w->route, 0);
}

#endif
