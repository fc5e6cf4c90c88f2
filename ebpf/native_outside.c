/* outside.h as a program, for tests: it reads what the maps hold and which flows begin, and says what becomes of each.
 *
 * Every record of the input begins with a letter: 'S' key and value of @served, 'E' of @slots, 'N' a key of @node_ips,
 * 'P' a key of @pod_ranges, 'C' a struct tuple and a random number. For each 'C' it writes what was chosen and whether it
 * is masqueraded, a byte each, and an endpoint. crates/dataplane/tests/outside_native.rs is the other side. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "outside.h"

/* More than a random cluster has; a test that needs more fails. */
#define ENTRIES_MAX 131072

struct range {
	u32 length;
	union address address;
};

static struct { struct frontend key; struct served value; } served[ENTRIES_MAX];
static struct { struct slot key; struct endpoint value; } slots[ENTRIES_MAX];
static union address node_ips[ENTRIES_MAX];
static struct range ranges[ENTRIES_MAX];
static size_t served_count, slot_count, node_ip_count, range_count;
static u32 number;

static const struct served *find_served(const struct frontend *key)
{
	for (size_t i = 0; i < served_count; i++)
		if (!memcmp(&served[i].key, key, sizeof *key))
			return &served[i].value;
	return NULL;
}

static const struct endpoint *find_slot(const struct slot *key)
{
	for (size_t i = 0; i < slot_count; i++)
		if (!memcmp(&slots[i].key, key, sizeof *key))
			return &slots[i].value;
	return NULL;
}

static int is_node_port_ip(const union address *address)
{
	for (size_t i = 0; i < node_ip_count; i++)
		if (!memcmp(&node_ips[i], address, sizeof *address))
			return 1;
	return 0;
}

static int is_in(const struct range *range, const union address *address)
{
	for (u32 bit = 0; bit < range->length; bit++) {
		u8 mask = 0x80 >> bit % 8;

		if ((range->address.bytes[bit / 8] ^ address->bytes[bit / 8]) & mask)
			return 0;
	}
	return 1;
}

static int is_pod_ip(const union address *address)
{
	for (size_t i = 0; i < range_count; i++)
		if (is_in(&ranges[i], address))
			return 1;
	return 0;
}

static u32 random_number(void)
{
	return number;
}

static void take(void *into, size_t length)
{
	if (fread(into, length, 1, stdin) != 1)
		exit(2);
}

static size_t next(size_t *count)
{
	if (*count == ENTRIES_MAX)
		exit(3);
	return (*count)++;
}

static void answer(void)
{
	struct tuple tuple;
	struct endpoint to = {};

	take(&tuple, sizeof tuple);
	take(&number, 4);
	const struct served *found = served_at(&tuple);
	enum chosen chosen = choose(&tuple, found, &to);

	putchar(chosen);
	putchar(chosen == CHOSEN && masquerades(&tuple, found, &to));
	fwrite(&to, sizeof to, 1, stdout);
}

int main(void)
{
	for (int letter; (letter = getchar()) != EOF;) {
		size_t i;

		switch (letter) {
		case 'S':
			i = next(&served_count);
			take(&served[i].key, sizeof served[i].key);
			take(&served[i].value, sizeof served[i].value);
			break;
		case 'E':
			i = next(&slot_count);
			take(&slots[i].key, sizeof slots[i].key);
			take(&slots[i].value, sizeof slots[i].value);
			break;
		case 'N':
			take(&node_ips[next(&node_ip_count)], sizeof node_ips[0]);
			break;
		case 'P':
			take(&ranges[next(&range_count)], sizeof ranges[0]);
			break;
		case 'C':
			answer();
			break;
		default:
			return 4;
		}
	}
	return 0;
}
