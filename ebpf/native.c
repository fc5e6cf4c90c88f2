/* decide.h as a program, for tests: it reads what the maps hold and who connects, and says what becomes of each.
 *
 * Every record of the input begins with a letter: 'S' key and value of @services, 'E' of @endpoints, 'N' a key of
 * @node_port_ips, 'M' one of @members, 'Z' empties all maps, 'C' a struct client, a random number and the time.
 * For each 'C' it writes the outcome, a byte, and an endpoint. Clients are remembered until the input ends.
 * crates/dataplane/tests/ebpf_native.rs is the other side. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decide.h"

/* More than a random cluster has; a test that needs more fails. */
#define ENTRIES_MAX 65536

static struct { struct frontend key; struct service value; } services[ENTRIES_MAX];
static struct { struct slot key; struct endpoint value; } endpoints[ENTRIES_MAX];
static union address node_port_ips[ENTRIES_MAX];
static struct member members[ENTRIES_MAX];
static struct { struct sticky key; struct stuck value; } clients[ENTRIES_MAX];
static size_t service_count, endpoint_count, node_port_ip_count, member_count, client_count;
static u32 number, now;

static const struct service *find_service(const struct frontend *key)
{
	for (size_t i = 0; i < service_count; i++)
		if (!memcmp(&services[i].key, key, sizeof *key))
			return &services[i].value;
	return NULL;
}

static const struct endpoint *find_endpoint(const struct slot *key)
{
	for (size_t i = 0; i < endpoint_count; i++)
		if (!memcmp(&endpoints[i].key, key, sizeof *key))
			return &endpoints[i].value;
	return NULL;
}

static int answers_node_ports(const union address *address)
{
	for (size_t i = 0; i < node_port_ip_count; i++)
		if (!memcmp(&node_port_ips[i], address, sizeof *address))
			return 1;
	return 0;
}

static int is_member(const struct member *key)
{
	for (size_t i = 0; i < member_count; i++)
		if (!memcmp(&members[i], key, sizeof *key))
			return 1;
	return 0;
}

static struct stuck *find_stuck(const struct sticky *key)
{
	for (size_t i = 0; i < client_count; i++)
		if (!memcmp(&clients[i].key, key, sizeof *key))
			return &clients[i].value;
	return NULL;
}

static size_t next(size_t *count)
{
	if (*count == ENTRIES_MAX)
		exit(3);
	return (*count)++;
}

static void stick(const struct sticky *key, const struct stuck *value)
{
	struct stuck *known = find_stuck(key);

	if (!known) {
		size_t i = next(&client_count);

		clients[i].key = *key;
		known = &clients[i].value;
	}
	*known = *value;
}

static u32 random_number(void)
{
	return number;
}

static u32 now_s(void)
{
	return now;
}

static void take(void *into, size_t length)
{
	if (fread(into, length, 1, stdin) != 1)
		exit(2);
}

static void answer(void)
{
	struct client client;
	struct endpoint to = {};

	memset(&client, 0, sizeof client);
	take(&client.address, 16);
	take(&client.port, 2);
	take(&client.protocol, 1);
	take(&client.is_host, 1);
	take(&client.is_bound, 1);
	take(&client.netns, 8);
	take(&number, 4);
	take(&now, 4);
	putchar(decide(&client, &to));
	fwrite(&to, sizeof to, 1, stdout);
}

int main(void)
{
	for (int letter; (letter = getchar()) != EOF;) {
		size_t i;

		switch (letter) {
		case 'S':
			i = next(&service_count);
			take(&services[i].key, sizeof services[i].key);
			take(&services[i].value, sizeof services[i].value);
			break;
		case 'E':
			i = next(&endpoint_count);
			take(&endpoints[i].key, sizeof endpoints[i].key);
			take(&endpoints[i].value, sizeof endpoints[i].value);
			break;
		case 'N':
			take(&node_port_ips[next(&node_port_ip_count)], 16);
			break;
		case 'M':
			take(&members[next(&member_count)], sizeof members[0]);
			break;
		case 'Z':
			service_count = endpoint_count = node_port_ip_count = member_count = 0;
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
