/* SPDX-License-Identifier: GPL-2.0-only */
/* What the adaptor includes, so that a probe fails for what it polls for and for nothing else. */
#include <linux/debugfs.h>
#include <linux/io.h>
#include <linux/memory-failure.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pci-p2pdma.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/vfio_pci_core.h>
