// SPDX-License-Identifier: GPL-2.0-only
/*
 * Configuration space: vfio-pci-core's, with the pieces that the variant owns over it.
 */
#include <linux/uaccess.h>

#include "adaptor.h"

/* Bytes of a piece that are carried at once. */
#define ADAPTOR_CONFIG_CHUNK 64

/* The first piece of what is left of an access, no longer than a chunk if the variant has it. */
static int adaptor_piece(struct adaptor_device *dev, u32 way, u64 offset, u64 left,
			 struct varia_piece *piece)
{
	int ret;

	ret = varia_config_piece(dev->state, way, offset, left, piece);
	if (ret)
		return ret;
	if (!piece->len || piece->len > left)
		return -EIO;
	if (piece->owner != VARIA_OWNER_BASE)
		piece->len = min_t(u64, piece->len, ADAPTOR_CONFIG_CHUNK);
	return 0;
}

/* Shows the variant's bytes of a range that has been read already. */
static int adaptor_overlay(struct adaptor_device *dev, char __user *buf, u64 offset, u64 count)
{
	struct varia_piece piece;
	u64 done;
	int ret;

	for (done = 0; done < count; done += piece.len) {
		u8 bytes[ADAPTOR_CONFIG_CHUNK] = {};

		ret = adaptor_piece(dev, VARIA_READ, offset + done, count - done, &piece);
		if (ret)
			return ret;
		if (piece.owner == VARIA_OWNER_BASE)
			continue;
		ret = varia_config_load(dev->state, offset + done, bytes, piece.len);
		if (ret)
			return ret;
		if (copy_to_user(buf + done, bytes, piece.len))
			return -EFAULT;
	}
	return 0;
}

ssize_t adaptor_config_read(struct adaptor_device *dev, char __user *buf, size_t count,
			    loff_t *ppos)
{
	u64 offset = *ppos & VFIO_PCI_OFFSET_MASK;
	loff_t pos = *ppos;
	ssize_t done;
	int ret;

	done = vfio_pci_core_read(&dev->core.vdev, buf, count, &pos);
	if (done <= 0)
		return done;
	ret = adaptor_overlay(dev, buf, offset, done);
	if (ret)
		return ret;
	*ppos = pos;
	return done;
}

/* Carries out one piece; returns how many bytes, or a negative errno. */
static ssize_t adaptor_write_piece(struct adaptor_device *dev, const struct varia_piece *piece,
				   const char __user *buf, loff_t pos)
{
	u8 bytes[ADAPTOR_CONFIG_CHUNK];
	ssize_t len = piece->len;
	int ret;

	if (piece->owner != VARIA_OWNER_BASE && copy_from_user(bytes, buf, len))
		return -EFAULT;
	if (piece->owner != VARIA_OWNER_KEEP) {
		loff_t next = pos;

		len = vfio_pci_core_write(&dev->core.vdev, buf, len, &next);
	}
	if (len <= 0 || piece->owner == VARIA_OWNER_BASE)
		return len;
	ret = varia_config_store(dev->state, pos & VFIO_PCI_OFFSET_MASK, bytes, len);
	return ret ?: len;
}

/* Pieces go in ascending order. A failure after the first piece ends the write there. */
ssize_t adaptor_config_write(struct adaptor_device *dev, const char __user *buf, size_t count,
			     loff_t *ppos)
{
	struct varia_piece piece;
	size_t done = 0;
	ssize_t ret = 0;

	while (done < count) {
		loff_t pos = *ppos + done;

		ret = adaptor_piece(dev, VARIA_WRITE, pos & VFIO_PCI_OFFSET_MASK, count - done,
				    &piece);
		if (!ret)
			ret = adaptor_write_piece(dev, &piece, buf + done, pos);
		if (ret <= 0)
			break;
		done += ret;
	}
	*ppos += done;
	return done ?: ret;
}
