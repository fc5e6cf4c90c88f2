/* The programs at the sockets of a node: who connects to a Service is connected to an endpoint at once.
 *
 * connect4 and connect6 ask decide.h and write the endpoint into the address; getpeername4 and getpeername6 tell the
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
	NUMBER(max_entries, 1024);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, union address);
	TYPE(value, u8);
} node_port_ips SEC(".maps");

/* What the agent wants beside connections: crates/kernel/src/ebpf/notes.rs. */
#define NOTES_DIALS 1

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

/* What a connected socket had asked for, for getpeername. */
struct peer {
	struct endpoint to;
	struct endpoint asked;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 32768);
	TYPE(key, u64);
	TYPE(value, struct peer);
} peers SEC(".maps");

/* For each endpoint of TCP what the last socket had asked for that was connected to it. conntrack tells of such a
 * connection as of any that goes to the endpoint itself. */
struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 16384);
	TYPE(key, struct endpoint);
	TYPE(value, struct endpoint);
} dials SEC(".maps");

#define PASS 1

static inline const struct service *find_service(const struct frontend *key)
{
	return bpf_map_lookup_elem(&services, key);
}

static inline const struct endpoint *find_endpoint(const struct slot *key)
{
	return bpf_map_lookup_elem(&endpoints, key);
}

static inline int answers_node_ports(const union address *address)
{
	return bpf_map_lookup_elem(&node_port_ips, address) != 0;
}

static inline u32 random_number(void)
{
	return bpf_get_prandom_u32();
}

static inline const struct node *the_node(void)
{
	u32 first = 0;

	return bpf_map_lookup_elem(&node, &first);
}

static inline void count(u32 outcome)
{
	u64 *counter = bpf_map_lookup_elem(&outcomes, &outcome);

	/* Another task of this processor may be in between. */
	if (counter)
		__sync_fetch_and_add(counter, 1);
}

static inline union address v4(u32 ip)
{
	union address address = {};

	/* ::ffff:a.b.c.d */
	address.bytes[10] = 0xff;
	address.bytes[11] = 0xff;
	address.words[3] = ip;
	return address;
}

static inline int is_same(const struct endpoint *a, const struct endpoint *b)
{
	const u32 *x = a->address.words, *y = b->address.words;

	return a->port == b->port && x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

/* Mostly nothing is written: one lookup. */
static inline void note_dial(const struct endpoint *to, const struct endpoint *asked)
{
	const struct endpoint *known = bpf_map_lookup_elem(&dials, to);

	if (!known || !is_same(known, asked))
		bpf_map_update_elem(&dials, to, asked, BPF_ANY);
}

/* Asks decide.h; when the socket shall connect elsewhere, remembers what it asked for. */
static inline int connects(struct bpf_sock_addr *ctx, const union address *address, int is_bound, struct endpoint *to)
{
	if (ctx->protocol != IPPROTO_TCP)
		return 0;
	const struct node *node = the_node();

	if (!node)
		return 0;
	struct client client = {
		.address = *address,
		.port = ctx->user_port,
		.protocol = IPPROTO_TCP,
		.is_host = node->cookie == bpf_get_netns_cookie(ctx),
		.is_bound = is_bound,
	};
	enum outcome outcome = decide(&client, to);

	count(outcome);
	if (outcome != CONNECTED)
		return 0;
	u64 cookie = bpf_get_socket_cookie(ctx);
	struct peer peer = {
		.to = *to,
		.asked = { .address = *address, .port = ctx->user_port },
	};

	bpf_map_update_elem(&peers, &cookie, &peer, BPF_ANY);
	if (node->wants & NOTES_DIALS)
		note_dial(&peer.to, &peer.asked);
	return 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	union address address = v4(ctx->user_ip4);
	struct endpoint to;

	if (connects(ctx, &address, ctx->sk && ctx->sk->src_ip4 != 0, &to)) {
		ctx->user_ip4 = to.address.words[3];
		ctx->user_port = to.port;
	}
	return PASS;
}

/* Also sockets of IPv6 that connect to ::ffff:a.b.c.d, and so to IPv4. */
SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	union address address = {
		.words = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] },
	};
	struct bpf_sock *sk = ctx->sk;
	int is_bound = sk && (sk->src_ip6[0] | sk->src_ip6[1] | sk->src_ip6[2] | sk->src_ip6[3]) != 0;
	struct endpoint to;

	if (connects(ctx, &address, is_bound, &to)) {
		ctx->user_ip6[0] = to.address.words[0];
		ctx->user_ip6[1] = to.address.words[1];
		ctx->user_ip6[2] = to.address.words[2];
		ctx->user_ip6[3] = to.address.words[3];
		ctx->user_port = to.port;
	}
	return PASS;
}

/* The address that the socket asked for, if `address` is the endpoint that it got. */
static inline const struct endpoint *asked(struct bpf_sock_addr *ctx, const union address *address)
{
	u64 cookie = bpf_get_socket_cookie(ctx);
	const struct peer *peer = bpf_map_lookup_elem(&peers, &cookie);
	struct endpoint to = { .address = *address, .port = ctx->user_port };

	return peer && is_same(&peer->to, &to) ? &peer->asked : 0;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	union address address = v4(ctx->user_ip4);
	const struct endpoint *to = asked(ctx, &address);

	if (to) {
		ctx->user_ip4 = to->address.words[3];
		ctx->user_port = to->port;
	}
	return PASS;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	union address address = {
		.words = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] },
	};
	const struct endpoint *to = asked(ctx, &address);

	if (to) {
		ctx->user_ip6[0] = to->address.words[0];
		ctx->user_ip6[1] = to->address.words[1];
		ctx->user_ip6[2] = to->address.words[2];
		ctx->user_ip6[3] = to->address.words[3];
		ctx->user_port = to->port;
	}
	return PASS;
}

/* bpf_get_netns_cookie and the others above are free for programs of any licence. */
char licence[] SEC("license") = "Apache-2.0";
