// SPDX-License-Identifier: GPL-2.0-only
/*
 * varia-coherent-memory: a GPU's coherent memory as memory of this kernel.
 *
 * In a VM the memory is in BAR4, on the host itself firmware says where it is. This half looks facts
 * up, adds memory and takes it away; what goes where is decided by the Rust half (border.rs). It
 * binds only to a device whose driver_override names it.
 */
#include <linux/acpi.h>
#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/module.h>
#include <linux/nodemask.h>
#include <linux/pci.h>
#include <linux/property.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "coherent_abi.h"

/* The kernel wants names of this form for memory of drivers. */
#define COHERENT_RESOURCE "System RAM (varia)"
#define COHERENT_POLICY "/sys/devices/system/memory/auto_online_blocks"

static char *split = "first";
module_param(split, charp, 0644);
MODULE_PARM_DESC(split, "Memory of each node: first, even, or NODE:SIZE,... (default: first)");

static unsigned int offline_seconds = 20;
module_param(offline_seconds, uint, 0644);
MODULE_PARM_DESC(offline_seconds, "Time for taking a node's memory away (default: 20)");

/* Memory of a device. It outlives the binding if the kernel does not give all of it back. */
struct coherent_device {
	struct list_head list;
	char name[32];
	struct coherent_placement placement;
	atomic64_t completions;
};

static DEFINE_MUTEX(coherent_lock); /* the list, and the policy of onlining */
static LIST_HEAD(coherent_kept);

static void coherent_facts(struct pci_dev *pdev, struct coherent_facts *facts)
{
	char name[VARIA_NAME_LEN];
	u32 i;

	for (i = 0; i < VARIA_PROPERTIES && !coherent_property(i, name, sizeof(name)); i++)
		facts->property_errno[i] =
			-device_property_read_u64(&pdev->dev, name, &facts->property[i]);
	facts->bar2.base = pci_resource_start(pdev, 2);
	facts->bar2.size = pci_resource_len(pdev, 2);
	facts->bar4.base = pci_resource_start(pdev, 4);
	facts->bar4.size = pci_resource_len(pdev, 4);
	facts->block = memory_block_size_bytes();
	facts->max_nodes = MAX_NUMNODES;
	facts->page_shift = PAGE_SHIFT;
	facts->segment = pci_domain_nr(pdev->bus);
	facts->bdf = pci_dev_id(pdev);
}

/* Returns 1 if the word at an offset of BAR4 keeps what is written; leaves it as it was. */
static int coherent_keeps(const struct coherent_facts *facts, u64 offset)
{
	void __iomem *word = ioremap_wc(facts->bar4.base + offset, sizeof(u64));
	u64 before, other;
	int keeps;

	if (!word)
		return -ENOMEM;
	before = readq(word);
	other = ~before ^ offset;
	writeq(other, word);
	keeps = readq(word) == other;
	if (keeps)
		writeq(before, word);
	iounmap(word);
	return keeps;
}

static int coherent_find(struct pci_dev *pdev, const struct coherent_facts *facts,
			 struct coherent_memory *memory, char *text)
{
	int ret = coherent_extent(facts, memory, text, VARIA_TEXT_LEN);
	struct coherent_search search = {};
	int keeps = 0;
	u64 offset;

	if (ret != VARIA_EXTENT_BAR)
		return ret;
	ret = pci_enable_device_mem(pdev);
	if (ret)
		return ret;
	while (keeps >= 0 && coherent_search_next(facts, &search, keeps, &offset))
		keeps = coherent_keeps(facts, offset);
	return keeps < 0 ? keeps :
	       coherent_search_found(facts, &search, memory, text, VARIA_TEXT_LEN);
}

static int coherent_plan(const struct coherent_facts *facts, const struct coherent_memory *memory,
			 struct coherent_placement *placement, char *text)
{
	struct coherent_node nodes[VARIA_MAX_SHARES] = {};
	u32 domains[VARIA_MAX_SHARES] = {};
	struct acpi_table_header *srat = NULL;
	int i, count;

	if (ACPI_FAILURE(acpi_get_table(ACPI_SIG_SRAT, 0, &srat)))
		srat = NULL;
	count = coherent_domains(facts, (u8 *)srat, srat ? srat->length : 0, domains, text,
				 VARIA_TEXT_LEN);
	if (srat)
		acpi_put_table(srat);
	for (i = 0; i < count; i++) {
		nodes[i].number = pxm_to_node(domains[i]);
		if (nodes[i].number >= 0 && nodes[i].number < MAX_NUMNODES)
			nodes[i].has_memory = node_state(nodes[i].number, N_MEMORY);
	}
	return count < 0 ? count :
	       coherent_place(facts, memory, domains, nodes, count, split, strlen(split), placement,
			      text, VARIA_TEXT_LEN);
}

/* Reads the policy of onlining, or writes it. */
static int coherent_policy(char *text, size_t len, bool write)
{
	struct file *file = filp_open(COHERENT_POLICY, write ? O_WRONLY : O_RDONLY, 0);
	loff_t position = 0;
	ssize_t done;

	if (IS_ERR(file))
		return PTR_ERR(file);
	done = write ? kernel_write(file, text, strlen(text), &position) :
		       kernel_read(file, text, len - 1, &position);
	filp_close(file, NULL);
	if (done >= 0 && !write)
		text[done] = 0;
	return done < 0 ? done : 0;
}

static int coherent_offline(void *data)
{
	struct coherent_share *share = data;

	/* A signal ends a try that would go on for as long as a page is pinned. */
	allow_signal(SIGTERM);
	return offline_and_remove_memory(share->memory.base, share->memory.size);
}

static int coherent_remove_share(struct device *dev, struct coherent_share *share)
{
	unsigned long end = jiffies + offline_seconds * HZ;
	struct task_struct *task;
	char text[VARIA_TEXT_LEN];
	int ret;

	task = kthread_create(coherent_offline, share, "varia-offline");
	if (IS_ERR(task))
		return PTR_ERR(task);
	get_task_struct(task);
	wake_up_process(task);
	while (!READ_ONCE(task->exit_state)) {
		if (time_after(jiffies, end))
			send_sig(SIGTERM, task, 1);
		msleep(10);
	}
	ret = kthread_stop_put(task);
	if (ret) {
		coherent_held(share, ret, text, sizeof(text));
		dev_err(dev, "%s\n", text);
	} else {
		share->memory.size = 0;
	}
	return ret;
}

/* Takes back what the kernel gives back; returns the last error. */
static int coherent_remove_all(struct device *dev, struct coherent_device *coherent)
{
	int i, ret = 0;

	for (i = 0; i < coherent->placement.count; i++) {
		struct coherent_share *share = &coherent->placement.share[i];

		if (share->memory.size)
			ret = coherent_remove_share(dev, share) ?: ret;
	}
	return ret;
}

/* Adds all memory, online as movable: else it could hardly be taken away again. */
static int coherent_add(struct device *dev, struct coherent_device *coherent, char *text)
{
	struct coherent_placement *placement = &coherent->placement;
	char movable[] = "online_movable", before[32];
	int i, added = 0, ret = coherent_policy(before, sizeof(before), false);

	ret = ret ?: coherent_policy(movable, 0, true);
	if (ret) {
		snprintf(text, VARIA_TEXT_LEN, "%s can't be used (%d): mount sysfs on /sys",
			 COHERENT_POLICY, ret);
		placement->count = 0; /* nothing to be removed */
		return ret;
	}
	for (i = 0; i < placement->count && !ret; i++) {
		struct coherent_share *share = &placement->share[i];

		ret = add_memory_driver_managed(share->node, share->memory.base,
						share->memory.size, COHERENT_RESOURCE, MHP_NONE);
		if (ret)
			snprintf(text, VARIA_TEXT_LEN,
				 "the kernel does not take the memory of node %u (%d): see its log",
				 share->node, ret);
		else
			added++;
	}
	coherent_policy(before, 0, true);
	/* What was not added is not to be removed. */
	if (ret)
		for (i = added; i < placement->count; i++)
			placement->share[i].memory.size = 0;
	return ret;
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

/* Memory that was not given back when the device was unbound last. */
static struct coherent_device *coherent_kept_of(struct pci_dev *pdev)
{
	struct coherent_device *coherent;

	list_for_each_entry(coherent, &coherent_kept, list) {
		if (strcmp(coherent->name, pci_name(pdev)))
			continue;
		list_del(&coherent->list);
		module_put(THIS_MODULE);
		return coherent;
	}
	return NULL;
}

static void coherent_release(struct device *dev, struct coherent_device *coherent)
{
	if (!coherent_remove_all(dev, coherent)) {
		kfree(coherent);
		return;
	}
	/* The name of the memory and this list have to stay. */
	__module_get(THIS_MODULE);
	list_add(&coherent->list, &coherent_kept);
}

static int coherent_begin(struct pci_dev *pdev, struct coherent_device *coherent, char *text)
{
	struct coherent_facts facts = {};
	struct coherent_memory memory;
	char line[VARIA_TEXT_LEN];
	u32 i;
	int ret;

	coherent_facts(pdev, &facts);
	ret = coherent_find(pdev, &facts, &memory, text) ?:
	      coherent_plan(&facts, &memory, &coherent->placement, text) ?:
	      coherent_add(&pdev->dev, coherent, text);
	for (i = 0; !ret && coherent_line(i, &facts, &memory, &coherent->placement, line,
					  sizeof(line)); i++)
		dev_info(&pdev->dev, "%s\n", line);
	return ret;
}

static int coherent_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	char text[VARIA_TEXT_LEN] = "";
	struct coherent_device *coherent;
	int ret = 0;

	/* An id that was written to new_id: the device may be another driver's. */
	if (id->vendor != PCI_ANY_ID || id->device != PCI_ANY_ID)
		return -ENODEV;
	guard(mutex)(&coherent_lock);
	coherent = coherent_kept_of(pdev);
	if (!coherent) {
		coherent = kzalloc(sizeof(*coherent), GFP_KERNEL);
		if (!coherent)
			return -ENOMEM;
		strscpy(coherent->name, pci_name(pdev), sizeof(coherent->name));
		ret = coherent_begin(pdev, coherent, text);
	}
	if (ret) {
		dev_err(&pdev->dev, "not used: %s (%d)\n", text, ret);
		coherent_release(&pdev->dev, coherent);
		return ret;
	}
	dev_set_drvdata(&pdev->dev, coherent);
	coherent_listen(pdev, coherent);
	return 0;
}

static void coherent_remove(struct pci_dev *pdev)
{
	struct coherent_device *coherent = dev_get_drvdata(&pdev->dev);

	guard(mutex)(&coherent_lock);
	coherent_listen_no_more(pdev, coherent);
	coherent_release(&pdev->dev, coherent);
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
