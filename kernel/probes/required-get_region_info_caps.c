// SPDX-License-Identifier: GPL-2.0-only
/*
 * VFIO packs the capabilities of a region's info.
 * names: get_region_info_caps
 * reason: the operation is in Linux 7.0 and newer, and in NVIDIA's 6.17
 */
#include "probe.h"

static int probe(struct vfio_device *vdev, struct vfio_region_info *info,
		 struct vfio_info_cap *caps)
{
	return vfio_info_add_capability(caps, NULL, 0);
}

const struct vfio_device_ops probe_ops = { .get_region_info_caps = probe };
