// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device says what a dma-buf of its regions exports.
 * names: get_dmabuf_phys vfio_pci_core_fill_phys_vec p2pdma_provider vfio_pci_device_ops
 */
#include "probe.h"

static int probe(struct vfio_pci_core_device *core, struct p2pdma_provider **provider,
		 unsigned int index, struct phys_vec *phys_vec,
		 struct vfio_region_dma_range *ranges, size_t count)
{
	return vfio_pci_core_fill_phys_vec(phys_vec, ranges, count, 0, 0);
}

const struct vfio_pci_device_ops probe_ops = { .get_dmabuf_phys = probe };
