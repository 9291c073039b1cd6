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
#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/kref.h>
#include <linux/kthread.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/minmax.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/nodemask.h>
#include <linux/pci.h>
#include <linux/property.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/timer.h>

#include "coherent_abi.h"
#include "varia_probes.h"

/* The kernel wants names of this form for memory of drivers. */
#define COHERENT_RESOURCE "System RAM (varia)"
#define COHERENT_POLICY "/sys/devices/system/memory/auto_online_blocks"

static char *split = "first";
module_param(split, charp, 0644);
MODULE_PARM_DESC(split, "Memory of each node: first, even, or NODE:SIZE,... (default: first)");

/* The longest time for taking memory away, and the time in which a try that is stopped ends. */
#define COHERENT_MOST_SECONDS 3600U
#define COHERENT_END_SECONDS 5U

static unsigned int offline_seconds = 20;
module_param(offline_seconds, uint, 0644);
MODULE_PARM_DESC(offline_seconds,
		 "Time for taking a device's memory away, at most 3600 (default: 20)");

/*
 * Memory of a device. It outlives the binding if the kernel does not give all of it back. It keeps
 * the module, which has the memory's name, and the device.
 */
struct coherent_device {
	struct list_head list;
	struct kref users;
	struct pci_dev *pdev;
	struct coherent_placement placement;
	atomic64_t completions;
	/* A try to take the memory away: its thread, its end in jiffies, the limit of a share. */
	struct task_struct *task;
	unsigned long end;
	struct timer_list limit;
	struct completion tried;
	bool trying; /* under coherent_lock */
};

/*
 * coherent_lock guards the list. It is taken with the lock of device hotplug held, if ACPI removes a
 * device, so nothing that takes that lock is called under it. coherent_adding guards the policy of
 * onlining, and the nodes that are looked up as empty.
 */
static DEFINE_MUTEX(coherent_lock);
static DEFINE_MUTEX(coherent_adding);
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

/* The device's driver_override names this driver. An id that was written to new_id does not count. */
static bool coherent_is_named(struct pci_dev *pdev)
{
#ifdef ADAPTOR_HAS_DEVICE_MATCH_DRIVER_OVERRIDE
	return device_match_driver_override(&pdev->dev, pdev->dev.driver) > 0;
#else
	return pdev->driver_override && !strcmp(pdev->driver_override, pdev->dev.driver->name);
#endif
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
	if (count < 0)
		return count;
	/* A write to the parameter frees the string. */
	kernel_param_lock(THIS_MODULE);
	i = coherent_place(facts, memory, domains, nodes, count, split, strlen(split), placement,
			   text, VARIA_TEXT_LEN);
	kernel_param_unlock(THIS_MODULE);
	return i;
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

static void coherent_free(struct kref *users)
{
	struct coherent_device *coherent = container_of(users, struct coherent_device, users);

	pci_dev_put(coherent->pdev);
	kfree(coherent);
	module_put(THIS_MODULE);
}

/* A signal ends a try that would go on for as long as a page is pinned. */
static void coherent_stop(struct timer_list *limit)
{
	struct coherent_device *coherent = container_of(limit, struct coherent_device, limit);

	send_sig(SIGTERM, coherent->task, 1);
}

static struct coherent_device *coherent_new(struct pci_dev *pdev)
{
	struct coherent_device *coherent;

	if (!try_module_get(THIS_MODULE))
		return NULL;
	coherent = kzalloc(sizeof(*coherent), GFP_KERNEL);
	if (!coherent) {
		module_put(THIS_MODULE);
		return NULL;
	}
	kref_init(&coherent->users);
	coherent->pdev = pci_dev_get(pdev);
	timer_setup(&coherent->limit, coherent_stop, 0);
	init_completion(&coherent->tried);
	return coherent;
}

/* The number of shares that are memory of the kernel. */
static u32 coherent_shares(const struct coherent_device *coherent)
{
	u32 i, shares = 0;

	for (i = 0; i < coherent->placement.count; i++)
		shares += coherent->placement.share[i].memory.size != 0;
	return shares;
}

static void coherent_take_share(struct coherent_device *coherent, struct coherent_share *share,
				unsigned long limit)
{
	char text[VARIA_TEXT_LEN];
	int ret;

	mod_timer(&coherent->limit, jiffies + limit);
	ret = offline_and_remove_memory(share->memory.base, share->memory.size);
	timer_delete_sync(&coherent->limit);
	flush_signals(current);
	if (ret) {
		coherent_held(share, ret, text, sizeof(text));
		pci_err(coherent->pdev, "%s\n", text);
	} else {
		share->memory.size = 0;
	}
}

/* Takes back what the kernel gives back. Each share gets its part of the time that is left. */
static int coherent_take(void *data)
{
	struct coherent_device *coherent = data;
	u32 i, left = coherent_shares(coherent);
	bool gone;

	allow_signal(SIGTERM);
	for (i = 0; i < coherent->placement.count; i++) {
		unsigned long now = jiffies;

		if (!coherent->placement.share[i].memory.size)
			continue;
		coherent_take_share(coherent, &coherent->placement.share[i],
				    time_before(now, coherent->end) ?
					    (coherent->end - now) / left : 0);
		left--;
	}
	scoped_guard(mutex, &coherent_lock) {
		coherent->trying = false;
		gone = !coherent_shares(coherent);
		if (gone)
			list_del(&coherent->list);
	}
	complete(&coherent->tried);
	if (gone)
		kref_put(&coherent->users, coherent_free);
	kref_put(&coherent->users, coherent_free);
	module_put_and_kthread_exit(0);
}

/*
 * Gives up a reference. What the kernel does not give back stays in the list of what is kept.
 *
 * A thread takes the memory away, and is waited for until the deadline only: it needs the lock of
 * device hotplug, which is held here if ACPI removes the device. It then goes on alone.
 */
static void coherent_give_back(struct coherent_device *coherent)
{
	unsigned int seconds = min(READ_ONCE(offline_seconds), COHERENT_MOST_SECONDS);
	struct pci_dev *pdev = coherent->pdev;
	struct task_struct *task;
	bool ended;

	if (!coherent_shares(coherent)) {
		kref_put(&coherent->users, coherent_free);
		return;
	}
	task = kthread_create(coherent_take, coherent, "varia-offline");
	scoped_guard(mutex, &coherent_lock) {
		list_add(&coherent->list, &coherent_kept);
		coherent->trying = !IS_ERR(task);
	}
	if (IS_ERR(task)) {
		pci_err(pdev, "the memory stays in use, because no thread can be started (%ld): bind and unbind again\n",
			PTR_ERR(task));
		return;
	}
	/* Of the thread, and of this function. */
	kref_get(&coherent->users);
	kref_get(&coherent->users);
	__module_get(THIS_MODULE);
	get_task_struct(task);
	coherent->task = task;
	coherent->end = jiffies + seconds * HZ;
	reinit_completion(&coherent->tried);
	wake_up_process(task);
	do {
		ended = wait_for_completion_timeout(&coherent->tried, HZ / 10 + 1);
	} while (!ended && time_before(jiffies, coherent->end + COHERENT_END_SECONDS * HZ));
	if (ended) {
		kthread_stop_put(task);
	} else {
		pci_err(pdev, "the memory stays in use after %u s, and is still being taken away: see the lines that follow\n",
			seconds + COHERENT_END_SECONDS);
		put_task_struct(task);
	}
	kref_put(&coherent->users, coherent_free);
}

/* Pages of a node that are online as movable. */
static unsigned long coherent_movable(u32 node)
{
	return READ_ONCE(NODE_DATA(node)->node_zones[ZONE_MOVABLE].present_pages);
}

/* Adds a share; it has no size if it was not added. */
static int coherent_add_share(struct coherent_share *share, char *text)
{
	unsigned long pages = share->memory.size >> PAGE_SHIFT;
	unsigned long before = coherent_movable(share->node);
	int ret = add_memory_driver_managed(share->node, share->memory.base, share->memory.size,
					    COHERENT_RESOURCE, MHP_NONE);

	if (ret) {
		snprintf(text, VARIA_TEXT_LEN,
			 "the kernel does not take the memory of node %u (%d): see its log",
			 share->node, ret);
		share->memory.size = 0;
		return ret;
	}
	/* An addition succeeds even if no block becomes online. */
	if (coherent_movable(share->node) - before < pages) {
		snprintf(text, VARIA_TEXT_LEN,
			 "the memory of node %u is not all online as movable: see the kernel's log",
			 share->node);
		return -EIO;
	}
	return 0;
}

/* Adds all memory, online as movable: else it could hardly be taken away again. */
static int coherent_add(struct device *dev, struct coherent_placement *placement, char *text)
{
	char movable[] = "online_movable", before[32];
	int back, ret = coherent_policy(before, sizeof(before), false);
	u32 i, tried = 0;

	ret = ret ?: coherent_policy(movable, 0, true);
	if (ret) {
		snprintf(text, VARIA_TEXT_LEN, "%s can't be used (%d): mount sysfs on /sys",
			 COHERENT_POLICY, ret);
		placement->count = 0; /* nothing to be removed */
		return ret;
	}
	while (!ret && tried < placement->count)
		ret = coherent_add_share(&placement->share[tried++], text);
	back = coherent_policy(before, 0, true);
	if (back)
		dev_warn(dev, "%s stays online_movable (%d): write %s to it\n", COHERENT_POLICY,
			 back, strim(before));
	/* What was not added is not to be removed. */
	for (i = tried; i < placement->count; i++)
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
		if (coherent->pdev != pdev)
			continue;
		if (coherent->trying)
			return ERR_PTR(-EBUSY);
		list_del(&coherent->list);
		return coherent;
	}
	return NULL;
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
	      coherent_add(&pdev->dev, &coherent->placement, text);
	for (i = 0; !ret && coherent_line(i, &facts, &memory, &coherent->placement, line,
					  sizeof(line)); i++)
		dev_info(&pdev->dev, "%s\n", line);
	return ret;
}

/* The memory of a device that is enabled: what was kept, or new memory. */
static int coherent_get(struct pci_dev *pdev, struct coherent_device **found, char *text)
{
	scoped_guard(mutex, &coherent_lock)
		*found = coherent_kept_of(pdev);
	if (IS_ERR(*found)) {
		*found = NULL;
		snprintf(text, VARIA_TEXT_LEN,
			 "its memory is still being taken away: bind again later");
		return -EBUSY;
	}
	if (*found)
		return 0;
	*found = coherent_new(pdev);
	if (!*found)
		return -ENOMEM;
	guard(mutex)(&coherent_adding);
	return coherent_begin(pdev, *found, text);
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
