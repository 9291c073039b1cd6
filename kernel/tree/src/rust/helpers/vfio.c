// SPDX-License-Identifier: GPL-2.0

#include <linux/ioport.h>
#include <linux/pgtable.h>
#include <linux/pm_runtime.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>

/* Only some architectures limit physical addresses by a mask. */
#ifndef PHYS_MASK
#define PHYS_MASK U64_MAX
#endif

__rust_helper u64 rust_helper_last_physical_address(void)
{
	return iomem_resource.end & PHYS_MASK;
}

__rust_helper void rust_helper_vfio_put_device(struct vfio_device *device)
{
	vfio_put_device(device);
}

__rust_helper int rust_helper_pm_runtime_resume_and_get(struct device *dev)
{
	return pm_runtime_resume_and_get(dev);
}

__rust_helper void rust_helper_pm_runtime_put(struct device *dev)
{
	pm_runtime_put(dev);
}

__rust_helper void rust_helper_cond_resched(void)
{
	cond_resched();
}

__rust_helper int rust_helper_fatal_signal_pending(struct task_struct *task)
{
	return fatal_signal_pending(task);
}

/* Copies up to the first page fault; returns the bytes that are left. */
__rust_helper unsigned long
rust_helper_copy_to_user_inatomic(void __user *to, const void *from,
				  unsigned long n)
{
	unsigned long left;

	if (!access_ok(to, n))
		return n;
	pagefault_disable();
	left = __copy_to_user_inatomic(to, from, n);
	pagefault_enable();
	return left;
}

/* Copies up to the first page fault; returns the bytes that are left. */
__rust_helper unsigned long
rust_helper_copy_from_user_inatomic(void *to, const void __user *from,
				    unsigned long n)
{
	unsigned long left;

	if (!access_ok(from, n))
		return n;
	pagefault_disable();
	left = __copy_from_user_inatomic(to, from, n);
	pagefault_enable();
	return left;
}
