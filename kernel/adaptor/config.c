// SPDX-License-Identifier: GPL-2.0-only
/*
 * Configuration space: vfio-pci-core's, with the pieces that the variant owns over it.
 */
#include <linux/uaccess.h>

#include "adaptor.h"

/* Shows the variant's bytes of a range that has been read already. */
static int adaptor_overlay(struct adaptor_device *dev, char __user *buf, u64 offset, u64 count)
{
	u8 bytes[VARIA_CONFIG_CHUNK] = {};
	struct varia_piece piece = {};
	u64 done;
	int ret;

	for (done = 0; done < count; done += piece.len) {
		ret = varia_config_piece(dev->state, VARIA_READ, offset + done, count - done,
					 &piece);
		if (ret)
			return ret;
		if (piece.owner == VARIA_OWNER_BASE)
			continue;
		varia_config_load(dev->state, offset + done, bytes, piece.len);
		if (copy_to_user(buf + done, bytes, piece.len))
			return -EFAULT;
	}
	return 0;
}

static ssize_t adaptor_config_read(struct vfio_device *vdev, char __user *buf, size_t count,
				   loff_t *ppos)
{
	loff_t pos = *ppos;
	ssize_t done;
	int ret;

	done = vfio_pci_core_read(vdev, buf, count, &pos);
	if (done <= 0)
		return done;
	ret = adaptor_overlay(adaptor_of(vdev), buf, *ppos & VFIO_PCI_OFFSET_MASK, done);
	if (ret)
		return ret;
	*ppos = pos;
	return done;
}

/* Carries out one piece; returns how many bytes, or a negative errno. */
static ssize_t adaptor_write_piece(struct vfio_device *vdev, const struct varia_piece *piece,
				   const char __user *buf, loff_t pos)
{
	u64 offset = pos & VFIO_PCI_OFFSET_MASK;
	u8 bytes[VARIA_CONFIG_CHUNK];
	ssize_t len = piece->len;

	if (piece->owner != VARIA_OWNER_BASE && copy_from_user(bytes, buf, len))
		return -EFAULT;
	if (piece->owner != VARIA_OWNER_KEEP)
		len = vfio_pci_core_write(vdev, buf, len, &pos);
	if (piece->owner != VARIA_OWNER_BASE && len > 0)
		varia_config_store(adaptor_of(vdev)->state, offset, bytes, len);
	return len;
}

/* Pieces go in ascending order. A failure after the first piece ends the write there. */
static ssize_t adaptor_config_write(struct vfio_device *vdev, const char __user *buf,
				    size_t count, loff_t *ppos)
{
	struct varia_piece piece = {};
	ssize_t done, ret = 0;
	u32 pieces = 0;

	for (done = 0; done < count; done += ret, pieces++) {
		loff_t pos = *ppos + done;

		ret = varia_config_piece(adaptor_of(vdev)->state, VARIA_WRITE,
					 pos & VFIO_PCI_OFFSET_MASK, count - done, &piece);
		if (!ret)
			ret = adaptor_write_piece(vdev, &piece, buf + done, pos);
		if (ret <= 0)
			break;
	}
	varia_config_written(adaptor_of(vdev)->state, count, done ?: ret, pieces);
	*ppos += done;
	return done ?: ret;
}

ssize_t adaptor_config_rw(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos,
			  u32 way)
{
	return way == VARIA_READ ? adaptor_config_read(vdev, buf, count, ppos) :
				   adaptor_config_write(vdev, buf, count, ppos);
}
