/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of this driver share. */
#ifndef COHERENT_H
#define COHERENT_H

#include <linux/completion.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/pci.h>
#include <linux/timer.h>

#include "coherent_abi.h"

/* Stage of an addition of memory. */
enum coherent_stage {
	COHERENT_WAITS, /* for the addition of another device */
	COHERENT_PLANS,
	COHERENT_ADDS, /* or waits for the lock of memory hotplug */
	COHERENT_ENDED,
};

/*
 * Memory of a device. It outlives the binding if the kernel does not give all of it back, or adds it
 * too late. It keeps the module, which has the memory's name, and the device.
 */
struct coherent_device {
	struct list_head list;
	struct kref users;
	struct pci_dev *pdev;
	struct coherent_placement placement;
	atomic64_t completions;
	/* An addition: its stage, its share, its result, and the file of the policy of onlining. */
	enum coherent_stage stage; /* under coherent_lock, as is abandoned */
	bool abandoned;
	u32 adds;
	int result;
	char text[VARIA_TEXT_LEN];
	struct file *policy;
	/* A try to take the memory away: its thread, its end in jiffies, the limit of a share. */
	struct task_struct *task;
	unsigned long end;
	struct timer_list limit;
	/* The thread of an addition or of a try has ended its work. */
	struct completion ended;
	bool trying; /* under coherent_lock */
};

/* facts.c */
int coherent_plan(struct pci_dev *pdev, struct coherent_facts *facts,
		  struct coherent_memory *memory, struct coherent_placement *placement, char *text);

/* blocks.c */
int coherent_get(struct pci_dev *pdev, struct coherent_device **found, char *text);
void coherent_give_back(struct coherent_device *coherent);

#endif /* COHERENT_H */
