/* What stands in the maps of all programs: the layouts of crates/dataplane/src/ebpf/bytes.rs.
 *
 * Addresses of IPv4 are ::ffff:a.b.c.d, ports in network order, other numbers in the machine's. */
#ifndef PORTOLAN_LAYOUT_H
#define PORTOLAN_LAYOUT_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

union address {
	u8 bytes[16];
	u32 words[4];
};

enum place { PLACE_ADDRESS = 0, PLACE_NODE_PORT_V4 = 4, PLACE_NODE_PORT_V6 = 6 };

struct frontend {
	union address address;
	u16 port;
	u8 protocol;
	u8 place;
};

/* One of the slots of a list; without slots, there is none. */
struct pick {
	u32 list;
	u32 slots;
};

struct slot {
	struct frontend id;
	u32 list;
	u32 index;
};

struct endpoint {
	union address address;
	u16 port;
	u16 zero;
};

_Static_assert(sizeof(struct frontend) == 20, "SERVICE_KEY_LEN");
_Static_assert(sizeof(struct slot) == 28, "ENDPOINT_KEY_LEN");
_Static_assert(sizeof(struct endpoint) == 20, "ENDPOINT_LEN");

static inline int is_v4(const union address *address)
{
	const u8 *b = address->bytes;

	return address->words[0] == 0 && address->words[1] == 0 && b[8] == 0 && b[9] == 0 && b[10] == 0xff && b[11] == 0xff;
}

#endif
