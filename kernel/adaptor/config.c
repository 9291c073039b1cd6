// SPDX-License-Identifier: GPL-2.0-only
/*
 * The regions that vfio-pci-core serves, with the pieces of configuration space that the variant
 * owns over them.
 */
#include <linux/uaccess.h>

#include "adaptor.h"

/* Carries out one piece; returns how many bytes, or a negative errno. */
ssize_t adaptor_config_piece(struct vfio_device *vdev, char __user *buf, ssize_t len, loff_t pos,
			     u32 way, u32 owner)
{
	u8 bytes[VARIA_CONFIG_CHUNK];
	loff_t moved = pos;

	if (owner != VARIA_OWNER_KEEP)
		len = adaptor_base_rw(vdev, buf, len, &moved, way);
	if (owner == VARIA_OWNER_BASE || len <= 0)
		return len;
	if ((way == VARIA_WRITE || owner == VARIA_OWNER_BOTH) && copy_from_user(bytes, buf, len))
		return -EFAULT;
	if (way == VARIA_WRITE)
		varia_config_store(adaptor_of(vdev)->state, pos, bytes, len);
	else
		varia_config_load(adaptor_of(vdev)->state, pos, bytes, len);
	if (way == VARIA_READ && copy_to_user(buf, bytes, len))
		return -EFAULT;
	return len;
}

/* Pieces go in ascending order, and a failure ends the access. */
ssize_t adaptor_config_rw(struct vfio_device *vdev, char __user *buf, size_t count, loff_t pos,
			  u32 way)
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
