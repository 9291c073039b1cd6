/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * nvgrace-gpu-vfio-pci: NVIDIA GPUs with CPU-coherent memory.
 *
 * The names are those of the kernel's own driver for these devices, which tools know. The ids are
 * those of spec/src/nvidia/chip.rs: rendered by a test of the crate in variants, do not edit.
 */
#define ADAPTOR_DESCRIPTION "VFIO PCI driver for NVIDIA GPUs with CPU-coherent memory (Varia)"
#define ADAPTOR_NAME "nvgrace-gpu-vfio-pci"

/* Ids that no released kernel lists: built in with UNRELEASED_IDS=y (build.sh). */
#ifdef ADAPTOR_UNRELEASED_IDS
#define ADAPTOR_IDS_UNRELEASED \
	, \
	/* Vera Rubin */ \
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x3041) } \
	, \
	/* Vera Rubin (physical function) */ \
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x307f) }
#else
#define ADAPTOR_IDS_UNRELEASED
#endif

#define ADAPTOR_IDS \
	/* GH100 [GH200 120GB / 480GB] */ \
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2342) }, \
	/* GH100 [GH200 480GB] */ \
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2345) }, \
	/* GH100 [GH200 144G HBM3e] */ \
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2348) }, \
	/* GB100 [HGX GB200] */ \
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2941) }, \
	/* GB110 [GB300] */ \
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x31c2) } \
	ADAPTOR_IDS_UNRELEASED
