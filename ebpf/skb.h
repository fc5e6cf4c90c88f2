/* What programs at devices use of linux/bpf.h, beside kernel.h. */
#ifndef PORTOLAN_SKB_H
#define PORTOLAN_SKB_H

#include "kernel.h"

enum { BPF_MAP_TYPE_LPM_TRIE = 11 };

#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define IPPROTO_ICMP 1
#define IPPROTO_ICMPV6 58
#define PACKET_HOST 0

#define BPF_F_RECOMPUTE_CSUM 1
#define BPF_F_PSEUDO_HDR 16
#define BPF_F_MARK_MANGLED_0 32

#define BPF_FIB_LKUP_RET_SUCCESS 0
#define BPF_FIB_LKUP_RET_NO_NEIGH 7

struct __sk_buff {
	unsigned int len;
	unsigned int pkt_type;
	unsigned int mark;
	unsigned int queue_mapping;
	unsigned int protocol;
	unsigned int vlan_present;
	unsigned int vlan_tci;
	unsigned int vlan_proto;
	unsigned int priority;
	unsigned int ingress_ifindex;
	unsigned int ifindex;
};

struct bpf_fib_lookup {
	unsigned char family;
	unsigned char l4_protocol;
	unsigned short sport;
	unsigned short dport;
	unsigned short tot_len;
	unsigned int ifindex;
	unsigned int flowinfo;
	union {
		unsigned int ipv4_src;
		unsigned int ipv6_src[4];
	};
	union {
		unsigned int ipv4_dst;
		unsigned int ipv6_dst[4];
	};
	unsigned int vlan;
	unsigned char smac[6];
	unsigned char dmac[6];
};

struct bpf_redir_neigh {
	unsigned int nh_family;
	union {
		unsigned int ipv4_nh;
		unsigned int ipv6_nh[4];
	};
};

static long (*bpf_skb_store_bytes)(struct __sk_buff *skb, unsigned int offset, const void *from, unsigned int length,
				   unsigned long long flags) = (void *)9;
static long (*bpf_l3_csum_replace)(struct __sk_buff *skb, unsigned int offset, unsigned long long from,
				   unsigned long long to, unsigned long long size) = (void *)10;
static long (*bpf_l4_csum_replace)(struct __sk_buff *skb, unsigned int offset, unsigned long long from,
				   unsigned long long to, unsigned long long flags) = (void *)11;
static long (*bpf_skb_load_bytes)(const void *skb, unsigned int offset, void *to, unsigned int length) = (void *)26;
static long long (*bpf_csum_diff)(unsigned int *from, unsigned int from_size, unsigned int *to, unsigned int to_size,
				  unsigned int seed) = (void *)28;
static long (*bpf_fib_lookup)(void *ctx, struct bpf_fib_lookup *params, int length, unsigned int flags) = (void *)69;
static long (*bpf_redirect_neigh)(unsigned int ifindex, struct bpf_redir_neigh *params, int length,
				  unsigned long long flags) = (void *)152;
static unsigned long long (*bpf_ktime_get_coarse_ns)(void) = (void *)160;

#endif
