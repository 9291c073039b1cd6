// SPDX-License-Identifier: GPL-2.0-only
/*
 * vfio-pci-core inserts pages of the order that a fault asks for.
 * names: vfio_pci_vmf_insert_pfn
 * reason: vfio-pci-core exports it in Linux 7.0 and newer, and in NVIDIA's 6.17
 */
#include "probe.h"

vm_fault_t probe(struct vfio_pci_core_device *core, struct vm_fault *vmf);
vm_fault_t probe(struct vfio_pci_core_device *core, struct vm_fault *vmf)
{
	return vfio_pci_vmf_insert_pfn(core, vmf, 0, 9);
}
