// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads and writes: of a region of memory, the pieces that Rust names, each of bounded size; of
 * configuration space, with the pieces that the variant owns; and of all else by vfio-pci-core.
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

#define ADAPTOR_MOVE(bits, get, put)					\
	case bits / 8:							\
		if (read)						\
			put_unaligned(get(io), (u##bits *)data);	\
		else							\
			put(get_unaligned((u##bits *)data), io);	\
		break

/* Each access is ordered after the one before, for what the device does with flags and data. */
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
	ret = adaptor_lock_if_ready(access->dev, false) ?
		      0 : adaptor_lock_ready(access->dev, &access->wait);
	if (ret)
		return ret;
	if (piece->direct)
		moved = adaptor_copy_direct(at, buf, piece->len, read);
	else if (at && piece->memory == VARIA_MEMORY_CACHED)
		memcpy(read ? access->bounce : at, read ? at : access->bounce, piece->len);
	else if (at)
		adaptor_copy_uncached((void __force __iomem *)at, access->bounce, piece->len,
				      piece->width, read);
	access->asked.held = true;
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
	else
		ret = adaptor_copy_memory(access, buf, read);
	if (ret > 0 && read && copy_to_user(buf, access->bounce, piece->len))
		return -EFAULT;
	return ret;
}

/* A read or write of memory, piece by piece, of which some bytes may be done. */
static noinline ssize_t adaptor_memory_rw(struct adaptor_device *dev, char __user *buf,
					  size_t count, loff_t pos, u32 way, u64 done)
{
	struct adaptor_access access = {
		.dev = dev, .asked = { .position = pos, .count = count, .done = done, .way = way },
	};
	int ret;

	while ((ret = varia_next(dev->state, &access.asked, &access.piece)) > 0) {
		access.asked.result = adaptor_piece(&access, buf + access.asked.done);
		access.asked.killed = fatal_signal_pending(current);
		cond_resched();
	}
	kfree(access.bounce);
	return ret ?: access.asked.done;
}

/* As much of an access as there is in one lock hold; returns how many bytes. */
static ssize_t adaptor_direct_rw(struct adaptor_device *dev, const struct varia_segment *piece,
				 char __user *buf, u32 way)
{
	void *at = READ_ONCE(dev->memory[piece->index].address);
	u64 moved;

	if (!at || !adaptor_lock_if_ready(dev, false))
		return 0;
	moved = adaptor_copy_direct(at + piece->offset, buf, piece->len, way == VARIA_READ);
	varia_direct(dev->state, moved == piece->len);
	up_read(&dev->core.memory_lock);
	return moved;
}

static ssize_t adaptor_base_rw(struct vfio_device *vdev, char __user *buf, size_t count,
			       loff_t *ppos, u32 way)
{
	return way == VARIA_READ ? vfio_pci_core_read(vdev, buf, count, ppos) :
				   vfio_pci_core_write(vdev, buf, count, ppos);
}

/* Carries out one piece; returns how many bytes, or a negative errno. */
static __always_inline ssize_t adaptor_config_piece(struct vfio_device *vdev, char __user *buf,
						    ssize_t len, loff_t pos, u32 way, u32 owner)
{
	struct varia_state *state = adaptor_of(vdev)->state;
	u8 bytes[VARIA_CONFIG_CHUNK] = {};
	bool read = way == VARIA_READ;
	loff_t moved = pos;

	if (!read && owner != VARIA_OWNER_BASE && copy_from_user(bytes, buf, len))
		return -EFAULT;
	if (owner != VARIA_OWNER_KEEP)
		len = adaptor_base_rw(vdev, buf, len, &moved, way);
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
					  size_t count, loff_t pos, u32 way)
{
	const struct varia_state *state = adaptor_of(vdev)->state;
	struct varia_piece piece;
	ssize_t done, ret = 0;
	u32 pieces = 0;

	for (done = 0; done < count; done += ret, pieces++) {
		ret = varia_config_piece(state, way, pos + done, count - done, &piece) ?:
		      adaptor_config_piece(vdev, buf + done, piece.len, pos + done, way,
					   piece.owner);
		if (ret <= 0)
			break;
	}
	return varia_config_done(state, way, count, done, ret, pieces);
}

/* The file position moves only by a success. */
static __always_inline ssize_t adaptor_rw(struct vfio_device *vdev, char __user *buf,
					  size_t count, loff_t *ppos, u32 way)
{
	struct adaptor_device *dev = adaptor_of(vdev);
	struct varia_segment piece;
	int route = varia_route(dev->state, way, *ppos, count, &piece);
	ssize_t ret = 0;

	if (route == VARIA_ROUTE_BASE)
		return adaptor_base_rw(vdev, buf, count, ppos, way);
	if (route != VARIA_ROUTE_STORE && pm_runtime_resume_and_get(&dev->core.pdev->dev))
		return -EIO;
	if (route == VARIA_ROUTE_DIRECT)
		ret = adaptor_direct_rw(dev, &piece, buf, way);
	if (route == VARIA_ROUTE_LOAD || route == VARIA_ROUTE_STORE)
		ret = adaptor_config_piece(vdev, buf, count, *ppos, way, VARIA_OWNER_KEEP);
	else if (route == VARIA_ROUTE_SPLIT)
		ret = adaptor_config_rw(vdev, buf, count, *ppos, way);
	else if (!ret || ret < count)
		ret = adaptor_memory_rw(dev, buf, count, *ppos, way, ret);
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
