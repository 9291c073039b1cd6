// SPDX-License-Identifier: GPL-2.0-only
/*
 * Changes the state of memory, for tests.
 *
 * Makes a page fail: what hwpoison's injection by debugfs refuses for memory without
 * a struct page. A write of a host-physical address to the parameter "address" reports its page
 * to the kernel, in the name of the process that writes.
 *
 * Gives memory to the kernel as RAM: a write of a host-physical address to the parameter "online"
 * adds the block of memory that begins there.
 */
#include <linux/kernel.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
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

static int online_set(const char *text, const struct kernel_param *param)
{
	u64 address;
	int ret;

	ret = kstrtou64(text, 0, &address);
	return ret ?: add_memory(0, address, memory_block_size_bytes(), MHP_NONE);
}

static const struct kernel_param_ops online_ops = {
	.set = online_set,
};
module_param_cb(online, &online_ops, NULL, 0200);
MODULE_PARM_DESC(online, "Host-physical address of a block to add as RAM");

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Pages that fail and memory that is added, for tests");
