/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C half of the kernel runtime: it acts, and decides nothing.
 *
 * Each VFIO operation asks the Rust object (varia_abi.h) for a decision and carries the decision
 * out: takes the lock, copies, maps, sleeps. All knowledge of a device comes from the Rust object;
 * a module adds a descriptor with names and ids.
 *
 * Locks, outermost first:
 *   mmap_lock            held by the kernel around mmap and page faults
 *   core.memory_lock     vfio-pci-core's; shared around each poll of the readiness registers and
 *                        the act that the poll authorises; never held while sleeping or taking a
 *                        fault in the user's memory
 * The adaptor has no lock of its own.
 */
#ifndef VARIA_ADAPTOR_H
#define VARIA_ADAPTOR_H

#include <linux/memory-failure.h>
#include <linux/pci.h>
#include <linux/vfio_pci_core.h>

#include "varia_abi.h"
#include "varia_probes.h"

/* Rust splits a file position into region index and offset. */
static_assert(VFIO_PCI_OFFSET_SHIFT == VARIA_OFFSET_SHIFT);

/* The kernel's side of a region of memory. */
struct adaptor_memory {
	/* Atomic; set until close once set. */
	void *address;
	/* By open and close; registered while it has a mapping. */
	struct pfn_address_space space;
	/* By open and close: the claim on the memory. */
	struct resource *claim;
};

struct adaptor_device {
	/* First member: VFIO frees the structure that contains it. */
	struct vfio_pci_core_device core;
	/* Set before registration. Members that change are atomic. */
	struct varia_state *state;
	/* By open and close. */
	void __iomem *bar0;
	struct adaptor_memory memory[VARIA_REGIONS];
};

static inline struct adaptor_device *adaptor_of(struct vfio_device *vdev)
{
	return container_of(vdev, struct adaptor_device, core.vdev);
}

/* device.c */
extern const struct vfio_device_ops adaptor_ops[];
extern const struct vfio_pci_device_ops adaptor_pci_ops;

/* ready.c */
int adaptor_wait_unbound(struct pci_dev *pdev, const struct varia_state *state);
int adaptor_lock_once(struct adaptor_device *dev, struct varia_wait *wait, bool fault);
int adaptor_lock_ready(struct adaptor_device *dev, struct varia_wait *wait, bool fault);

/* Usual case of adaptor_lock_ready, without sample and wait; returns true with the lock held. */
static __always_inline bool adaptor_lock_if_ready(struct adaptor_device *dev, bool fault)
{
	if (down_read_killable(&dev->core.memory_lock))
		return false;
	if (varia_ready_now(dev->state, fault && dev->core.pm_runtime_engaged))
		return true;
	up_read(&dev->core.memory_lock);
	return false;
}

/* access.c */
ssize_t adaptor_read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos);
ssize_t adaptor_write(struct vfio_device *vdev, const char __user *buf, size_t count, loff_t *ppos);

/* debugfs.c */
#ifdef CONFIG_DEBUG_FS
void adaptor_show_device(struct adaptor_device *dev, struct dentry *root);
#else
static inline void adaptor_show_device(struct adaptor_device *dev, struct dentry *root)
{
}
#endif

/* mapping.c */
int adaptor_mmap(struct vfio_device *vdev, struct vm_area_struct *vma);
int adaptor_claim_memory(struct adaptor_device *dev);
int adaptor_register_pages(struct adaptor_device *dev);
void adaptor_drop_memory(struct adaptor_device *dev);

#endif /* VARIA_ADAPTOR_H */
