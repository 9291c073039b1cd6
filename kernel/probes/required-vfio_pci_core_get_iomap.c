// SPDX-License-Identifier: GPL-2.0-only
/* vfio-pci-core maps a BAR for its drivers, and gives the mapping. */
#include "probe.h"

void __iomem *probe(struct vfio_pci_core_device *core);
void __iomem *probe(struct vfio_pci_core_device *core)
{
	return vfio_pci_core_get_iomap(core, 0);
}
