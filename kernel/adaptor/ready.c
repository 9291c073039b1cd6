// SPDX-License-Identifier: GPL-2.0-only
/*
 * Wait for a device to be ready: polls with the lock held, sleeps without it.
 */
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/sched/signal.h>

#include "adaptor.h"

/* A missing register reads as all ones, as on the bus. */
static u32 adaptor_read_register(struct pci_dev *pdev, void __iomem *bar0,
				 const struct varia_register *reg)
{
	u32 value = ~0;

	if (reg->kind == VARIA_REGISTER_CONFIG)
		pci_read_config_dword(pdev, reg->offset, &value);
	else if (reg->kind == VARIA_REGISTER_BAR0 && !IS_ERR_OR_NULL(bar0) &&
		 reg->offset + sizeof(value) <= pci_resource_len(pdev, 0))
		value = ioread32(bar0 + reg->offset);
	return value;
}

/* Polls once; returns VARIA_READY, VARIA_READY_SLEEP, or a negative errno. */
static int adaptor_poll(const struct varia_state *state, struct pci_dev *pdev,
			void __iomem *bar0, struct varia_sample *sample, struct varia_wait *wait)
{
	struct varia_poll poll = {};
	int ret, i;

	sample->now = ktime_to_ms(ktime_get());
	sample->killed |= fatal_signal_pending(current);
	ret = varia_ready_before(state, wait, sample, &poll);
	if (ret != VARIA_READY_POLL)
		return ret;
	for (i = 0; i < VARIA_MAX_REGISTERS; i++)
		poll.registers[i].value = adaptor_read_register(pdev, bar0, &poll.registers[i]);
	return varia_ready_after(state, wait, sample, &poll);
}

/* Sleeps if a poll asks for it; returns true to poll again. A kill ends the sleep. */
static bool adaptor_again(int ret, const struct varia_wait *wait)
{
	if (ret == VARIA_READY_SLEEP)
		schedule_timeout_killable(msecs_to_jiffies(wait->sleep_ms));
	return ret == VARIA_READY_SLEEP;
}

static int adaptor_wait_mapped(struct pci_dev *pdev, const struct varia_state *state,
			       void __iomem *bar0)
{
	struct varia_sample sample = { .memory_enabled = true };
	struct varia_wait wait = {};
	int ret;

	do {
		ret = adaptor_poll(state, pdev, bar0, &sample, &wait);
	} while (adaptor_again(ret, &wait));
	return ret;
}

/* Waits during probe, before the device has users. Enables and maps BAR0 if a poll reads it. */
int adaptor_wait_unbound(struct pci_dev *pdev, const struct varia_state *state)
{
	void __iomem *bar0;
	int ret;

	if (!varia_polls_bar0(state))
		return adaptor_wait_mapped(pdev, state, NULL);

	ret = pci_enable_device(pdev);
	if (ret)
		return ret;
	ret = pci_request_selected_regions(pdev, BIT(0), KBUILD_MODNAME);
	if (!ret) {
		bar0 = pci_iomap(pdev, 0, 0);
		ret = bar0 ? adaptor_wait_mapped(pdev, state, bar0) : -ENOMEM;
		if (bar0)
			pci_iounmap(pdev, bar0);
		pci_release_selected_regions(pdev, BIT(0));
	}
	pci_disable_device(pdev);
	return ret;
}

/*
 * Polls once. Returns 0 with memory_lock held for reading and the device ready; VARIA_READY_SLEEP or
 * a negative errno without the lock. A read or write has resumed the device; a fault fails if the
 * device is runtime suspended.
 */
int adaptor_lock_once(struct adaptor_device *dev, struct varia_wait *wait, bool fault)
{
	struct vfio_pci_core_device *core = &dev->core;
	bool locked = !down_read_killable(&core->memory_lock);
	struct varia_sample sample = { .in_use = true, .killed = !locked };
	int ret;

	sample.suspended = fault && core->pm_runtime_engaged;
	sample.locked = rwsem_is_locked(&core->memory_lock) &&
			lockdep_is_held_type(&core->memory_lock, 1);
	sample.memory_enabled = locked && __vfio_pci_memory_enabled(core);
	ret = adaptor_poll(dev->state, core->pdev, dev->bar0, &sample, wait);
	if (ret && locked)
		up_read(&core->memory_lock);
	return ret;
}

/* The same until the device is ready or the wait fails; returns 0 or a negative errno. */
int adaptor_lock_ready(struct adaptor_device *dev, struct varia_wait *wait, bool fault)
{
	int ret;

	do {
		ret = adaptor_lock_once(dev, wait, fault);
	} while (adaptor_again(ret, wait));
	return ret;
}
