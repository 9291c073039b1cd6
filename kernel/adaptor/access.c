// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads and writes: of a region of memory, in segments of bounded size that Rust names; of
 * configuration space, in segments of the variant and of vfio-pci-core; of all other regions, by
 * vfio-pci-core.
 *
 * The user's memory could be a mapping of the same region, whose fault takes memory_lock. So with
 * that lock held, user memory is touched with page faults disabled; if a page is missing, the
 * segment goes through a bounce buffer.
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
	struct varia_segment segment;
	struct varia_wait wait;
	u8 *bounce;
};

/* Maps a region for the kernel, once while the device is open. Of two racing maps one is kept. */
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

#define ADAPTOR_MOVE(bits, get, put)					\
	case bits / 8:							\
		if (read)						\
			put_unaligned(get(io), (u##bits *)data);	\
		else							\
			put(get_unaligned((u##bits *)data), io);	\
		break

/* Each access is ordered after the one before: the device may pair flags with data. */
static void adaptor_copy_uncached(void __iomem *io, u8 *data, u64 len, u32 width, bool read)
{
	for (; len; io += width, data += width, len -= width)
		switch (width) {
		ADAPTOR_MOVE(64, readq, writeq);
		ADAPTOR_MOVE(32, readl, writel);
		ADAPTOR_MOVE(16, readw, writew);
		ADAPTOR_MOVE(8, readb, writeb);
		}
}

/* Copies up to the first page fault; returns the number of bytes. */
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

/* Copies with the lock held and the device ready; returns the number of bytes, or an errno. */
static int adaptor_copy_memory(struct adaptor_access *access, char __user *buf, bool read)
{
	const struct varia_segment *segment = &access->segment;
	u64 moved = segment->len;
	void *at = NULL;
	int ret;

	if (segment->kind == VARIA_SEGMENT_MEMORY) {
		at = adaptor_map_memory(access->dev, segment->index);
		if (!at)
			return -ENOMEM;
		at += segment->offset;
	}
	ret = adaptor_lock_if_ready(access->dev, false) ?
		      0 : adaptor_lock_ready(access->dev, &access->wait, false);
	if (ret)
		return ret;
	if (segment->direct)
		moved = adaptor_copy_direct(at, buf, segment->len, read);
	else if (at && segment->memory == VARIA_MEMORY_CACHED)
		memcpy(read ? access->bounce : at, read ? at : access->bounce, segment->len);
	else if (at)
		adaptor_copy_uncached((void __force __iomem *)at, access->bounce, segment->len,
				      segment->width, read);
	access->asked.held = true;
	up_read(&access->dev->core.memory_lock);
	return moved;
}

static int adaptor_segment(struct adaptor_access *access, char __user *buf)
{
	const struct varia_segment *segment = &access->segment;
	bool read = access->asked.direction == VARIA_READ;
	int ret = segment->len;

	if (segment->direct || !segment->len)
		return adaptor_copy_memory(access, buf, read);
	if (!access->bounce)
		access->bounce = kmalloc(VARIA_COPY_CHUNK, GFP_KERNEL);
	if (!access->bounce)
		return -ENOMEM;
	if (segment->kind == VARIA_SEGMENT_ONES)
		memset(access->bounce, 0xff, segment->len);
	else if (!read && copy_from_user(access->bounce, buf, segment->len))
		return -EFAULT;
	else
		ret = adaptor_copy_memory(access, buf, read);
	if (ret > 0 && read && copy_to_user(buf, access->bounce, segment->len))
		return -EFAULT;
	return ret;
}

/* A read or write of memory, segment by segment, of which some bytes may be done. */
static noinline ssize_t adaptor_memory_rw(struct adaptor_device *dev, char __user *buf,
					  size_t count, loff_t pos, u32 direction, u64 done)
{
	struct adaptor_access access = {
		.dev = dev,
		.asked = { .position = pos, .count = count, .done = done, .direction = direction },
	};
	int ret;

	while ((ret = varia_next(dev->state, &access.asked, &access.segment)) > 0) {
		access.asked.result = adaptor_segment(&access, buf + access.asked.done);
		access.asked.killed = fatal_signal_pending(current);
		cond_resched();
	}
	kfree(access.bounce);
	return ret ?: access.asked.done;
}

/* Copies up to the first page fault, with the lock held; returns the number of bytes. */
static ssize_t adaptor_direct_rw(struct adaptor_device *dev, const struct varia_segment *segment,
				 char __user *buf, u32 direction)
{
	void *at = READ_ONCE(dev->memory[segment->index].address);
	u64 moved;

	if (!at || !adaptor_lock_if_ready(dev, false))
		return 0;
	moved = adaptor_copy_direct(at + segment->offset, buf, segment->len, direction == VARIA_READ);
	varia_direct(dev->state, moved == segment->len);
	up_read(&dev->core.memory_lock);
	return moved;
}

static ssize_t adaptor_base_rw(struct vfio_device *vdev, char __user *buf, size_t count,
			       loff_t *ppos, u32 direction)
{
	return direction == VARIA_READ ? vfio_pci_core_read(vdev, buf, count, ppos) :
				   vfio_pci_core_write(vdev, buf, count, ppos);
}

/* Carries out one segment; returns the number of bytes, or a negative errno. */
static __always_inline ssize_t adaptor_config_segment(struct vfio_device *vdev, char __user *buf,
						      ssize_t len, loff_t pos, u32 direction,
						      u32 owner)
{
	struct varia_state *state = adaptor_of(vdev)->state;
	u8 bytes[VARIA_CONFIG_CHUNK] = {};
	bool read = direction == VARIA_READ;
	loff_t moved = pos;

	if (!read && owner != VARIA_OWNER_BASE && copy_from_user(bytes, buf, len))
		return -EFAULT;
	if (owner != VARIA_OWNER_KEEP)
		len = adaptor_base_rw(vdev, buf, len, &moved, direction);
	if (owner == VARIA_OWNER_BASE || len <= 0)
		return len;
	if (!read) {
		varia_config_store(state, pos, bytes, len);
		return len;
	}
	if (owner == VARIA_OWNER_BOTH && copy_from_user(bytes, buf, len))
		return -EFAULT;
	varia_config_load(state, pos, bytes, len);
	return copy_to_user(buf, bytes, len) ? -EFAULT : len;
}

/* Pieces go in ascending order, and a failure ends the access. */
static noinline ssize_t adaptor_config_rw(struct vfio_device *vdev, char __user *buf,
					  size_t count, loff_t pos, u32 direction)
{
	const struct varia_state *state = adaptor_of(vdev)->state;
	struct varia_config_segment segment;
	ssize_t done, ret = 0;
	u32 segments = 0;

	for (done = 0; done < count; done += ret, segments++) {
		ret = varia_config_segment(state, direction, pos + done, count - done, &segment) ?:
		      adaptor_config_segment(vdev, buf + done, segment.len, pos + done, direction,
					     segment.owner);
		if (ret <= 0)
			break;
	}
	return varia_config_done(state, direction, count, done, ret, segments);
}

/* The file position moves only by a success. */
static __always_inline ssize_t adaptor_rw(struct vfio_device *vdev, char __user *buf,
					  size_t count, loff_t *ppos, u32 direction)
{
	struct adaptor_device *dev = adaptor_of(vdev);
	struct varia_segment segment;
	int route = varia_route(dev->state, direction, *ppos, count, &segment);
	ssize_t ret = 0;

	if (route == VARIA_ROUTE_BASE)
		return adaptor_base_rw(vdev, buf, count, ppos, direction);
	if (route != VARIA_ROUTE_STORE && pm_runtime_resume_and_get(&dev->core.pdev->dev))
		return -EIO;
	if (route == VARIA_ROUTE_DIRECT)
		ret = adaptor_direct_rw(dev, &segment, buf, direction);
	if (route == VARIA_ROUTE_LOAD || route == VARIA_ROUTE_STORE)
		ret = adaptor_config_segment(vdev, buf, count, *ppos, direction, VARIA_OWNER_KEEP);
	else if (route == VARIA_ROUTE_SPLIT)
		ret = adaptor_config_rw(vdev, buf, count, *ppos, direction);
	else if (!ret || ret < count)
		ret = adaptor_memory_rw(dev, buf, count, *ppos, direction, ret);
	if (route != VARIA_ROUTE_STORE)
		pm_runtime_put(&dev->core.pdev->dev);
	if (ret > 0)
		*ppos += ret;
	return ret;
}

ssize_t adaptor_read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos)
{
	return adaptor_rw(vdev, buf, count, ppos, VARIA_READ);
}

ssize_t adaptor_write(struct vfio_device *vdev, const char __user *buf, size_t count, loff_t *ppos)
{
	return adaptor_rw(vdev, (char __user *)buf, count, ppos, VARIA_WRITE);
}
