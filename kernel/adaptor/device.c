// SPDX-License-Identifier: GPL-2.0-only
/*
 * Open, close, ioctls and region info of a device.
 */
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>

#include "adaptor.h"

void adaptor_release(struct vfio_device *vdev)
{
	struct adaptor_device *dev = adaptor_of(vdev);

	mutex_destroy(&dev->map_lock);
	kfree(dev->state);
	vfio_pci_core_release_dev(vdev);
}

int adaptor_open(struct vfio_device *vdev)
{
	struct adaptor_device *dev = adaptor_of(vdev);
	int ret;

	ret = vfio_pci_core_enable(&dev->core);
	if (ret)
		return ret;

	varia_opened(dev->state);
	if (varia_needs_bar0(dev->state)) {
		ret = PTR_ERR_OR_ZERO(vfio_pci_core_get_iomap(&dev->core, 0));
		if (ret)
			goto disable;
	}
	ret = adaptor_register_pages(dev);
	if (ret)
		goto disable;

	vfio_pci_core_finish_enable(&dev->core);
	return 0;

disable:
	vfio_pci_core_disable(&dev->core);
	return ret;
}

void adaptor_close(struct vfio_device *vdev)
{
	struct adaptor_device *dev = adaptor_of(vdev);

	adaptor_unregister_pages(dev);
	adaptor_unmap_memory(dev);
	vfio_pci_core_close_device(vdev);
}

long adaptor_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg)
{
	struct adaptor_device *dev = adaptor_of(vdev);
	int ret;

	switch (cmd) {
	case VFIO_DEVICE_IOEVENTFD:
		ret = varia_ioeventfd(dev->state);
		if (ret)
			return ret;
		break;
	case VFIO_DEVICE_RESET:
		varia_reset_requested(dev->state);
		break;
	}
	return vfio_pci_core_ioctl(vdev, cmd, arg);
}

int adaptor_region_info(struct vfio_device *vdev, struct vfio_region_info *info,
			struct vfio_info_cap *caps)
{
	DEFINE_RAW_FLEX(struct vfio_region_info_cap_sparse_mmap, sparse, areas, 1);
	struct varia_region region;
	int ret;

	ret = varia_region(adaptor_of(vdev)->state, info->index, PAGE_SHIFT, &region);
	if (ret < 0)
		return ret;
	if (ret == VARIA_REGION_BASE)
		return vfio_pci_ioctl_get_region_info(vdev, info, caps);

	sparse->header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
	sparse->header.version = 1;
	sparse->nr_areas = 1;
	sparse->areas[0].offset = region.mappable_offset;
	sparse->areas[0].size = region.mappable_length;
	ret = vfio_info_add_capability(caps, &sparse->header, struct_size(sparse, areas, 1));
	if (ret)
		return ret;

	info->offset = VFIO_PCI_INDEX_TO_OFFSET(info->index);
	info->size = region.size;
	info->flags = region.flags;
	return 0;
}

/*
 * What a dma-buf of a region exports. There are providers for BARs only; memory outside them is
 * reached through the same function, so the provider of BAR0 stands for it.
 */
static int adaptor_dmabuf_phys(struct vfio_pci_core_device *core,
			       struct p2pdma_provider **provider, unsigned int index,
			       struct phys_vec *phys_vec,
			       struct vfio_region_dma_range *ranges, size_t count)
{
	struct varia_region region;
	int ret;

	ret = varia_region(adaptor_of(&core->vdev)->state, index, PAGE_SHIFT, &region);
	if (ret < 0)
		return ret;
	if (ret == VARIA_REGION_BASE)
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
