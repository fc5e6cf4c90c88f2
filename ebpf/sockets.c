/* The programs at the sockets of a node: who connects to a Service is connected to an endpoint at once, and a datagram
 * to a Service is one to an endpoint.
 *
 * connect and sendmsg ask decide.h and write the endpoint into the address; getpeername and recvmsg tell the
 * application the address that it asked for. What they leave alone meets the rules of nftables mode. */
#include "kernel.h"
#include "decide.h"

/* crates/kernel/src/ebpf/maps.rs sets the numbers of entries anew, and gives their reasons. */
struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 262144);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, struct frontend);
	TYPE(value, struct service);
} services SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 524288);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, struct slot);
	TYPE(value, struct endpoint);
} endpoints SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 262144);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, struct member);
	TYPE(value, u8);
} members SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 1024);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, union address);
	TYPE(value, u8);
} node_port_ips SEC(".maps");

/* The cookies of network namespaces in which the agent can end sockets. */
struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 4096);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, u64);
	TYPE(value, u8);
} namespaces SEC(".maps");

/* What the agent wants beside connections: crates/kernel/src/ebpf/notes.rs. */
#define NOTES_DIALS 1
#define NOTES_PAIRS 2

/* The cookie of the node's network namespace, and what is wanted. */
struct node {
	u64 cookie;
	u64 wants;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct node);
} node SEC(".maps");

/* How often each outcome was, by processor. */
struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, OUTCOMES);
	TYPE(key, u32);
	TYPE(value, u64);
} outcomes SEC(".maps");

/* Where pods stay. */
struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 16384);
	TYPE(key, struct sticky);
	TYPE(value, struct stuck);
} clients SEC(".maps");

/* What a connected socket had asked for. */
struct peer {
	struct endpoint to;
	struct endpoint asked;
};

/* Of TCP, by the cookie of the socket: when there are too many, those that are older are forgotten. They go when they are
 * closed, where the kernel tells it. */
struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 32768);
	TYPE(key, u64);
	TYPE(value, struct peer);
} peers SEC(".maps");

/* Of UDP: none is forgotten before it is closed, for nobody else tells it that its endpoint is gone. */
struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 32768);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, u64);
	TYPE(value, struct peer);
} datagram_peers SEC(".maps");

/* A socket that is not connected, and one of its other ends. */
struct flow {
	u64 cookie;
	struct endpoint end;
	u32 zero;
};

/* Which endpoint the socket has for a Service. */
struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 16384);
	TYPE(key, struct flow);
	TYPE(value, struct stuck);
} flows SEC(".maps");

/* What the socket had asked for when it got this endpoint. */
struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 16384);
	TYPE(key, struct flow);
	TYPE(value, struct endpoint);
} replies SEC(".maps");

/* For each endpoint of TCP what the last socket had asked for that was connected to it. conntrack tells of such a
 * connection as of any that goes to the endpoint itself. */
struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 16384);
	TYPE(key, struct endpoint);
	TYPE(value, struct endpoint);
} dials SEC(".maps");

/* How many flows each endpoint has had for each destination, by processor. */
struct pair {
	struct endpoint asked;
	struct endpoint to;
	u8 protocol;
	u8 zero[3];
};

struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_HASH);
	NUMBER(max_entries, 65536);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, struct pair);
	TYPE(value, u64);
} pairs SEC(".maps");

/* Whether bpf_set_retval is there (Linux 5.18): the loader says it, and the verifier looks at no call that is never
 * reached. */
const volatile u8 can_refuse = 0;

#define REFUSE 0
#define PASS 1

/* So long conntrack remembers a flow of UDP that goes both ways, too. */
#define FLOW_IDLE_S 120

#define NS_PER_S 1000000000ull

INLINE const struct service *find_service(const struct frontend *key)
{
	return bpf_map_lookup_elem(&services, key);
}

INLINE const struct endpoint *find_endpoint(const struct slot *key)
{
	return bpf_map_lookup_elem(&endpoints, key);
}

INLINE int answers_node_ports(const union address *address)
{
	return bpf_map_lookup_elem(&node_port_ips, address) != 0;
}

INLINE int is_member(const struct member *key)
{
	return bpf_map_lookup_elem(&members, key) != 0;
}

INLINE struct stuck *find_stuck(const struct sticky *key)
{
	return bpf_map_lookup_elem(&clients, key);
}

INLINE void stick(const struct sticky *key, const struct stuck *value)
{
	bpf_map_update_elem(&clients, key, value, BPF_ANY);
}

INLINE u32 random_number(void)
{
	return bpf_get_prandom_u32();
}

INLINE u32 now_s(void)
{
	return bpf_ktime_get_ns() / NS_PER_S;
}

INLINE const struct node *the_node(void)
{
	u32 first = 0;

	return bpf_map_lookup_elem(&node, &first);
}

INLINE void count(u32 outcome)
{
	u64 *counter = bpf_map_lookup_elem(&outcomes, &outcome);

	/* Another task of this processor may be in between. */
	if (counter)
		__sync_fetch_and_add(counter, 1);
}

INLINE union address v4(u32 ip)
{
	union address address = {};

	/* ::ffff:a.b.c.d */
	address.bytes[10] = 0xff;
	address.bytes[11] = 0xff;
	address.words[3] = ip;
	return address;
}

INLINE int is_same(const struct endpoint *a, const struct endpoint *b)
{
	const u32 *x = a->address.words, *y = b->address.words;

	return a->port == b->port && x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

/* Mostly nothing is written: one lookup. */
INLINE void note_dial(const struct endpoint *to, const struct endpoint *asked)
{
	const struct endpoint *known = bpf_map_lookup_elem(&dials, to);

	if (!known || !is_same(known, asked))
		bpf_map_update_elem(&dials, to, asked, BPF_ANY);
}

INLINE void note_pair(const struct endpoint *to, const struct endpoint *asked, u8 protocol)
{
	struct pair key = { .asked = *asked, .to = *to, .protocol = protocol };
	u64 *counter = bpf_map_lookup_elem(&pairs, &key);
	u64 first = 1;

	if (counter)
		__sync_fetch_and_add(counter, 1);
	else
		bpf_map_update_elem(&pairs, &key, &first, BPF_NOEXIST);
}

/* A new flow has got its endpoint. */
INLINE void note(const struct node *node, const struct endpoint *to, const struct endpoint *asked, u8 protocol)
{
	if (protocol == IPPROTO_TCP && (node->wants & NOTES_DIALS))
		note_dial(to, asked);
	if (node->wants & NOTES_PAIRS)
		note_pair(to, asked, protocol);
}

INLINE enum outcome ask(struct bpf_sock_addr *ctx, const struct node *node, const struct endpoint *asked,
			       u64 netns, int is_bound, struct endpoint *to)
{
	struct client client = {
		.address = asked->address,
		.port = asked->port,
		.protocol = ctx->protocol,
		.is_host = node->cookie == netns,
		.is_bound = is_bound,
		.netns = netns,
	};

	return decide(&client, to);
}

/* Remembers what the socket asked for; false when there is no room, and then nothing has happened. */
INLINE int keep_peer(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	struct flow asked = { .cookie = bpf_get_socket_cookie(ctx), .end = peer->asked };

	if (ctx->protocol != IPPROTO_UDP) {
		bpf_map_update_elem(&peers, &asked.cookie, peer, BPF_ANY);
		return 1;
	}
	/* What it had before it was connected is over: it hears nobody else any more. */
	bpf_map_delete_elem(&flows, &asked);
	return bpf_map_update_elem(&datagram_peers, &asked.cookie, peer, BPF_ANY) == 0;
}

/* A socket of UDP may have been connected before. */
INLINE void forget_peer(struct bpf_sock_addr *ctx)
{
	u64 cookie = bpf_get_socket_cookie(ctx);

	if (ctx->protocol == IPPROTO_UDP)
		bpf_map_delete_elem(&datagram_peers, &cookie);
}

/* Sockets of UDP are connected only where the agent can end them when their endpoint is gone. */
INLINE int is_ours(struct bpf_sock_addr *ctx, u64 netns)
{
	if (ctx->protocol == IPPROTO_TCP)
		return 1;
	return ctx->protocol == IPPROTO_UDP && bpf_map_lookup_elem(&namespaces, &netns);
}

/* CONNECTED when the socket shall connect elsewhere. */
INLINE enum outcome connects(struct bpf_sock_addr *ctx, const union address *address, int is_bound, struct endpoint *to)
{
	const struct node *node = the_node();
	u64 netns = bpf_get_netns_cookie(ctx);

	if (!node || !is_ours(ctx, netns)) {
		forget_peer(ctx);
		return NOT_FOR_US;
	}
	struct peer peer = { .asked = { .address = *address, .port = ctx->user_port } };
	enum outcome outcome = ask(ctx, node, &peer.asked, netns, is_bound, to);

	if (outcome == REFUSED && !can_refuse)
		outcome = NOT_FOR_US;
	peer.to = *to;
	if (outcome == CONNECTED && !keep_peer(ctx, &peer))
		outcome = NOT_FOR_US;
	count(outcome);
	if (outcome == CONNECTED)
		note(node, to, &peer.asked, ctx->protocol);
	else
		forget_peer(ctx);
	return outcome;
}

/* What connect(2) does then. */
INLINE int answer(enum outcome outcome)
{
	if (can_refuse && outcome == REFUSED) {
		bpf_set_retval(-ECONNREFUSED);
		return REFUSE;
	}
	return PASS;
}

/* True when the datagram shall go elsewhere. A flow keeps its endpoint until the agent takes it away, or until nothing
 * was sent for a while. */
INLINE int sends(struct bpf_sock_addr *ctx, const union address *address, int is_bound, struct endpoint *to)
{
	const struct node *node = the_node();

	if (!node || ctx->protocol != IPPROTO_UDP)
		return 0;
	struct flow asked = {
		.cookie = bpf_get_socket_cookie(ctx),
		.end = { .address = *address, .port = ctx->user_port },
	};
	struct stuck *known = bpf_map_lookup_elem(&flows, &asked);
	struct stuck kept = { .seen_s = now_s() };

	if (known && kept.seen_s - known->seen_s < FLOW_IDLE_S) {
		kept.to = known->to;
		known->seen_s = kept.seen_s;
		known = &kept;
	} else {
		const struct peer *peer = bpf_map_lookup_elem(&datagram_peers, &asked.cookie);

		/* Connected, and it says nevertheless where it sends. */
		if (peer && is_same(&peer->asked, &asked.end)) {
			*to = peer->to;
			return 1;
		}
		enum outcome outcome = ask(ctx, node, &asked.end, bpf_get_netns_cookie(ctx), is_bound, &kept.to);

		if (outcome != CONNECTED)
			return 0;
		known = 0;
	}
	struct flow reply = { .cookie = asked.cookie, .end = kept.to };
	const struct endpoint *other = bpf_map_lookup_elem(&replies, &reply);

	/* Another Service has led this socket to the same endpoint: only the rules can tell the answers apart. */
	if (other && !is_same(other, &asked.end))
		return 0;
	if (!other)
		bpf_map_update_elem(&replies, &reply, &asked.end, BPF_ANY);
	if (!known) {
		bpf_map_update_elem(&flows, &asked, &kept, BPF_ANY);
		count(CONNECTED);
		note(node, &kept.to, &asked.end, IPPROTO_UDP);
	}
	*to = kept.to;
	return 1;
}

/* The address that the socket asked for, if `from` is the endpoint that it got. */
INLINE const struct endpoint *asked(struct bpf_sock_addr *ctx, const union address *address)
{
	struct flow from = {
		.cookie = bpf_get_socket_cookie(ctx),
		.end = { .address = *address, .port = ctx->user_port },
	};
	void *map = ctx->protocol == IPPROTO_UDP ? (void *)&datagram_peers : (void *)&peers;
	const struct peer *peer = bpf_map_lookup_elem(map, &from.cookie);

	if (peer && is_same(&peer->to, &from.end))
		return &peer->asked;
	return ctx->protocol == IPPROTO_UDP ? bpf_map_lookup_elem(&replies, &from) : 0;
}

INLINE int write4(struct bpf_sock_addr *ctx, const struct endpoint *to)
{
	ctx->user_ip4 = to->address.words[3];
	ctx->user_port = to->port;
	return PASS;
}

INLINE int write6(struct bpf_sock_addr *ctx, const struct endpoint *to)
{
	ctx->user_ip6[0] = to->address.words[0];
	ctx->user_ip6[1] = to->address.words[1];
	ctx->user_ip6[2] = to->address.words[2];
	ctx->user_ip6[3] = to->address.words[3];
	ctx->user_port = to->port;
	return PASS;
}

#define ADDRESS6(ctx) \
	((union address){ .words = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] } })

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	union address address = v4(ctx->user_ip4);
	struct bpf_sock *sk = ctx->sk;
	struct endpoint to = {};
	enum outcome outcome = connects(ctx, &address, sk && sk->src_ip4 != 0, &to);

	return outcome == CONNECTED ? write4(ctx, &to) : answer(outcome);
}

/* Also sockets of IPv6 that connect to ::ffff:a.b.c.d, and so to IPv4. */
SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	union address address = ADDRESS6(ctx);
	struct bpf_sock *sk = ctx->sk;
	int is_bound = sk && (sk->src_ip6[0] | sk->src_ip6[1] | sk->src_ip6[2] | sk->src_ip6[3]) != 0;
	struct endpoint to = {};
	enum outcome outcome = connects(ctx, &address, is_bound, &to);

	return outcome == CONNECTED ? write6(ctx, &to) : answer(outcome);
}

/* Also datagrams of sockets of IPv6 to ::ffff:a.b.c.d. */
SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	union address address = v4(ctx->user_ip4);
	struct endpoint to;

	return sends(ctx, &address, ctx->msg_src_ip4 != 0, &to) ? write4(ctx, &to) : PASS;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	union address address = ADDRESS6(ctx);
	int is_bound =
		(ctx->msg_src_ip6[0] | ctx->msg_src_ip6[1] | ctx->msg_src_ip6[2] | ctx->msg_src_ip6[3]) != 0;
	struct endpoint to;

	return sends(ctx, &address, is_bound, &to) ? write6(ctx, &to) : PASS;
}

INLINE int tell4(struct bpf_sock_addr *ctx)
{
	union address address = v4(ctx->user_ip4);
	const struct endpoint *to = asked(ctx, &address);

	return to ? write4(ctx, to) : PASS;
}

INLINE int tell6(struct bpf_sock_addr *ctx)
{
	union address address = ADDRESS6(ctx);
	const struct endpoint *to = asked(ctx, &address);

	return to ? write6(ctx, to) : PASS;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	return tell4(ctx);
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	return tell6(ctx);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	return tell4(ctx);
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	return tell6(ctx);
}

/* Without it no socket of UDP is connected. Of TCP, an entry that is free again is still in the processor's cache when
 * the next socket takes it; one that must first be taken from the oldest socket is not. */
SEC("cgroup/sock_release")
int released(struct bpf_sock *ctx)
{
	u64 cookie = bpf_get_socket_cookie(ctx);

	if (ctx->protocol == IPPROTO_UDP)
		bpf_map_delete_elem(&datagram_peers, &cookie);
	else if (ctx->protocol == IPPROTO_TCP)
		bpf_map_delete_elem(&peers, &cookie);
	return PASS;
}

/* bpf_get_netns_cookie and the others above are free for programs of any licence. */
char licence[] SEC("license") = "Apache-2.0";
