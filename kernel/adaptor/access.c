// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads and writes of a region: the pieces that Rust names, each of bounded size.
 *
 * The user's memory could be a mapping of the same region, whose fault takes memory_lock. So under
 * that lock it is touched with page faults disabled; where that does not do, a piece goes through
 * a bounce buffer.
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
	struct varia_access asked;
	struct varia_segment piece;
	struct varia_wait wait;
	u8 *bounce;
};

/* Maps a region for the kernel, once while the device is open. Two may try; one is kept. */
static void *adaptor_map_memory(struct adaptor_device *dev, u32 index)
{
	void *known = READ_ONCE(dev->memory[index].address), *address;
	struct varia_region region;

	if (known || !varia_region(dev->state, index, &region))
		return known;
	address = memremap(region.base, region.length,
			   region.memory == VARIA_MEMORY_CACHED ? MEMREMAP_WB : MEMREMAP_WC);
	if (!address)
		return NULL;
	known = cmpxchg(&dev->memory[index].address, NULL, address);
	varia_count(dev->state, VARIA_COUNT_MEMORY_MAPPED);
	if (!known)
		return address;
	memunmap(address);
	varia_count(dev->state, VARIA_COUNT_MEMORY_UNMAPPED);
	return known;
}

/* The kernel has them for more bytes than one. */
#define put_unaligned_le8(value, at) (*(at) = (value))
#define get_unaligned_le8(at) (*(at))

#define ADAPTOR_MOVE(bits, get, put)					\
	case bits / 8:							\
		if (read)						\
			put_unaligned_le##bits(get(io), data);		\
		else							\
			put(get_unaligned_le##bits(data), io);		\
		break

/* Uncached memory is accessed in the widths that the variant names. */
static void adaptor_copy_uncached(void __iomem *io, u64 at, u8 *data, u64 len, bool read)
{
	u64 width;

	for (; len; io += width, at += width, data += width, len -= width) {
		width = varia_width(at, len);
		switch (width) {
		ADAPTOR_MOVE(64, readq, writeq);
		ADAPTOR_MOVE(32, readl, writel);
		ADAPTOR_MOVE(16, readw, writew);
		ADAPTOR_MOVE(8, readb, writeb);
		}
	}
}

/* As much as there is without a page fault; returns how many bytes. */
static u64 adaptor_copy_direct(void *at, char __user *buf, u64 len, bool read)
{
	u64 left;

	if (!access_ok(buf, len))
		return 0;
	pagefault_disable();
	left = read ? __copy_to_user_inatomic(buf, at, len) :
		      __copy_from_user_inatomic(at, (const char __user *)buf, len);
	pagefault_enable();
	return len - left;
}

/* In a lock hold in which the device is ready; returns how many bytes, or a negative errno. */
static int adaptor_copy_memory(struct adaptor_access *access, char __user *buf, bool read)
{
	const struct varia_segment *piece = &access->piece;
	u64 moved = piece->len;
	void *at = NULL;
	int ret;

	if (piece->kind == VARIA_SEGMENT_MEMORY) {
		at = adaptor_map_memory(access->dev, piece->index);
		if (!at)
			return -ENOMEM;
		at += piece->offset;
	}
	ret = adaptor_lock_ready(access->dev, &access->wait, false);
	if (ret)
		return ret;
	if (piece->direct)
		moved = adaptor_copy_direct(at, buf, piece->len, read);
	else if (at && piece->memory == VARIA_MEMORY_CACHED)
		memcpy(read ? access->bounce : at, read ? at : access->bounce, piece->len);
	else if (at)
		adaptor_copy_uncached((void __force __iomem *)at, piece->at, access->bounce,
				      piece->len, read);
	varia_count(access->dev->state, at ? VARIA_COUNT_COPIED : VARIA_COUNT_CHECKED);
	up_read(&access->dev->core.memory_lock);
	return moved;
}

static int adaptor_piece(struct adaptor_access *access, char __user *buf)
{
	const struct varia_segment *piece = &access->piece;
	bool read = access->asked.way == VARIA_READ;
	int ret = piece->len;

	if (piece->direct || !piece->len)
		return adaptor_copy_memory(access, buf, read);
	if (!access->bounce)
		access->bounce = kmalloc(VARIA_COPY_CHUNK, GFP_KERNEL);
	if (!access->bounce)
		return -ENOMEM;
	if (piece->kind == VARIA_SEGMENT_ONES)
		memset(access->bounce, 0xff, piece->len);
	else if (!read && copy_from_user(access->bounce, buf, piece->len))
		return -EFAULT;
	if (piece->kind != VARIA_SEGMENT_ONES)
		ret = adaptor_copy_memory(access, buf, read);
	if (ret > 0 && read && copy_to_user(buf, access->bounce, piece->len))
		return -EFAULT;
	return ret;
}

/* A read or write of memory. The file position moves only by a whole success. */
static ssize_t adaptor_memory_rw(struct adaptor_device *dev, char __user *buf, size_t count,
				 loff_t *ppos, u32 way)
{
	struct adaptor_access access = {
		.dev = dev, .asked = { .position = *ppos, .count = count, .way = way },
	};
	struct device *parent = &dev->core.pdev->dev;
	int ret;

	if (pm_runtime_resume_and_get(parent))
		return -EIO;
	while ((ret = varia_next(dev->state, &access.asked, &access.piece)) > 0) {
		access.asked.result = adaptor_piece(&access, buf + access.asked.done);
		access.asked.killed = fatal_signal_pending(current);
		cond_resched();
	}
	pm_runtime_put(parent);
	kfree(access.bounce);
	if (ret)
		return ret;
	*ppos += access.asked.done;
	return access.asked.done;
}

ssize_t adaptor_read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos)
{
	if (varia_is_memory(adaptor_of(vdev)->state, *ppos))
		return adaptor_memory_rw(adaptor_of(vdev), buf, count, ppos, VARIA_READ);
	return adaptor_base_read(vdev, buf, count, ppos);
}

ssize_t adaptor_write(struct vfio_device *vdev, const char __user *buf, size_t count, loff_t *ppos)
{
	char __user *from = (char __user *)buf;

	if (varia_is_memory(adaptor_of(vdev)->state, *ppos))
		return adaptor_memory_rw(adaptor_of(vdev), from, count, ppos, VARIA_WRITE);
	return adaptor_base_write(vdev, buf, count, ppos);
}
