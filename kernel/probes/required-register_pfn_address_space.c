// SPDX-License-Identifier: GPL-2.0-only
/* Memory failure asks where a page frame without a struct page is mapped. */
#include "probe.h"

int probe(struct pfn_address_space *space, int (*locate)(struct vm_area_struct *vma,
							   unsigned long pfn, pgoff_t *pgoff));
int probe(struct pfn_address_space *space, int (*locate)(struct vm_area_struct *vma,
							   unsigned long pfn, pgoff_t *pgoff))
{
	space->pfn_to_vma_pgoff = locate;
	return register_pfn_address_space(space);
}
