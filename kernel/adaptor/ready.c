// SPDX-License-Identifier: GPL-2.0-only
/*
 * Waiting for a device to be ready: looks under the lock, sleeps without it.
 */
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/sched/signal.h>

#include "adaptor.h"

static bool adaptor_wants_bar0(const struct varia_look *look)
{
	u32 i;

	for (i = 0; i < VARIA_MAX_REGISTERS; i++)
		if (look->registers[i].kind == VARIA_REGISTER_BAR0)
			return true;
	return false;
}

static int adaptor_read_registers(struct pci_dev *pdev, void __iomem *bar0,
				  struct varia_look *look)
{
	u32 i;

	for (i = 0; i < VARIA_MAX_REGISTERS; i++) {
		struct varia_register *reg = &look->registers[i];

		switch (reg->kind) {
		case VARIA_REGISTER_BAR0:
			/* A shorter BAR0 is no device that this variant knows. */
			if (IS_ERR_OR_NULL(bar0) ||
			    reg->offset + sizeof(u32) > pci_resource_len(pdev, 0))
				return -ENODEV;
			reg->value = ioread32(bar0 + reg->offset);
			break;
		case VARIA_REGISTER_CONFIG:
			/* On failure the value is all ones, which has a meaning. */
			pci_read_config_dword(pdev, reg->offset, &reg->value);
			break;
		}
	}
	return 0;
}

/* One look: VARIA_READY, VARIA_READY_SLEEP and for how long, or a negative errno. */
static int adaptor_look(const struct varia_state *state, struct pci_dev *pdev,
			void __iomem *bar0, bool memory_enabled, struct varia_wait *wait,
			u64 *sleep_ms)
{
	struct varia_sample sample = {
		.now = ktime_to_ms(ktime_get()),
		.memory_enabled = memory_enabled,
	};
	struct varia_look look = {};
	int ret;

	ret = varia_ready_before(state, wait, &sample, &look);
	if (ret != VARIA_READY_LOOK)
		return ret;
	ret = adaptor_read_registers(pdev, bar0, &look);
	if (ret)
		return ret;
	ret = varia_ready_after(state, wait, &sample, &look);
	*sleep_ms = look.sleep_ms;
	return ret;
}

/* Sleeps; 0 only lets others run. */
static int adaptor_sleep(u64 ms)
{
	if (ms)
		schedule_timeout_killable(msecs_to_jiffies(ms));
	else
		cond_resched();
	return fatal_signal_pending(current) ? -EINTR : 0;
}

static int adaptor_wait_mapped(struct pci_dev *pdev, const struct varia_state *state,
			       void __iomem *bar0)
{
	struct varia_wait wait = {};
	u64 ms = 0;
	int ret;

	for (;;) {
		ret = adaptor_look(state, pdev, bar0, true, &wait, &ms);
		if (ret != VARIA_READY_SLEEP)
			return ret;
		ret = adaptor_sleep(ms);
		if (ret)
			return ret;
	}
}

/*
 * Waits during probe, when nobody uses the device. BAR0 is enabled and mapped for it if a look
 * reads there.
 */
int adaptor_wait_unbound(struct pci_dev *pdev, const struct varia_state *state)
{
	struct varia_sample sample = { .memory_enabled = true };
	struct varia_look look = {};
	struct varia_wait wait = {};
	void __iomem *bar0;
	int ret;

	ret = varia_ready_before(state, &wait, &sample, &look);
	if (ret != VARIA_READY_LOOK)
		return ret;
	if (!adaptor_wants_bar0(&look))
		return adaptor_wait_mapped(pdev, state, NULL);

	ret = pci_enable_device(pdev);
	if (ret)
		return ret;
	ret = pci_request_selected_regions(pdev, BIT(0), KBUILD_MODNAME);
	if (ret)
		goto disable;
	bar0 = pci_iomap(pdev, 0, 0);
	if (bar0) {
		ret = adaptor_wait_mapped(pdev, state, bar0);
		pci_iounmap(pdev, bar0);
	} else {
		ret = -ENOMEM;
	}
	pci_release_selected_regions(pdev, BIT(0));
disable:
	pci_disable_device(pdev);
	return ret;
}

/*
 * Returns 0 with memory_lock held for reading and the device ready, or a negative errno without
 * the lock. A fault finds a runtime-suspended device not ready; a read or write has resumed it.
 */
int adaptor_lock_ready(struct adaptor_device *dev, struct varia_wait *wait, bool fault)
{
	struct vfio_pci_core_device *core = &dev->core;
	u64 ms = 0;
	int ret;

	for (;;) {
		ret = down_read_killable(&core->memory_lock);
		if (ret)
			return ret;
		if (fault && core->pm_runtime_engaged)
			ret = -EIO;
		else
			ret = adaptor_look(dev->state, core->pdev, core->barmap[0],
					   __vfio_pci_memory_enabled(core), wait, &ms);
		if (!ret)
			return 0;
		up_read(&core->memory_lock);
		if (ret != VARIA_READY_SLEEP)
			return ret;
		ret = adaptor_sleep(ms);
		if (ret)
			return ret;
	}
}
