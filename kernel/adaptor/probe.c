// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a PCI function to a registered VFIO device.
 */
#include <linux/module.h>
#include <linux/property.h>
#include <linux/slab.h>

#include "adaptor.h"

static bool honour_memory_enable;
module_param(honour_memory_enable, bool, 0444);
MODULE_PARM_DESC(honour_memory_enable,
		 "Fail reads and writes of the device's memory with EIO while memory is disabled in the command register (default: N)");

static int adaptor_answer(struct pci_dev *pdev, const struct varia_question *question,
			  u64 *value)
{
	u16 word, dvsec;
	int ret;

	if (question->kind == VARIA_QUESTION_PROPERTY)
		return device_property_read_u64(&pdev->dev, question->name, value);

	dvsec = pci_find_dvsec_capability(pdev, question->vendor, question->id);
	if (!dvsec)
		return -ENOENT;
	if (question->kind == VARIA_QUESTION_DVSEC_OFFSET) {
		*value = dvsec;
		return 0;
	}
	ret = pci_read_config_word(pdev, dvsec + question->offset, &word);
	if (ret)
		return pcibios_err_to_errno(ret);
	*value = word;
	return 0;
}

/* The state of a variant, built from what it wants to know of the function. */
static struct varia_state *adaptor_build(struct pci_dev *pdev, u32 variant)
{
	struct varia_environment environment = {
		.page_shift = PAGE_SHIFT,
		.honour_memory_enable = honour_memory_enable,
	};
	struct varia_answer answers[VARIA_MAX_QUESTIONS] = {};
	struct varia_question question;
	struct varia_state *state;
	u32 count;
	int ret;

	for (count = 0; count < VARIA_MAX_QUESTIONS; count++) {
		ret = varia_question(variant, count, &question);
		if (ret == -ENOENT)
			break;
		if (ret)
			return ERR_PTR(ret);
		ret = adaptor_answer(pdev, &question, &answers[count].value);
		answers[count].errno = -ret;
	}

	state = kzalloc_obj(*state);
	if (!state)
		return ERR_PTR(-ENOMEM);
	ret = varia_probe(variant, answers, count, &environment, state);
	if (ret) {
		kfree(state);
		return ERR_PTR(ret);
	}
	return state;
}

/* Whether the variant serves the device, or the error with which the probe fails. */
static int adaptor_outcome(struct pci_dev *pdev, const struct varia_state *state, bool *served)
{
	struct varia_outcome outcome;
	int ret;

	ret = adaptor_wait_unbound(pdev, state);
	if (ret) {
		dev_err(&pdev->dev,
			"not ready (error %d): check its memory and its link to the CPU, reset it, then bind again\n",
			ret);
		return ret;
	}
	ret = varia_outcome(state, &outcome);
	if (ret)
		return ret;
	if (outcome.verdict == VARIA_OUTCOME_FAIL) {
		dev_err(&pdev->dev, "not served: %s\n", outcome.text);
		return -outcome.errno;
	}
	if (outcome.verdict == VARIA_OUTCOME_DECLINE)
		dev_warn(&pdev->dev, "%s\n", outcome.text);
	*served = outcome.verdict == VARIA_OUTCOME_SERVE;
	return 0;
}

int adaptor_probe(struct pci_dev *pdev, const struct adaptor_module *module)
{
	struct adaptor_device *dev;
	struct varia_state *state;
	bool served;
	int ret;

	state = adaptor_build(pdev, module->variant);
	if (IS_ERR(state))
		return PTR_ERR(state);

	ret = adaptor_outcome(pdev, state, &served);
	if (ret)
		goto free_state;

	dev = vfio_alloc_device(adaptor_device, core.vdev, &pdev->dev,
				served ? module->served : module->declined);
	if (IS_ERR(dev)) {
		ret = PTR_ERR(dev);
		goto free_state;
	}
	/* From here on, adaptor_release() frees it. */
	dev->state = state;
	dev->core.pci_ops = &adaptor_pci_ops;
	mutex_init(&dev->map_lock);
	dev_set_drvdata(&pdev->dev, &dev->core);

	ret = vfio_pci_core_register_device(&dev->core);
	if (ret)
		vfio_put_device(&dev->core.vdev);
	return ret;

free_state:
	kfree(state);
	return ret;
}

void adaptor_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	vfio_pci_core_unregister_device(core);
	vfio_put_device(&core->vdev);
}

/* Any reset, also one that VFIO did not ask for; so no lock of ours is held for it. */
static void adaptor_reset_done(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	varia_reset_done(adaptor_of(&core->vdev)->state);
}

const struct pci_error_handlers adaptor_error_handlers = {
	.reset_done = adaptor_reset_done,
	.error_detected = vfio_pci_core_aer_err_detected,
};
