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
 *   map_lock             makes and drops the kernel's mapping of a region
 */
#ifndef VARIA_ADAPTOR_H
#define VARIA_ADAPTOR_H

#include <linux/memory-failure.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/vfio_pci_core.h>

#include "varia_abi.h"

/* What makes a module of this adaptor. */
struct adaptor_module {
	/* VARIA_* number of the variant. */
	u32 variant;
	/* For a device that the variant serves: ADAPTOR_SERVED_OPS and a name. */
	const struct vfio_device_ops *served;
	/* For one that it declines: ADAPTOR_DECLINED_OPS and a name. */
	const struct vfio_device_ops *declined;
};

/* The kernel's side of a region of memory. */
struct adaptor_memory {
	/* By map_lock; set until close once set, so that who has it needs no lock. */
	union {
		void *cached;
		void __iomem *uncached;
	};
	/* Open and close. */
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
};

static inline struct adaptor_device *adaptor_of(struct vfio_device *vdev)
{
	return container_of(vdev, struct adaptor_device, core.vdev);
}

/* probe.c */
int adaptor_probe(struct pci_dev *pdev, const struct adaptor_module *module);
void adaptor_remove(struct pci_dev *pdev);
extern const struct pci_error_handlers adaptor_error_handlers;

/* ready.c */
int adaptor_wait_unbound(struct pci_dev *pdev, const struct varia_state *state);
int adaptor_lock_ready(struct adaptor_device *dev, struct varia_wait *wait, bool fault);

/* device.c */
void adaptor_release(struct vfio_device *vdev);
int adaptor_open(struct vfio_device *vdev);
void adaptor_close(struct vfio_device *vdev);
long adaptor_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg);
int adaptor_region_info(struct vfio_device *vdev, struct vfio_region_info *info,
			struct vfio_info_cap *caps);
extern const struct vfio_pci_device_ops adaptor_pci_ops;

/* access.c */
ssize_t adaptor_read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos);
ssize_t adaptor_write(struct vfio_device *vdev, const char __user *buf, size_t count,
		      loff_t *ppos);
void adaptor_unmap_memory(struct adaptor_device *dev);

/* config.c */
ssize_t adaptor_config_read(struct adaptor_device *dev, char __user *buf, size_t count,
			    loff_t *ppos);
ssize_t adaptor_config_write(struct adaptor_device *dev, const char __user *buf, size_t count,
			     loff_t *ppos);

/* mapping.c */
int adaptor_mmap(struct vfio_device *vdev, struct vm_area_struct *vma);
int adaptor_register_pages(struct adaptor_device *dev);
void adaptor_unregister_pages(struct adaptor_device *dev);

/* What a served and a declined device have in common. */
#define ADAPTOR_COMMON_OPS						\
	.init = vfio_pci_core_init_dev,					\
	.release = adaptor_release,					\
	.open_device = adaptor_open,					\
	.close_device = adaptor_close,					\
	.device_feature = vfio_pci_core_ioctl_feature,			\
	.request = vfio_pci_core_request,				\
	.match = vfio_pci_core_match,					\
	.match_token_uuid = vfio_pci_core_match_token_uuid,		\
	.bind_iommufd = vfio_iommufd_physical_bind,			\
	.unbind_iommufd = vfio_iommufd_physical_unbind,			\
	.attach_ioas = vfio_iommufd_physical_attach_ioas,		\
	.detach_ioas = vfio_iommufd_physical_detach_ioas

#define ADAPTOR_SERVED_OPS						\
	ADAPTOR_COMMON_OPS,						\
	.ioctl = adaptor_ioctl,						\
	.get_region_info_caps = adaptor_region_info,			\
	.read = adaptor_read,						\
	.write = adaptor_write,						\
	.mmap = adaptor_mmap

#define ADAPTOR_DECLINED_OPS						\
	ADAPTOR_COMMON_OPS,						\
	.ioctl = vfio_pci_core_ioctl,					\
	.get_region_info_caps = vfio_pci_ioctl_get_region_info,		\
	.read = vfio_pci_core_read,					\
	.write = vfio_pci_core_write,					\
	.mmap = vfio_pci_core_mmap

#endif /* VARIA_ADAPTOR_H */
