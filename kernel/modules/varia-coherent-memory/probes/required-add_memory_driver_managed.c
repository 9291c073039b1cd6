// SPDX-License-Identifier: GPL-2.0-only
/*
 * The GPU's memory becomes memory of the kernel.
 * names: add_memory_driver_managed offline_and_remove_memory
 * reason: memory that a driver adds and removes is in Linux 5.10 and newer with CONFIG_MEMORY_HOTPLUG
 */
#include "probe.h"

int probe(u64 start, u64 size);
int probe(u64 start, u64 size)
{
	int ret = add_memory_driver_managed(0, start, size, "System RAM (varia)", MHP_NONE);

	return ret ?: offline_and_remove_memory(start, size);
}
