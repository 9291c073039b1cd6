/* SPDX-License-Identifier: GPL-2.0-only */
/* varia-overlay-vfio-pci: the lab's network card, to prove that the adaptor is generic. */
#define ADAPTOR_NAME "varia-overlay-vfio-pci"
#define ADAPTOR_DESCRIPTION "VFIO PCI driver for the lab's network card (Varia)"
#define ADAPTOR_IDS { PCI_DRIVER_OVERRIDE_DEVICE_VFIO(0x1234, 0x0e1c) }
