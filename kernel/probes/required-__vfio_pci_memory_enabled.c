// SPDX-License-Identifier: GPL-2.0-only
/*
 * vfio-pci-core tells whether memory is enabled.
 * names: __vfio_pci_memory_enabled
 * reason: vfio-pci-core exports it in Linux 7.0 and newer, and in NVIDIA's 6.17
 */
#include "probe.h"

bool probe(struct vfio_pci_core_device *core);
bool probe(struct vfio_pci_core_device *core)
{
	return __vfio_pci_memory_enabled(core);
}
