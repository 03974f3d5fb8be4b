/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * DPDK's longest-prefix table: rte_fib CORE huge|ordinary ROUTES QUERIES
 *
 * ROUTES is a file of prefixes, each of three numbers of 32 bits: address, length, value. QUERIES is one of addresses.
 */
#include "peer.h"

#include <rte_fib.h>

struct route {
	uint32_t address;
	uint32_t length;
	uint32_t value;
};

struct table {
	struct rte_fib *fib;
	uint32_t *queries;
	size_t count;
};

static const unsigned int bursts[] = {32, 64, 256};

/* The last one is not for every processor. */
static const struct {
	enum rte_fib_lookup_type type;
	const char *name;
} types[] = {
	{RTE_FIB_LOOKUP_DIR24_8_SCALAR_MACRO, "scalar macro"},
	{RTE_FIB_LOOKUP_DIR24_8_SCALAR_INLINE, "scalar inline"},
	{RTE_FIB_LOOKUP_DIR24_8_VECTOR_AVX512, "AVX-512"},
};

#define LONGEST_BURST 256

static uint64_t pass(void *data, unsigned int variant)
{
	struct table *table = data;
	const unsigned int burst = bursts[variant % RTE_DIM(bursts)];
	uint64_t values[LONGEST_BURST];
	uint64_t sum = 0;

	if (rte_fib_select_lookup(table->fib, types[variant / RTE_DIM(bursts)].type))
		FAIL("rte_fib_select_lookup: no %s", types[variant / RTE_DIM(bursts)].name);
	for (size_t first = 0; first < table->count; first += burst) {
		const size_t left = table->count - first;
		const unsigned int count = left < burst ? (unsigned int)left : burst;

		rte_fib_lookup_bulk(table->fib, table->queries + first, values, (int)count);
		for (unsigned int i = 0; i < count; i++)
			sum += values[i];
	}
	return sum;
}

/* How many networks of 24 bits have a longer prefix in them: each takes a group. */
static uint32_t groups(const struct route *routes, size_t count)
{
	uint8_t *seen = calloc(1 << 24, 1);
	uint32_t groups = 0;

	if (!seen)
		FAIL("no memory for 2^24 marks");
	for (size_t i = 0; i < count; i++) {
		if (routes[i].length > 24 && !seen[routes[i].address >> 8]) {
			seen[routes[i].address >> 8] = 1;
			groups++;
		}
	}
	free(seen);
	return groups;
}

int main(int argc, char **argv)
{
	struct table table;
	size_t count;

	if (argc != 5)
		FAIL("usage: %s CORE huge|ordinary ROUTES QUERIES", argv[0]);
	start(argv[0], argv[1], !strcmp(argv[2], "huge"));

	const struct route *routes = read_all(argv[3], sizeof(*routes), &count);

	table.queries = read_all(argv[4], sizeof(*table.queries), &table.count);

	struct rte_fib_conf configuration = {
		.type = RTE_FIB_DIR24_8,
		.default_nh = MISSED & 0x7fffffff,
		.max_routes = (int)(2 * count),
		.dir24_8 = {.nh_sz = RTE_FIB_DIR24_8_4B, .num_tbl8 = groups(routes, count) + 64},
	};

	table.fib = rte_fib_create("routes", SOCKET_ID_ANY, &configuration);
	if (!table.fib)
		FAIL("rte_fib_create: %s", rte_strerror(rte_errno));
	for (size_t i = 0; i < count; i++) {
		int result = rte_fib_add(table.fib, routes[i].address, (uint8_t)routes[i].length, routes[i].value);

		if (result)
			FAIL("rte_fib_add: prefix %zu of %zu: %s", i, count, rte_strerror(-result));
	}

	const bool wide = !rte_fib_select_lookup(table.fib, types[RTE_DIM(types) - 1].type);
	const unsigned int usable = RTE_DIM(types) - !wide;
	const unsigned int variant = fastest(pass, &table, usable * RTE_DIM(bursts));

	printf("ready DIR24_8, next hops of 4 bytes, look-up %s, burst %u, %zu prefixes, %s pages\n",
	       types[variant / RTE_DIM(bursts)].name, bursts[variant % RTE_DIM(bursts)], count, argv[2]);
	fflush(stdout);
	serve(pass, &table, variant, table.count);
	return 0;
}
