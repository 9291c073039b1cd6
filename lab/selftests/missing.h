/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What Linux 7.2.12's VFIO selftests use and do not define: memory that is cleared, or the end
 * of the test.
 */
#include <stdio.h>
#include <stdlib.h>

#ifndef calloc_assert
static inline void *varia_calloc_assert(size_t count, size_t size)
{
	void *memory = calloc(count, size);

	if (!memory) {
		fprintf(stderr, "no memory for %zu times %zu bytes\n", count, size);
		exit(1);
	}
	return memory;
}
#define calloc_assert varia_calloc_assert
#endif
