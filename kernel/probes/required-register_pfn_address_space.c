// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory failure asks where a page frame without a struct page is mapped.
 * names: linux/memory-failure.h pfn_address_space pfn_to_vma_pgoff register_pfn_address_space
 * reason: pfn address spaces are in Linux 7.0 and newer, and in NVIDIA's 6.17
 */
#include "probe.h"
#include <linux/memory-failure.h>

int probe(struct pfn_address_space *space, int (*locate)(struct vm_area_struct *vma,
							   unsigned long pfn, pgoff_t *pgoff));
int probe(struct pfn_address_space *space, int (*locate)(struct vm_area_struct *vma,
							   unsigned long pfn, pgoff_t *pgoff))
{
	space->pfn_to_vma_pgoff = locate;
	return register_pfn_address_space(space);
}
