// SPDX-License-Identifier: GPL-2.0-only
/*
 * The regions that vfio-pci-core serves, with the pieces of configuration space that the variant
 * owns over them.
 */
#include <linux/pm_runtime.h>
#include <linux/uaccess.h>

#include "adaptor.h"

ssize_t adaptor_base_read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos)
{
	const struct varia_state *state = adaptor_of(vdev)->state;
	struct device *parent = &adaptor_of(vdev)->core.pdev->dev;
	u8 bytes[VARIA_CONFIG_CHUNK] = {};
	struct varia_piece piece = {};
	ssize_t done = count, at;
	loff_t pos = *ppos;
	int ret;

	/* vfio-pci-core has no part in what the variant keeps, but that an access wakes a device. */
	if (!varia_config_kept(state, pos, count))
		done = vfio_pci_core_read(vdev, buf, count, &pos);
	else if (pm_runtime_resume_and_get(parent))
		return -EIO;
	else
		pm_runtime_put(parent);
	for (at = 0; at < done; at += piece.len) {
		ret = varia_config_piece(state, VARIA_READ, *ppos + at, done - at, &piece);
		if (ret)
			return ret;
		if (piece.owner == VARIA_OWNER_BASE)
			continue;
		varia_config_load(state, *ppos + at, bytes, piece.len);
		if (copy_to_user(buf + at, bytes, piece.len))
			return -EFAULT;
	}
	if (done > 0)
		*ppos += done;
	return done;
}

/* Carries out one piece; returns how many bytes, or a negative errno. */
static ssize_t adaptor_write_piece(struct vfio_device *vdev, const struct varia_piece *piece,
				   const char __user *buf, loff_t pos)
{
	u8 bytes[VARIA_CONFIG_CHUNK];
	ssize_t len = piece->len;
	loff_t moved = pos;

	if (piece->owner != VARIA_OWNER_BASE && copy_from_user(bytes, buf, len))
		return -EFAULT;
	if (piece->owner != VARIA_OWNER_KEEP)
		len = vfio_pci_core_write(vdev, buf, len, &moved);
	if (piece->owner != VARIA_OWNER_BASE && len > 0)
		varia_config_store(adaptor_of(vdev)->state, pos, bytes, len);
	return len;
}

/* Pieces go in ascending order. A failure after the first piece ends the write there. */
ssize_t adaptor_base_write(struct vfio_device *vdev, const char __user *buf, size_t count,
			   loff_t *ppos)
{
	const struct varia_state *state = adaptor_of(vdev)->state;
	struct varia_piece piece = {};
	ssize_t done, ret = 0;
	u32 pieces = 0;

	for (done = 0; done < count; done += ret, pieces++) {
		ret = varia_config_piece(state, VARIA_WRITE, *ppos + done, count - done, &piece);
		if (!ret)
			ret = adaptor_write_piece(vdev, &piece, buf + done, *ppos + done);
		if (ret <= 0)
			break;
	}
	varia_config_written(state, *ppos, count, done ?: ret, pieces);
	*ppos += done;
	return done ?: ret;
}
