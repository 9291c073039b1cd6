/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel runtime's C half: it acts, and decides nothing.
 *
 * Each VFIO operation asks the Rust object (varia_abi.h) what to do, and does it: takes the lock,
 * copies, maps, sleeps. All that it knows of a device comes from there; a module adds a
 * descriptor with names and ids.
 *
 * Locks, outermost first:
 *   mmap_lock            held by the kernel around mmap and page faults
 *   core.memory_lock     vfio-pci-core's; shared around each look at readiness and the act that it
 *                        authorises; never held while sleeping or touching the user's memory
 *   map_lock             makes and drops the kernel's mapping of a region; never held with
 *                        memory_lock
 */
#ifndef VARIA_ADAPTOR_H
#define VARIA_ADAPTOR_H

#include <linux/memory-failure.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/vfio_pci_core.h>

#include "varia_abi.h"

/* The kernel's side of a region of memory. */
struct adaptor_memory {
	/* By map_lock; set until close once set, so that who has it needs no lock. */
	void *address;
	/* By open and close. */
	struct pfn_address_space space;
	bool registered;
};

struct adaptor_device {
	/* First: vfio-pci-core frees what it is embedded in. */
	struct vfio_pci_core_device core;
	/* Set before registration. What changes in it is atomic. */
	struct varia_state *state;
	struct mutex map_lock;
	struct adaptor_memory memory[PCI_STD_NUM_BARS];
	/* By probe and remove. */
	struct dentry *debugfs;
};

static inline struct adaptor_device *adaptor_of(struct vfio_device *vdev)
{
	return container_of(vdev, struct adaptor_device, core.vdev);
}

/* VARIA_REGION_*, and the region if it is memory: then index is below PCI_STD_NUM_BARS. */
static inline int adaptor_region(struct adaptor_device *dev, u64 index,
				 struct varia_region *region)
{
	if (index >= PCI_STD_NUM_BARS)
		return VARIA_REGION_BASE;
	return varia_region(dev->state, index, region);
}

/* device.c */
extern const struct vfio_device_ops adaptor_served_ops;
extern const struct vfio_device_ops adaptor_declined_ops;
extern const struct vfio_pci_device_ops adaptor_pci_ops;

/* ready.c */
int adaptor_wait_unbound(struct pci_dev *pdev, const struct varia_state *state);
int adaptor_lock_ready(struct adaptor_device *dev, struct varia_wait *wait, bool fault);

/* access.c */
ssize_t adaptor_read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos);
ssize_t adaptor_write(struct vfio_device *vdev, const char __user *buf, size_t count,
		      loff_t *ppos);
void adaptor_unmap_memory(struct adaptor_device *dev);

/* config.c */
ssize_t adaptor_config_rw(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos,
			  u32 way);

/* debugfs.c */
void adaptor_show_device(struct adaptor_device *dev, struct dentry *root);

/* mapping.c */
int adaptor_mmap(struct vfio_device *vdev, struct vm_area_struct *vma);
int adaptor_register_pages(struct adaptor_device *dev);
void adaptor_unregister_pages(struct adaptor_device *dev);

#endif /* VARIA_ADAPTOR_H */
