// SPDX-License-Identifier: GPL-2.0-only
/*
 * The name of the driver that a device is meant for is kept by the driver core.
 * names: device_match_driver_override
 * reason: the name is kept by the driver core in Linux 7.1 and newer, and in stable kernels with this change
 */
#include "probe.h"

int probe(struct pci_dev *pdev);
int probe(struct pci_dev *pdev)
{
	return device_match_driver_override(&pdev->dev, pdev->dev.driver);
}
