// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes a page fail, for tests: what hwpoison's injection by debugfs refuses for memory without
 * a struct page. A write of a host-physical address to the parameter "address" reports its page
 * to the kernel, in the name of the process that writes.
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/module.h>

static int poison_set(const char *text, const struct kernel_param *param)
{
	u64 address;
	int ret;

	ret = kstrtou64(text, 0, &address);
	return ret ?: memory_failure(PHYS_PFN(address), 0);
}

static const struct kernel_param_ops poison_ops = {
	.set = poison_set,
};
module_param_cb(address, &poison_ops, NULL, 0200);
MODULE_PARM_DESC(address, "Host-physical address whose page fails");

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Pages that fail, for tests");
