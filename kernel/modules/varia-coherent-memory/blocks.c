// SPDX-License-Identifier: GPL-2.0-only
/*
 * Blocks of memory that are added to the kernel and taken away.
 *
 * Both need the kernel's lock of device hotplug. ACPI holds that lock while it removes a device, and
 * then waits for the device's own lock, which is held here. So a thread does either, and the wait for
 * the thread has a limit; the thread goes on alone.
 */
#include <linux/cleanup.h>
#include <linux/fs.h>
#include <linux/ioport.h>
#include <linux/kthread.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "coherent.h"

/* The kernel wants names of this form for memory of drivers. */
#define COHERENT_RESOURCE "System RAM (varia)"
#define COHERENT_POLICY "/sys/devices/system/memory/auto_online_blocks"

/* The longest time for taking memory away, and the time in which a try that is stopped ends. */
#define COHERENT_MOST_SECONDS 3600U
#define COHERENT_END_SECONDS 5U

static unsigned int offline_seconds = 20;
module_param(offline_seconds, uint, 0644);
MODULE_PARM_DESC(offline_seconds,
		 "Time for taking a device's memory away, and for the lock that adding memory needs, at most 3600 (default: 20)");

/*
 * coherent_lock guards the list and the stages. It is taken with the lock of device hotplug held, if
 * ACPI removes a device, so nothing that takes that lock is called under it. coherent_adding guards
 * the policy of onlining, and the nodes that are looked up as empty; threads alone take it.
 */
static DEFINE_MUTEX(coherent_lock);
static DEFINE_MUTEX(coherent_adding);
static LIST_HEAD(coherent_kept);

static unsigned long coherent_limit(void)
{
	return min(READ_ONCE(offline_seconds), COHERENT_MOST_SECONDS) * HZ;
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
	init_completion(&coherent->ended);
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

/* Has a thread do work that ends the thread; the thread keeps the device and the module. */
static int coherent_start(struct coherent_device *coherent, int (*work)(void *), const char *name)
{
	struct task_struct *task = kthread_create(work, coherent, "%s", name);

	if (IS_ERR(task))
		return PTR_ERR(task);
	kref_get(&coherent->users);
	__module_get(THIS_MODULE);
	get_task_struct(task);
	coherent->task = task;
	reinit_completion(&coherent->ended);
	wake_up_process(task);
	return 0;
}

static void __noreturn coherent_exit(struct coherent_device *coherent)
{
	kref_put(&coherent->users, coherent_free);
	module_put_and_kthread_exit(0);
}

/*
 * Takes back what the kernel gives back; each share gets its part of the time that is left. Then the
 * device is in the list of what is kept only if it keeps something.
 */
static void coherent_take_shares(struct coherent_device *coherent)
{
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
	if (gone)
		kref_put(&coherent->users, coherent_free);
}

static int coherent_take(void *data)
{
	struct coherent_device *coherent = data;

	coherent_take_shares(coherent);
	complete(&coherent->ended);
	coherent_exit(coherent);
}

/* Gives up a reference. What the kernel does not give back stays in the list of what is kept. */
void coherent_give_back(struct coherent_device *coherent)
{
	unsigned long limit = coherent_limit();
	struct pci_dev *pdev = coherent->pdev;
	struct task_struct *task;
	bool ended;
	int ret;

	if (!coherent_shares(coherent)) {
		kref_put(&coherent->users, coherent_free);
		return;
	}
	/* Of this function, because the thread may give up that of the list. */
	kref_get(&coherent->users);
	coherent->end = jiffies + limit;
	scoped_guard(mutex, &coherent_lock) {
		list_add(&coherent->list, &coherent_kept);
		coherent->trying = true;
	}
	ret = coherent_start(coherent, coherent_take, "varia-offline");
	if (ret) {
		scoped_guard(mutex, &coherent_lock)
			coherent->trying = false;
		pci_err(pdev, "the memory stays in use, because no thread can be started (%d): bind and unbind again\n",
			ret);
		kref_put(&coherent->users, coherent_free);
		return;
	}
	task = coherent->task;
	do {
		ended = wait_for_completion_timeout(&coherent->ended, HZ / 10 + 1);
	} while (!ended && time_before(jiffies, coherent->end + COHERENT_END_SECONDS * HZ));
	if (ended) {
		kthread_stop_put(task);
	} else {
		pci_err(pdev, "the memory stays in use after %lu s, and is still being taken away: see the lines that follow\n",
			limit / HZ + COHERENT_END_SECONDS);
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

/* Reads the policy of onlining, or writes it. */
static int coherent_policy(struct file *file, char *text, size_t len, bool write)
{
	loff_t position = 0;
	ssize_t done = write ? kernel_write(file, text, strlen(text), &position) :
			       kernel_read(file, text, len - 1, &position);

	if (done >= 0 && !write)
		text[done] = 0;
	return done < 0 ? done : 0;
}

/* Adds all memory, online as movable: else it could hardly be taken away again. */
static int coherent_add(struct coherent_device *coherent, char *text)
{
	struct coherent_placement *placement = &coherent->placement;
	char movable[] = "online_movable", before[32];
	int back, ret = coherent_policy(coherent->policy, before, sizeof(before), false);
	u32 i, tried = 0;

	ret = ret ?: coherent_policy(coherent->policy, movable, 0, true);
	if (ret) {
		snprintf(text, VARIA_TEXT_LEN, "%s can't be used (%d): mount sysfs on /sys",
			 COHERENT_POLICY, ret);
		placement->count = 0; /* nothing to be removed */
		return ret;
	}
	scoped_guard(mutex, &coherent_lock)
		coherent->stage = COHERENT_ADDS;
	while (!ret && tried < placement->count) {
		WRITE_ONCE(coherent->adds, tried);
		ret = coherent_add_share(&placement->share[tried++], text);
		if (READ_ONCE(coherent->abandoned))
			break;
	}
	scoped_guard(mutex, &coherent_lock)
		coherent->stage = COHERENT_ENDED;
	back = coherent_policy(coherent->policy, before, 0, true);
	if (back)
		pci_warn(coherent->pdev, "%s stays online_movable (%d): write %s to it\n",
			 COHERENT_POLICY, back, strim(before));
	/* What was not added is not to be removed. */
	for (i = tried; i < placement->count; i++)
		placement->share[i].memory.size = 0;
	return ret;
}

static int coherent_begin(struct coherent_device *coherent)
{
	struct coherent_facts facts = {};
	struct coherent_memory memory;
	char line[VARIA_TEXT_LEN];
	u32 i;
	int ret;

	guard(mutex)(&coherent_adding);
	scoped_guard(mutex, &coherent_lock) {
		if (coherent->abandoned)
			return -EBUSY;
		coherent->stage = COHERENT_PLANS;
	}
	ret = coherent_plan(coherent->pdev, &facts, &memory, &coherent->placement,
			    coherent->text) ?:
	      coherent_add(coherent, coherent->text);
	for (i = 0; !ret && coherent_line(i, &facts, &memory, &coherent->placement, line,
					  sizeof(line)); i++)
		pci_info(coherent->pdev, "%s\n", line);
	return ret;
}

static int coherent_give(void *data)
{
	struct coherent_device *coherent = data;
	bool abandoned;

	coherent->result = coherent_begin(coherent);
	filp_close(coherent->policy, NULL);
	scoped_guard(mutex, &coherent_lock) {
		coherent->stage = COHERENT_ENDED;
		abandoned = coherent->abandoned;
	}
	complete(&coherent->ended);
	if (abandoned) {
		coherent->end = jiffies + coherent_limit();
		coherent_take_shares(coherent);
	}
	coherent_exit(coherent);
}

/* The addition goes on: it does not wait for a lock. */
static bool coherent_goes_on(struct coherent_device *coherent)
{
	struct coherent_memory *memory;

	if (coherent->stage == COHERENT_PLANS || coherent->stage == COHERENT_ENDED)
		return true;
	if (coherent->stage == COHERENT_WAITS)
		return false;
	memory = &coherent->placement.share[READ_ONCE(coherent->adds)].memory;
	return memory->size && region_intersects(memory->base, memory->size, IORESOURCE_SYSTEM_RAM,
						 IORES_DESC_NONE) != REGION_DISJOINT;
}

/*
 * Leaves an addition alone that waits for a lock, unless it has just gone on. Its memory is taken
 * away once it is there, and does not come online before.
 */
static bool coherent_abandon(struct coherent_device *coherent)
{
	char offline[] = "offline";

	guard(mutex)(&coherent_lock);
	if (coherent_goes_on(coherent))
		return false;
	coherent->abandoned = true;
	if (coherent->stage == COHERENT_ADDS)
		coherent_policy(coherent->policy, offline, 0, true);
	coherent->trying = true;
	list_add(&coherent->list, &coherent_kept);
	return true;
}

/* Adds the memory of a new device; gives up its reference if the addition takes too long. */
static int coherent_wait_for_addition(struct coherent_device **found, char *text)
{
	struct coherent_device *coherent = *found;
	unsigned long limit = coherent_limit(), waits = jiffies;
	int ret;

	coherent->policy = filp_open(COHERENT_POLICY, O_RDWR, 0);
	if (IS_ERR(coherent->policy)) {
		ret = PTR_ERR(coherent->policy);
		snprintf(text, VARIA_TEXT_LEN, "%s can't be used (%d): mount sysfs on /sys",
			 COHERENT_POLICY, ret);
		return ret;
	}
	ret = coherent_start(coherent, coherent_give, "varia-online");
	if (ret) {
		filp_close(coherent->policy, NULL);
		snprintf(text, VARIA_TEXT_LEN, "no thread can be started (%d): bind again", ret);
		return ret;
	}
	put_task_struct(coherent->task);
	while (!wait_for_completion_timeout(&coherent->ended, HZ / 10 + 1)) {
		scoped_guard(mutex, &coherent_lock) {
			if (coherent_goes_on(coherent))
				waits = jiffies;
		}
		if (time_before(jiffies, waits + limit) || !coherent_abandon(coherent))
			continue;
		*found = NULL;
		snprintf(text, VARIA_TEXT_LEN,
			 "memory is being added or taken away elsewhere for %lu s: bind again later",
			 limit / HZ);
		return -EBUSY;
	}
	strscpy(text, coherent->text, VARIA_TEXT_LEN);
	return coherent->result;
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

/*
 * Memory of a device that is enabled: what was kept, or new memory. After an error the caller gives
 * back what was found.
 */
int coherent_get(struct pci_dev *pdev, struct coherent_device **found, char *text)
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
	return coherent_wait_for_addition(found, text);
}
