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
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/unaligned.h>

#include "adaptor.h"

/* One user's access to a region. */
struct adaptor_access {
	struct adaptor_device *dev;
	struct varia_region region;
	u32 index;
	u32 way;
	struct varia_wait wait;
	u8 *bounce;
};

/* Maps a region for the kernel, once while the device is open. */
static int adaptor_map_memory(struct adaptor_access *access)
{
	struct adaptor_memory *memory = &access->dev->memory[access->index];
	const struct varia_region *region = &access->region;

	guard(mutex)(&access->dev->map_lock);
	if (!memory->address)
		memory->address = memremap(region->base, region->length,
					   region->memory == VARIA_MEMORY_CACHED ? MEMREMAP_WB :
										   MEMREMAP_WC);
	else
		return 0;
	if (memory->address)
		varia_count(access->dev->state, VARIA_COUNT_MEMORY_MAPPED);
	return memory->address ? 0 : -ENOMEM;
}

void adaptor_unmap_memory(struct adaptor_device *dev)
{
	int i;

	guard(mutex)(&dev->map_lock);
	for (i = 0; i < PCI_STD_NUM_BARS; i++)
		if (dev->memory[i].address) {
			memunmap(dev->memory[i].address);
			dev->memory[i].address = NULL;
			varia_count(dev->state, VARIA_COUNT_MEMORY_UNMAPPED);
		}
}

#define ADAPTOR_MOVE(bits, get, put)					\
	do {								\
		if (read)						\
			put_unaligned_le##bits(get(io), data);		\
		else							\
			put(get_unaligned_le##bits(data), io);		\
	} while (0)

/* Uncached memory is accessed in the widths that the variant names. */
static void adaptor_copy_uncached(void __iomem *io, u64 at, u8 *data, u64 len, bool read)
{
	u64 width;

	for (; len; io += width, at += width, data += width, len -= width) {
		width = varia_width(at, len);
		if (width == 8)
			ADAPTOR_MOVE(64, readq, writeq);
		else if (width == 4)
			ADAPTOR_MOVE(32, readl, writel);
		else if (width == 2)
			ADAPTOR_MOVE(16, readw, writew);
		else if (read)
			*data = readb(io);
		else
			writeb(*data, io);
	}
}

/* Between the bounce buffer and memory that is mapped, once the device is ready. */
static int adaptor_copy_memory(struct adaptor_access *access, const struct varia_segment *segment)
{
	u64 len = segment->len;
	void *at = access->dev->memory[access->index].address +
		   (segment->at - access->region.base);
	bool read = access->way == VARIA_READ;
	int ret;

	ret = adaptor_lock_ready(access->dev, &access->wait, false);
	if (ret)
		return ret;
	if (segment->memory == VARIA_MEMORY_CACHED)
		memcpy(read ? access->bounce : at, read ? at : access->bounce, len);
	else
		adaptor_copy_uncached((void __force __iomem *)at, segment->at, access->bounce, len,
				      read);
	varia_count(access->dev->state, VARIA_COUNT_COPIED);
	up_read(&access->dev->core.memory_lock);
	return 0;
}

/* Serves the beginning of a segment; returns how many bytes, or a negative errno. */
static ssize_t adaptor_step(struct adaptor_access *access, const struct varia_segment *segment,
			    char __user *buf)
{
	u64 len = segment->len;
	int ret;

	if (segment->kind == VARIA_SEGMENT_DROP)
		return len;
	if (segment->kind == VARIA_SEGMENT_ONES) {
		memset(access->bounce, 0xff, len);
	} else {
		ret = adaptor_map_memory(access);
		if (ret)
			return ret;
		if (access->way == VARIA_WRITE && copy_from_user(access->bounce, buf, len))
			return -EFAULT;
		ret = adaptor_copy_memory(access, segment);
		if (ret)
			return ret;
	}
	if (access->way == VARIA_READ && copy_to_user(buf, access->bounce, len))
		return -EFAULT;
	return len;
}

static ssize_t adaptor_steps(struct adaptor_access *access, char __user *buf, u64 offset,
			     u64 count)
{
	struct varia_segment segment;
	ssize_t ret;
	u64 done;

	for (done = 0; done < count; done += ret) {
		ret = varia_segment(access->dev->state, access->index, access->way, offset + done,
				    count - done, &segment);
		if (!ret)
			ret = adaptor_step(access, &segment, buf + done);
		if (ret >= 0 && fatal_signal_pending(current))
			ret = -EINTR;
		if (ret < 0)
			return ret;
		cond_resched();
	}
	return count;
}

/* A read or write of memory. The file position moves only by a whole success. */
static ssize_t adaptor_memory_rw(struct adaptor_access *access, char __user *buf, size_t count,
				 loff_t *ppos)
{
	u64 offset = *ppos & VFIO_PCI_OFFSET_MASK;
	struct varia_begin begin;
	ssize_t ret;

	ret = varia_begin(access->dev->state, access->index, access->way, offset, count, &begin);
	if (ret)
		return ret;
	if (begin.needs_ready) {
		ret = adaptor_lock_ready(access->dev, &access->wait, false);
		if (ret)
			goto ended;
		varia_count(access->dev->state, VARIA_COUNT_CHECKED);
		up_read(&access->dev->core.memory_lock);
	}
	access->bounce = kmalloc(min_t(u64, begin.count, VARIA_COPY_CHUNK), GFP_KERNEL);
	ret = access->bounce ? adaptor_steps(access, buf, offset, begin.count) : -ENOMEM;
	kfree(access->bounce);
	if (ret > 0)
		*ppos += ret;
ended:
	varia_count(access->dev->state, VARIA_COUNT_ACCESS_ENDED);
	return ret;
}

static ssize_t adaptor_rw(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos,
			  u32 way)
{
	struct adaptor_access access = {
		.dev = adaptor_of(vdev),
		.index = VFIO_PCI_OFFSET_TO_INDEX(*ppos),
		.way = way,
	};
	struct device *parent = &access.dev->core.pdev->dev;
	ssize_t ret;

	if (adaptor_region(access.dev, access.index, &access.region) == VARIA_REGION_MEMORY) {
		if (pm_runtime_resume_and_get(parent))
			return -EIO;
		ret = adaptor_memory_rw(&access, buf, count, ppos);
		pm_runtime_put(parent);
		return ret;
	}
	if (access.index == VFIO_PCI_CONFIG_REGION_INDEX)
		return adaptor_config_rw(vdev, buf, count, ppos, way);
	return way == VARIA_READ ? vfio_pci_core_read(vdev, buf, count, ppos) :
				   vfio_pci_core_write(vdev, buf, count, ppos);
}

ssize_t adaptor_read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos)
{
	return adaptor_rw(vdev, buf, count, ppos, VARIA_READ);
}

ssize_t adaptor_write(struct vfio_device *vdev, const char __user *buf, size_t count,
		      loff_t *ppos)
{
	return adaptor_rw(vdev, (char __user *)buf, count, ppos, VARIA_WRITE);
}
