/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the peers made of DPDK's libraries have in common: their start, their input, and how they are told to measure.
 *
 * A peer answers on its standard output, line by line:
 *
 *     ready SETTINGS                       once, when its table is filled
 *     NANOSECONDS COUNT CHECKSUM           to each `run MILLISECONDS` on its standard input
 *
 * NANOSECONDS of this thread's processor time for COUNT look-ups, whole passes over all queries until MILLISECONDS are
 * over; CHECKSUM is the sum of what one pass finds, modulo 2^64. It ends at the end of its input.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_common.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_memory.h>

/* Ends with a message, which the harness shows. */
#define FAIL(...)                                                                                                  \
	do {                                                                                                       \
		fprintf(stderr, __VA_ARGS__);                                                                      \
		fputc('\n', stderr);                                                                               \
		exit(1);                                                                                           \
	} while (0)

/* What a look-up that finds nothing adds to the checksum: no value of a table is that large. */
#define MISSED 0xffffffffu

static uint64_t thread_nanos(void)
{
	struct timespec time;

	if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time))
		FAIL("clock_gettime: %m");
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Reads a whole file of elements of `size` bytes. */
static void *read_all(const char *path, size_t size, size_t *count)
{
	FILE *file = fopen(path, "rb");
	long bytes;
	void *content;

	if (!file || fseek(file, 0, SEEK_END) || (bytes = ftell(file)) < 0 || fseek(file, 0, SEEK_SET))
		FAIL("%s: %m", path);
	if (bytes == 0 || (size_t)bytes % size)
		FAIL("%s: %ld bytes are no whole number of elements of %zu", path, bytes, size);
	if (posix_memalign(&content, 64, (size_t)bytes))
		FAIL("no memory for %s", path);
	if (fread(content, 1, (size_t)bytes, file) != (size_t)bytes)
		FAIL("%s: cannot be read whole", path);
	fclose(file);
	*count = (size_t)bytes / size;
	return content;
}

/* Starts DPDK on one core, on huge pages unless told otherwise. */
static void start(char *program, char *core, bool huge)
{
	/* It takes the widest vectors only when told to. */
	char *on_huge[] = {program, "-l", core, "--no-pci", "--no-telemetry", "--log-level=error",
			   "--force-max-simd-bitwidth=512", "--in-memory"};
	char *ordinary[] = {program, "-l", core, "--no-pci", "--no-telemetry", "--log-level=error",
			    "--force-max-simd-bitwidth=512", "--no-huge", "--no-shconf", "-m", "1024"};
	int result = huge ? rte_eal_init(RTE_DIM(on_huge), on_huge) : rte_eal_init(RTE_DIM(ordinary), ordinary);

	if (result < 0)
		FAIL("rte_eal_init: %s", rte_strerror(rte_errno));
}

/* One pass over all queries; returns the sum of what it finds. */
typedef uint64_t (*pass_fn)(void *table, unsigned int variant);

struct measured {
	uint64_t nanos;
	uint64_t passes;
	uint64_t checksum;
};

static struct measured measure(pass_fn pass, void *table, unsigned int variant, uint64_t milliseconds)
{
	struct measured all = {0};
	uint64_t from = thread_nanos();

	do {
		all.checksum = pass(table, variant);
		all.passes++;
		all.nanos = thread_nanos() - from;
	} while (all.nanos < milliseconds * 1000000u);
	return all;
}

/* Tries each variant twice, in turns, and returns the fastest: settings are the peer's to choose, and its best count. */
static unsigned int fastest(pass_fn pass, void *table, unsigned int variants)
{
	unsigned int best = 0;
	double least = 0;

	for (unsigned int turn = 0; turn < 2 * variants; turn++) {
		struct measured found = measure(pass, table, turn % variants, 50);
		double cost = (double)found.nanos / (double)found.passes;

		if (turn == 0 || cost < least) {
			least = cost;
			best = turn % variants;
		}
	}
	return best;
}

/* Does as it is told until its input ends. */
static void serve(pass_fn pass, void *table, unsigned int variant, size_t queries)
{
	char line[64];
	unsigned long milliseconds;

	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "run %lu", &milliseconds) != 1)
			FAIL("expected `run MILLISECONDS`, not %s", line);
		struct measured found = measure(pass, table, variant, milliseconds);

		printf("%lu %lu %lu\n", found.nanos, found.passes * queries, found.checksum);
		fflush(stdout);
	}
}
