// SPDX-License-Identifier: GPL-2.0-only
/*
 * Open, close, ioctls and region info of a device, and its table of operations.
 */
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>

#include "adaptor.h"
#include "descriptor.h"

/*
 * Maps BAR0 for the polls of an open device: kernels differ in when vfio-pci-core maps a BAR, and in
 * how a driver gets at that mapping. A BAR that vfio-pci-core could not claim fails the open.
 */
static int adaptor_map_bar0(struct adaptor_device *dev)
{
	int ret = PTR_ERR_OR_ZERO((__force void *)dev->core.barmap[0]);

	if (ret)
		return ret;
	dev->bar0 = pci_iomap(dev->core.pdev, 0, 0);
	return dev->bar0 ? 0 : -ENOMEM;
}

static void adaptor_unmap_bar0(struct adaptor_device *dev)
{
	if (dev->bar0)
		pci_iounmap(dev->core.pdev, dev->bar0);
	dev->bar0 = NULL;
}

static void adaptor_release(struct vfio_device *vdev)
{
	kfree(adaptor_of(vdev)->state);
	vfio_pci_core_release_dev(vdev);
}

static int adaptor_open(struct vfio_device *vdev)
{
	struct adaptor_device *dev = adaptor_of(vdev);
	int ret;

	ret = vfio_pci_core_enable(&dev->core);
	if (ret)
		return ret;
	varia_opened(dev->state);
	if (varia_needs_bar0(dev->state))
		ret = adaptor_map_bar0(dev);
	ret = ret ?: adaptor_claim_memory(dev) ?: adaptor_register_pages(dev);
	if (!ret) {
		vfio_pci_core_finish_enable(&dev->core);
		return 0;
	}
	adaptor_drop_memory(dev);
	adaptor_unmap_bar0(dev);
	vfio_pci_core_disable(&dev->core);
	varia_count(dev->state, VARIA_COUNT_OPEN_FAILED);
	return ret;
}

static void adaptor_close(struct vfio_device *vdev)
{
	struct adaptor_device *dev = adaptor_of(vdev);

	/* the claim lasts until the device and importers of its memory reach the memory no more */
	vfio_pci_core_close_device(vdev);
	adaptor_drop_memory(dev);
	adaptor_unmap_bar0(dev);
	varia_count(dev->state, VARIA_COUNT_CLOSED);
}

static long adaptor_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg)
{
	return varia_ioctl(adaptor_of(vdev)->state, cmd) ?: vfio_pci_core_ioctl(vdev, cmd, arg);
}

static int adaptor_region_info(struct vfio_device *vdev, struct vfio_region_info *info,
			       struct vfio_info_cap *caps)
{
	struct varia_region region;

	if (!varia_region(adaptor_of(vdev)->state, info->index, &region))
		return vfio_pci_ioctl_get_region_info(vdev, info, caps);

	info->offset = VFIO_PCI_INDEX_TO_OFFSET(info->index);
	info->size = region.size;
	info->flags = region.flags;
	return vfio_info_add_capability(caps, (void *)&region.sparse, sizeof(region.sparse));
}

#ifdef ADAPTOR_HAS_GET_DMABUF_PHYS
/*
 * Pages that a dma-buf of a region exports. Only BARs have providers; memory outside the BARs
 * belongs to the same function, so the provider of BAR0 is used.
 */
static int adaptor_dmabuf_phys(struct vfio_pci_core_device *core,
			       struct p2pdma_provider **provider, unsigned int index,
			       struct phys_vec *phys_vec,
			       struct vfio_region_dma_range *ranges, size_t count)
{
	struct varia_region region;

	if (!varia_region(adaptor_of(&core->vdev)->state, index, &region))
		return vfio_pci_core_get_dmabuf_phys(core, provider, index, phys_vec, ranges,
						     count);
	*provider = pcim_p2pdma_provider(core->pdev, 0);
	if (!*provider)
		return -EINVAL;
	return vfio_pci_core_fill_phys_vec(phys_vec, ranges, count, region.base, region.length);
}

const struct vfio_pci_device_ops adaptor_pci_ops = {
	.get_dmabuf_phys = adaptor_dmabuf_phys,
};
#endif

/* A variant that declines a device is transparent, so the tables differ in their name alone. */
#define ADAPTOR_OPS							\
	.init = vfio_pci_core_init_dev,					\
	.release = adaptor_release,					\
	.open_device = adaptor_open,					\
	.close_device = adaptor_close,					\
	.ioctl = adaptor_ioctl,						\
	.get_region_info_caps = adaptor_region_info,			\
	.device_feature = vfio_pci_core_ioctl_feature,			\
	.read = adaptor_read,						\
	.write = adaptor_write,						\
	.mmap = adaptor_mmap,						\
	.request = vfio_pci_core_request,				\
	.match = vfio_pci_core_match,					\
	.match_token_uuid = vfio_pci_core_match_token_uuid,		\
	.bind_iommufd = vfio_iommufd_physical_bind,			\
	.unbind_iommufd = vfio_iommufd_physical_unbind,			\
	.attach_ioas = vfio_iommufd_physical_attach_ioas,		\
	.detach_ioas = vfio_iommufd_physical_detach_ioas

const struct vfio_device_ops adaptor_ops[] = {
	[VARIA_OUTCOME_SERVE] = { .name = ADAPTOR_NAME, ADAPTOR_OPS },
	[VARIA_OUTCOME_DECLINE] = { .name = ADAPTOR_NAME "-core", ADAPTOR_OPS },
};
