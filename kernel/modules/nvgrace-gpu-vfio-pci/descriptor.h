/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * nvgrace-gpu-vfio-pci: NVIDIA Grace Hopper and Grace Blackwell GPUs.
 *
 * The names are those of the kernel's own driver for these devices, which tools know.
 */
#define ADAPTOR_NAME "nvgrace-gpu-vfio-pci"
#define ADAPTOR_DESCRIPTION "VFIO PCI driver for NVIDIA GPUs with CPU-coherent memory (Varia)"

/* GH200 120GB, GH200 480GB, GH200, GB200, GB300 */
#define ADAPTOR_IDS							\
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2342) }, \
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2345) }, \
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2348) }, \
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2941) }, \
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x31c2) }
