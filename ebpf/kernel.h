/* What we use of linux/bpf.h, which is stable, so that building needs no headers of a distribution. */
#ifndef PORTOLAN_KERNEL_H
#define PORTOLAN_KERNEL_H

#define SEC(name) __attribute__((section(name), used))

/* How maps are described in the section .maps; the types of the members say it. */
#define NUMBER(name, value) int(*name)[value]
#define TYPE(name, of) of *name

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
};

#define BPF_F_NO_PREALLOC 1
#define BPF_ANY 0
#define BPF_NOEXIST 1

#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define ECONNREFUSED 111

struct bpf_sock {
	unsigned int bound_dev_if;
	unsigned int family;
	unsigned int type;
	unsigned int protocol;
	unsigned int mark;
	unsigned int priority;
	unsigned int src_ip4;
	unsigned int src_ip6[4];
};

struct bpf_sock_addr {
	unsigned int user_family;
	unsigned int user_ip4;
	unsigned int user_ip6[4];
	unsigned int user_port;
	unsigned int family;
	unsigned int type;
	unsigned int protocol;
	unsigned int msg_src_ip4;
	unsigned int msg_src_ip6[4];
	union {
		struct bpf_sock *sk;
		unsigned long long sk_pointer;
	};
};

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, unsigned long long flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static unsigned long long (*bpf_ktime_get_ns)(void) = (void *)5;
static unsigned int (*bpf_get_prandom_u32)(void) = (void *)7;
static unsigned long long (*bpf_get_socket_cookie)(void *ctx) = (void *)46;
static unsigned long long (*bpf_get_netns_cookie)(void *ctx) = (void *)122;
static int (*bpf_set_retval)(int value) = (void *)187;

#endif
