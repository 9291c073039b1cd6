// SPDX-License-Identifier: GPL-2.0-only
/* Facts of a device and of the kernel, and the plan that the Rust half makes of them. */
#include <linux/acpi.h>
#include <linux/io.h>
#include <linux/memory.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/nodemask.h>
#include <linux/property.h>

#include "coherent.h"

static char *split = "first";
module_param(split, charp, 0644);
MODULE_PARM_DESC(split, "Memory of each node: first, even, or NODE:SIZE,... (default: first)");

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

static int coherent_place_on_nodes(const struct coherent_facts *facts,
				   const struct coherent_memory *memory,
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

/* Finds the memory of a device, and places the memory on the device's nodes. */
int coherent_plan(struct pci_dev *pdev, struct coherent_facts *facts,
		  struct coherent_memory *memory, struct coherent_placement *placement, char *text)
{
	coherent_facts(pdev, facts);
	return coherent_find(pdev, facts, memory, text) ?:
	       coherent_place_on_nodes(facts, memory, placement, text);
}
