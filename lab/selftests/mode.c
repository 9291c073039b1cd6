// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lets the environment choose the IOMMU interface of those VFIO selftests that take the default
 * one, which is iommufd: Debian's kernels have type1 only.
 */
#include <stdlib.h>

extern const char *default_iommu_mode;

static void __attribute__((constructor)) choose_mode(void)
{
	const char *mode = getenv("VARIA_IOMMU_MODE");

	if (mode)
		default_iommu_mode = mode;
}
