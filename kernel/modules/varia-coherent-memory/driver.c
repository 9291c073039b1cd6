// SPDX-License-Identifier: GPL-2.0-only
/*
 * varia-coherent-memory: a GPU's coherent memory as memory of this kernel.
 *
 * In a VM the memory is in BAR4, on the host itself firmware says where it is. This half looks facts
 * up (facts.c), adds memory and takes it away (blocks.c); what goes where is decided by the Rust half
 * (border.rs). It binds only to a device whose driver_override names it.
 */
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/pci.h>

#include "coherent.h"

/* The device's driver_override names this driver. An id that was written to new_id does not count. */
static bool coherent_is_named(struct pci_dev *pdev)
{
	return device_match_driver_override(&pdev->dev, pdev->dev.driver) > 0;
}

static irqreturn_t coherent_interrupt(int irq, void *data)
{
	struct coherent_device *coherent = data;

	atomic64_inc(&coherent->completions);
	return IRQ_HANDLED;
}

static ssize_t completions_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct coherent_device *coherent = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%lld\n", atomic64_read(&coherent->completions));
}
static DEVICE_ATTR_RO(completions);

static struct attribute *coherent_attrs[] = { &dev_attr_completions.attr, NULL };
ATTRIBUTE_GROUPS(coherent);

/* The first MSI-X vector of the device: counted, for who drives its engine from user space. */
static void coherent_listen(struct pci_dev *pdev, struct coherent_device *coherent)
{
	if (pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSIX) != 1)
		return;
	if (request_irq(pci_irq_vector(pdev, 0), coherent_interrupt, 0, KBUILD_MODNAME, coherent))
		pci_free_irq_vectors(pdev);
	else
		pci_set_master(pdev);
}

static void coherent_listen_no_more(struct pci_dev *pdev, struct coherent_device *coherent)
{
	pci_clear_master(pdev);
	if (!pdev->msix_enabled)
		return;
	free_irq(pci_irq_vector(pdev, 0), coherent);
	pci_free_irq_vectors(pdev);
}

static int coherent_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	char text[VARIA_TEXT_LEN] = "";
	struct coherent_device *coherent = NULL;
	int ret;

	if (!coherent_is_named(pdev))
		return -ENODEV;
	ret = pci_enable_device_mem(pdev);
	if (ret) {
		dev_err(&pdev->dev, "not used: the device can't be enabled (%d)\n", ret);
		return ret;
	}
	ret = coherent_get(pdev, &coherent, text);
	if (ret) {
		dev_err(&pdev->dev, "not used: %s (%d)\n", text, ret);
		if (coherent)
			coherent_give_back(coherent);
		pci_disable_device(pdev);
		return ret;
	}
	dev_set_drvdata(&pdev->dev, coherent);
	coherent_listen(pdev, coherent);
	return 0;
}

static void coherent_remove(struct pci_dev *pdev)
{
	struct coherent_device *coherent = dev_get_drvdata(&pdev->dev);

	coherent_listen_no_more(pdev, coherent);
	coherent_give_back(coherent);
	/* Memory that is kept can still be used: only bus master is disabled. */
	pci_disable_device(pdev);
}

/* Without a list of ids, only driver_override leads here. */
static struct pci_driver coherent_driver = {
	.name = KBUILD_MODNAME,
	.probe = coherent_probe,
	.remove = coherent_remove,
	.dev_groups = coherent_groups,
};
module_pci_driver(coherent_driver);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("The Varia developers");
MODULE_DESCRIPTION("Coherent memory of a GPU as memory of the kernel (Varia)");
