/* SPDX-License-Identifier: GPL-2.0-only */
/* Headers that every kernel with vfio-pci-core has, so that a probe fails for its feature alone. */
#include <linux/debugfs.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pci-p2pdma.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/vfio_pci_core.h>
