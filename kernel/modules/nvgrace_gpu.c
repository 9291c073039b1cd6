// SPDX-License-Identifier: GPL-2.0-only
/*
 * nvgrace-gpu-vfio-pci: NVIDIA Grace Hopper and Grace Blackwell GPUs.
 *
 * The names are those of the kernel's own driver for these devices, which tools know.
 */
#include <linux/module.h>

#include "adaptor.h"

static const struct vfio_device_ops served = {
	ADAPTOR_SERVED_OPS,
	.name = "nvgrace-gpu-vfio-pci",
};

static const struct vfio_device_ops declined = {
	ADAPTOR_DECLINED_OPS,
	.name = "nvgrace-gpu-vfio-pci-core",
};

static const struct adaptor_module nvgrace_gpu = {
	.variant = VARIA_NVGRACE_GPU,
	.served = &served,
	.declined = &declined,
};

static int nvgrace_gpu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	return adaptor_probe(pdev, &nvgrace_gpu);
}

static const struct pci_device_id nvgrace_gpu_ids[] = {
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2342) }, /* GH200 120GB */
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2345) }, /* GH200 480GB */
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2348) }, /* GH200 */
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2941) }, /* GB200 */
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x31c2) }, /* GB300 */
	{}
};
MODULE_DEVICE_TABLE(pci, nvgrace_gpu_ids);

static struct pci_driver nvgrace_gpu_driver = {
	.name = KBUILD_MODNAME,
	.id_table = nvgrace_gpu_ids,
	.probe = nvgrace_gpu_probe,
	.remove = adaptor_remove,
	.err_handler = &adaptor_error_handlers,
	.driver_managed_dma = true,
};
module_pci_driver(nvgrace_gpu_driver);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("The Varia developers");
MODULE_DESCRIPTION("VFIO PCI driver for NVIDIA GPUs with CPU-coherent memory (Varia)");
