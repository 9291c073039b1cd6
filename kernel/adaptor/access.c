// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads and writes of a region: the pieces that the variant names, each in bounded chunks.
 *
 * A chunk goes through a bounce buffer, so that the user's memory is never touched under
 * memory_lock: it could be a mapping of the same region, whose fault takes that lock.
 */
#include <linux/io.h>
#include <linux/pm_runtime.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/unaligned.h>

#include "adaptor.h"

#define ADAPTOR_CHUNK SZ_4K

/* One user's access to a region. */
struct adaptor_access {
	struct adaptor_device *dev;
	u32 index;
	u32 way;
	struct varia_wait wait;
	u8 *bounce;
};

/* Maps a region for the kernel, once while the device is open. */
static int adaptor_map_memory(struct adaptor_device *dev, u32 index,
			      const struct varia_region *region)
{
	struct adaptor_memory *memory = &dev->memory[index];
	int ret = 0;

	mutex_lock(&dev->map_lock);
	if (!memory->cached) {
		if (region->memory == VARIA_MEMORY_CACHED)
			memory->cached = memremap(region->base, region->length, MEMREMAP_WB);
		else
			memory->uncached = ioremap_wc(region->base, region->length);
		if (!memory->cached)
			ret = -ENOMEM;
	}
	mutex_unlock(&dev->map_lock);
	return ret;
}

void adaptor_unmap_memory(struct adaptor_device *dev)
{
	struct varia_region region;
	u32 index;

	mutex_lock(&dev->map_lock);
	for (index = 0; index < ARRAY_SIZE(dev->memory); index++) {
		struct adaptor_memory *memory = &dev->memory[index];

		if (!memory->cached ||
		    varia_region(dev->state, index, PAGE_SHIFT, &region) != VARIA_REGION_MEMORY)
			continue;
		if (region.memory == VARIA_MEMORY_CACHED)
			memunmap(memory->cached);
		else
			iounmap(memory->uncached);
		memory->cached = NULL;
	}
	mutex_unlock(&dev->map_lock);
}

/* Uncached memory is accessed in the widths that the variant names. */
static void adaptor_copy_uncached(void __iomem *io, u64 at, u8 *data, u64 len, u32 way)
{
	u64 width;

	for (; len; io += width, at += width, data += width, len -= width) {
		width = varia_width(at, len);
		switch (width) {
		case 8:
			if (way == VARIA_READ)
				put_unaligned_le64(readq(io), data);
			else
				writeq(get_unaligned_le64(data), io);
			break;
		case 4:
			if (way == VARIA_READ)
				put_unaligned_le32(readl(io), data);
			else
				writel(get_unaligned_le32(data), io);
			break;
		case 2:
			if (way == VARIA_READ)
				put_unaligned_le16(readw(io), data);
			else
				writew(get_unaligned_le16(data), io);
			break;
		default:
			if (way == VARIA_READ)
				*data = readb(io);
			else
				writeb(*data, io);
			width = 1;
		}
	}
}

/* Between the bounce buffer and memory, once the device is ready. */
static int adaptor_copy_memory(struct adaptor_access *access, const struct varia_segment *segment,
			       u64 len)
{
	struct adaptor_device *dev = access->dev;
	struct adaptor_memory *memory = &dev->memory[access->index];
	struct varia_region region;
	u64 offset;
	int ret;

	ret = varia_region(dev->state, access->index, PAGE_SHIFT, &region);
	if (ret != VARIA_REGION_MEMORY)
		return ret < 0 ? ret : -ENXIO;
	ret = adaptor_map_memory(dev, access->index, &region);
	if (ret)
		return ret;
	offset = segment->at - region.base;

	ret = adaptor_lock_ready(dev, &access->wait, false);
	if (ret)
		return ret;
	if (segment->memory != VARIA_MEMORY_CACHED)
		adaptor_copy_uncached(memory->uncached + offset, segment->at, access->bounce, len,
				      access->way);
	else if (access->way == VARIA_READ)
		memcpy(access->bounce, memory->cached + offset, len);
	else
		memcpy(memory->cached + offset, access->bounce, len);
	up_read(&dev->core.memory_lock);
	return 0;
}

/* Serves up to `room` bytes of a segment; returns how many, or a negative errno. */
static ssize_t adaptor_step(struct adaptor_access *access, const struct varia_segment *segment,
			    char __user *buf)
{
	u64 len = min_t(u64, segment->len, ADAPTOR_CHUNK);
	int ret;

	switch (segment->kind) {
	case VARIA_SEGMENT_MEMORY:
		if (access->way == VARIA_WRITE && copy_from_user(access->bounce, buf, len))
			return -EFAULT;
		ret = adaptor_copy_memory(access, segment, len);
		if (ret)
			return ret;
		break;
	case VARIA_SEGMENT_ONES:
		memset(access->bounce, 0xff, len);
		break;
	case VARIA_SEGMENT_DROP:
		return segment->len;
	default:
		return -EIO;
	}
	if (access->way == VARIA_READ && copy_to_user(buf, access->bounce, len))
		return -EFAULT;
	return len;
}

static ssize_t adaptor_steps(struct adaptor_access *access, char __user *buf, u64 offset,
			     u64 count)
{
	struct varia_segment segment;
	u64 done = 0;
	ssize_t ret;

	while (done < count) {
		ret = varia_segment(access->dev->state, access->index, access->way, offset + done,
				    count - done, &segment);
		if (ret)
			return ret;
		ret = adaptor_step(access, &segment, buf + done);
		if (ret <= 0)
			return ret ?: -EIO;
		done += ret;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return count;
}

/* A read or write of memory. The file position moves only by a whole success. */
static ssize_t adaptor_memory_rw(struct adaptor_device *dev, u32 index, char __user *buf,
				 size_t count, loff_t *ppos, u32 way)
{
	struct adaptor_access access = { .dev = dev, .index = index, .way = way };
	u64 offset = *ppos & VFIO_PCI_OFFSET_MASK;
	struct varia_begin begin;
	ssize_t ret;

	ret = varia_begin(dev->state, index, way, offset, count, &begin);
	if (ret)
		return ret;
	if (begin.needs_ready) {
		ret = adaptor_lock_ready(dev, &access.wait, false);
		if (ret)
			return ret;
		up_read(&dev->core.memory_lock);
	}
	if (!begin.count)
		return 0;

	access.bounce = kmalloc(min_t(u64, begin.count, ADAPTOR_CHUNK), GFP_KERNEL);
	if (!access.bounce)
		return -ENOMEM;
	ret = adaptor_steps(&access, buf, offset, begin.count);
	kfree(access.bounce);
	if (ret > 0)
		*ppos += ret;
	return ret;
}

/* VARIA_REGION_*, or a negative errno. */
static int adaptor_serves(struct adaptor_device *dev, unsigned int index)
{
	struct varia_region region;

	if (index >= ARRAY_SIZE(dev->memory))
		return VARIA_REGION_BASE;
	return varia_region(dev->state, index, PAGE_SHIFT, &region);
}

static ssize_t adaptor_resumed_rw(struct adaptor_device *dev, u32 index, char __user *buf,
				  size_t count, loff_t *ppos, u32 way)
{
	struct device *parent = &dev->core.pdev->dev;
	ssize_t ret;

	if (pm_runtime_resume_and_get(parent))
		return -EIO;
	ret = adaptor_memory_rw(dev, index, buf, count, ppos, way);
	pm_runtime_put(parent);
	return ret;
}

ssize_t adaptor_read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos)
{
	unsigned int index = VFIO_PCI_OFFSET_TO_INDEX(*ppos);
	struct adaptor_device *dev = adaptor_of(vdev);
	int ret = adaptor_serves(dev, index);

	if (ret < 0)
		return ret;
	if (ret == VARIA_REGION_MEMORY)
		return adaptor_resumed_rw(dev, index, buf, count, ppos, VARIA_READ);
	if (index == VFIO_PCI_CONFIG_REGION_INDEX)
		return adaptor_config_read(dev, buf, count, ppos);
	return vfio_pci_core_read(vdev, buf, count, ppos);
}

ssize_t adaptor_write(struct vfio_device *vdev, const char __user *buf, size_t count,
		      loff_t *ppos)
{
	unsigned int index = VFIO_PCI_OFFSET_TO_INDEX(*ppos);
	struct adaptor_device *dev = adaptor_of(vdev);
	int ret = adaptor_serves(dev, index);

	if (ret < 0)
		return ret;
	if (ret == VARIA_REGION_MEMORY)
		return adaptor_resumed_rw(dev, index, (char __user *)buf, count, ppos,
					  VARIA_WRITE);
	if (index == VFIO_PCI_CONFIG_REGION_INDEX)
		return adaptor_config_write(dev, buf, count, ppos);
	return vfio_pci_core_write(vdev, buf, count, ppos);
}
