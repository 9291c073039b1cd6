/* SPDX-License-Identifier: GPL-2.0-only */
/* Headers that every kernel has, so that a probe fails for its feature alone. */
#include <linux/acpi.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/module.h>
#include <linux/pci.h>
