// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module: from a PCI function to a registered VFIO device.
 */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/property.h>
#include <linux/slab.h>

#include "adaptor.h"
#include "descriptor.h"

/* The last physical address: x86 limits iomem_resource, arm64 has a mask. */
#ifndef PHYS_MASK
#define PHYS_MASK U64_MAX
#endif

static bool honour_memory_enable;
module_param(honour_memory_enable, bool, 0444);
MODULE_PARM_DESC(honour_memory_enable, "Fail accesses with EIO while memory is disabled (default: N)");

static bool strict;
module_param(strict, bool, 0444);
MODULE_PARM_DESC(strict, "Fail the probe of a device that would be served without its memory (default: N)");

static struct dentry *adaptor_debugfs;

static int adaptor_answer(struct pci_dev *pdev, const struct varia_question *question, u64 *value)
{
	int ret = 0;
	u16 word;

	if (question->kind == VARIA_QUESTION_PROPERTY)
		return device_property_read_u64(&pdev->dev, question->name, value);
	if (question->kind == VARIA_QUESTION_BAR_SIZE) {
		*value = pci_resource_len(pdev, question->offset);
		return *value ? 0 : -ENOENT;
	}
	/* vfio-pci-core has no access to the function's owner, and none to the platform */
	if (question->kind == VARIA_QUESTION_COMMAND_WORD ||
	    question->kind == VARIA_QUESTION_PLATFORM)
		return -EOPNOTSUPP;
	word = pci_find_dvsec_capability(pdev, question->vendor, question->id);
	if (!word)
		return -ENOENT;
	if (question->kind == VARIA_QUESTION_DVSEC_WORD)
		ret = pci_read_config_word(pdev, word + question->offset, &word);
	*value = word;
	return pcibios_err_to_errno(ret);
}

/* Builds the state of the variant from the answers to its questions. */
static int adaptor_build(struct pci_dev *pdev, struct varia_state *state)
{
	struct varia_environment environment = {
		.page_shift = PAGE_SHIFT, .honour_memory_enable = honour_memory_enable,
		.strict = strict,
	};
	struct varia_answer answers[VARIA_MAX_QUESTIONS] = {};
	struct varia_question question;
	u32 count;

	for (count = 0; count < VARIA_MAX_QUESTIONS && !varia_question(count, &question); count++)
		answers[count].errno = -adaptor_answer(pdev, &question, &answers[count].value);
	return varia_probe(answers, count, &environment, state);
}

/* Returns a bit for each region whose memory the kernel uses as RAM. */
static u32 adaptor_ram(const struct varia_state *state)
{
	struct varia_region region;
	u32 ram = 0;
	int i;

	for (i = 0; i < VARIA_REGIONS; i++)
		if (varia_region(state, i, &region) &&
		    region_intersects(region.base, region.length, IORESOURCE_SYSTEM_RAM,
				      IORES_DESC_NONE) != REGION_DISJOINT)
			ram |= BIT(i);
	return ram;
}

/* Waits until the device is ready; returns VARIA_OUTCOME_*, or a negative errno. */
static int adaptor_outcome(struct pci_dev *pdev, const struct varia_state *state)
{
	u8 text[VARIA_TEXT_LEN] = "";
	int ret = varia_outcome(state, adaptor_wait_unbound(pdev, state), adaptor_ram(state),
				iomem_resource.end & PHYS_MASK, text, sizeof(text));

	if (ret != VARIA_OUTCOME_SERVE)
		dev_printk(ret < 0 ? KERN_ERR : KERN_WARNING, &pdev->dev, "%s\n", text);
	return ret;
}

static int adaptor_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct varia_state *state __free(kfree) = kzalloc(sizeof(*state), GFP_KERNEL);
	struct adaptor_device *dev;
	int ret;

	if (!state)
		return -ENOMEM;
	ret = adaptor_build(pdev, state) ?: adaptor_outcome(pdev, state);
	if (ret < 0)
		return ret;

	dev = vfio_alloc_device(adaptor_device, core.vdev, &pdev->dev, &adaptor_ops[ret]);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	dev->state = no_free_ptr(state);
#ifdef ADAPTOR_HAS_GET_DMABUF_PHYS
	dev->core.pci_ops = &adaptor_pci_ops;
#endif
	dev_set_drvdata(&pdev->dev, &dev->core);

	ret = vfio_pci_core_register_device(&dev->core);
	if (ret)
		vfio_put_device(&dev->core.vdev);
	else
		adaptor_show_device(dev, adaptor_debugfs);
	return ret;
}

static void adaptor_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	vfio_pci_core_unregister_device(core);
	debugfs_lookup_and_remove(pci_name(pdev), adaptor_debugfs);
	vfio_put_device(&core->vdev);
}

/* After any reset, including those that VFIO did not request: no lock is held. */
static void adaptor_reset_done(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	varia_reset_done(adaptor_of(&core->vdev)->state);
}

/* The recovery of a fatal error resets the link without a call of reset_done. */
static void adaptor_resume(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	varia_recovered(adaptor_of(&core->vdev)->state);
}

static const struct pci_error_handlers adaptor_error_handlers = {
	.reset_done = adaptor_reset_done,
	.error_detected = vfio_pci_core_aer_err_detected,
	.resume = adaptor_resume,
};

static const struct pci_device_id adaptor_ids[] = { ADAPTOR_IDS, {} };
MODULE_DEVICE_TABLE(pci, adaptor_ids);

static struct pci_driver adaptor_driver = {
	.name = KBUILD_MODNAME,
	.id_table = adaptor_ids,
	.probe = adaptor_probe,
	.remove = adaptor_remove,
	.err_handler = &adaptor_error_handlers,
	.driver_managed_dma = true,
};

static int __init adaptor_init(void)
{
	int ret;

	adaptor_debugfs = debugfs_create_dir(KBUILD_MODNAME, NULL);
	ret = pci_register_driver(&adaptor_driver);
	if (ret)
		debugfs_remove(adaptor_debugfs);
	return ret;
}
module_init(adaptor_init);

static void __exit adaptor_exit(void)
{
	pci_unregister_driver(&adaptor_driver);
	debugfs_remove(adaptor_debugfs);
}
module_exit(adaptor_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("The Varia developers");
MODULE_DESCRIPTION(ADAPTOR_DESCRIPTION);
