/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * DPDK's hash table as a table of connections: rte_hash CORE huge|ordinary KEYS QUERIES
 *
 * KEYS and QUERIES are files of keys of 16 bytes. The value of a key is its place in KEYS.
 */
#include "peer.h"

#include <rte_hash.h>
#include <rte_hash_crc.h>

#define KEY 16

struct table {
	struct rte_hash *hash;
	const uint8_t *queries;
	size_t count;
};

static const unsigned int bursts[] = {32, 64};

/* Variants: the burst, and whether the table calls the hash function or the caller does, where it is inlined. */
#define VARIANTS (2 * RTE_DIM(bursts))

static uint64_t pass(void *data, unsigned int variant)
{
	const struct table *table = data;
	const unsigned int burst = bursts[variant / 2];
	const bool inlined = variant % 2;
	const void *keys[RTE_HASH_LOOKUP_BULK_MAX];
	hash_sig_t signatures[RTE_HASH_LOOKUP_BULK_MAX];
	void *values[RTE_HASH_LOOKUP_BULK_MAX];
	uint64_t sum = 0;

	for (size_t first = 0; first < table->count; first += burst) {
		const size_t left = table->count - first;
		const unsigned int count = left < burst ? (unsigned int)left : burst;
		uint64_t hits = 0;

		for (unsigned int i = 0; i < count; i++)
			keys[i] = table->queries + (first + i) * KEY;
		if (inlined) {
			for (unsigned int i = 0; i < count; i++)
				signatures[i] = rte_hash_crc(keys[i], KEY, 0);
			rte_hash_lookup_with_hash_bulk_data(table->hash, keys, signatures, count, &hits, values);
		} else {
			rte_hash_lookup_bulk_data(table->hash, keys, count, &hits, values);
		}
		for (unsigned int i = 0; i < count; i++)
			sum += hits >> i & 1 ? (uint32_t)(uintptr_t)values[i] : MISSED;
	}
	return sum;
}

int main(int argc, char **argv)
{
	struct table table;
	size_t entries;

	if (argc != 5)
		FAIL("usage: %s CORE huge|ordinary KEYS QUERIES", argv[0]);
	start(argv[0], argv[1], !strcmp(argv[2], "huge"));

	const uint8_t *keys = read_all(argv[3], KEY, &entries);

	table.queries = read_all(argv[4], KEY, &table.count);

	struct rte_hash_parameters parameters = {
		.name = "connections",
		/* Twice the keys, as many slots as the other side has for a power of two. */
		.entries = (uint32_t)(2 * entries),
		.key_len = KEY,
		.hash_func = rte_hash_crc,
		.hash_func_init_val = 0,
		.socket_id = SOCKET_ID_ANY,
	};

	table.hash = rte_hash_create(&parameters);
	if (!table.hash)
		FAIL("rte_hash_create: %s", rte_strerror(rte_errno));
	for (size_t i = 0; i < entries; i++) {
		if (rte_hash_add_key_data(table.hash, keys + i * KEY, (void *)(uintptr_t)i))
			FAIL("rte_hash_add_key_data: key %zu of %zu finds no room", i, entries);
	}

	const unsigned int variant = fastest(pass, &table, VARIANTS);

	printf("ready rte_hash_crc %s, burst %u, %u entries for %zu keys, %s pages\n",
	       variant % 2 ? "inlined, rte_hash_lookup_with_hash_bulk_data" : "by rte_hash_lookup_bulk_data",
	       bursts[variant / 2], parameters.entries, entries, argv[2]);
	fflush(stdout);
	serve(pass, &table, variant, table.count);
	return 0;
}
