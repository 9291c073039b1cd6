/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The border between the C half and the Rust object.
 * Rendered from border.rs by its tests; do not edit.
 */
#ifndef COHERENT_ABI_H
#define COHERENT_ABI_H

#include <linux/build_bug.h>
#include <linux/types.h>

/* The most nodes of a device. */
#define VARIA_MAX_SHARES 16
/* Bytes of a line of the log, with its NUL. */
#define VARIA_TEXT_LEN 256
/* Firmware states the memory: no search is needed. */
#define VARIA_EXTENT_FIRMWARE 0
/* The memory begins where BAR4 does, and its end is to be searched. */
#define VARIA_EXTENT_BAR 1
/* Index of the property that is the memory's address. */
#define VARIA_PROPERTY_BASE 0
/* Index of the property that is the memory's size. */
#define VARIA_PROPERTY_SIZE 1
/* Index of the property that is the first proximity domain. */
#define VARIA_PROPERTY_PXM_START 2
/* Index of the property that is the number of proximity domains. */
#define VARIA_PROPERTY_PXM_COUNT 3
/* The number of properties. */
#define VARIA_PROPERTIES 4
/* Bytes of a property's name, with its NUL. */
#define VARIA_NAME_LEN 32

/* Memory: address and number of bytes. */
struct coherent_memory {
	/* Address of the first byte. */
	u64 base;
	/* Number of bytes. */
	u64 size;
};
static_assert(sizeof(struct coherent_memory) == 16);

/* Facts of a device and of the kernel. */
struct coherent_facts {
	/* Values of the firmware's properties. */
	u64 property[4];
	/* 0, or the error of a property's lookup as a positive number. */
	u32 property_errno[4];
	/* BAR4; a size of 0 if it does not exist. */
	struct coherent_memory bar4;
	/* BAR2; a size of 0 if it does not exist. */
	struct coherent_memory bar2;
	/* Bytes of a memory block. */
	u64 block;
	/* MAX_NUMNODES. */
	u32 max_nodes;
	/* Log2 of the page size. */
	u32 page_shift;
	/* PCI segment of the device. */
	u32 segment;
	/* Bus in bits 8 to 15, device and function number below. */
	u32 bdf;
};
static_assert(sizeof(struct coherent_facts) == 104);

/* A search for the end of the memory in BAR4; zeros begin it. */
struct coherent_search {
	/* Pages that are memory. */
	u64 kept;
	/* The first page that is not memory. */
	u64 lost;
	/* Not 0 once the search has begun. */
	u64 begun;
};
static_assert(sizeof(struct coherent_search) == 24);

/* A node of a proximity domain. */
struct coherent_node {
	/* Negative if the kernel has none. */
	int number;
	/* Not 0 if the node has memory. */
	u32 has_memory;
};
static_assert(sizeof(struct coherent_node) == 8);

/* Memory that a node gets; a size of 0 for no memory. */
struct coherent_share {
	/* Memory of the node. */
	struct coherent_memory memory;
	/* Number of the node. */
	u32 node;
	/* 0. */
	u32 reserved;
};
static_assert(sizeof(struct coherent_share) == 24);

/* Shares of all nodes. */
struct coherent_placement {
	/* Shares in rising addresses. */
	struct coherent_share share[16];
	/* Bytes before the first memory block. */
	u64 head;
	/* Bytes behind the last memory block. */
	u64 tail;
	/* Number of shares. */
	u32 count;
	/* 0. */
	u32 reserved;
};
static_assert(sizeof(struct coherent_placement) == 408);

/* Name of a firmware property, which ends with a NUL; -EINVAL for an index beyond the last. */
int coherent_property(u32 index, u8 *name, u32 len);

/* Place of the memory: VARIA_EXTENT_*, or a negative errno with its sentence. */
int coherent_extent(const struct coherent_facts *facts, struct coherent_memory *memory, u8 *text, u32 len);

/*
 * Offset of the word to try next in BAR4, after the outcome of the last one (ignored at
 * the begin): 1 if there is one, 0 at the end of the search.
 */
int coherent_search_next(const struct coherent_facts *facts, struct coherent_search *search, u32 keeps, u64 *offset);

/* Memory that a search has found; a negative errno with its sentence if there is none. */
int coherent_search_found(const struct coherent_facts *facts, const struct coherent_search *search, struct coherent_memory *memory, u8 *text, u32 len);

/*
 * Proximity domains of the device, from firmware's properties or from the SRAT (null if it does
 * not exist): their number, at most VARIA_MAX_SHARES, or a negative errno with its sentence.
 */
int coherent_domains(const struct coherent_facts *facts, const u8 *srat, u32 srat_len, u32 *domains, u8 *text, u32 len);

/*
 * Places the memory on the nodes, which are in the order of the domains: 0, or a negative errno
 * with its sentence.
 */
int coherent_place(const struct coherent_facts *facts, const struct coherent_memory *memory, const u32 *domains, const struct coherent_node *nodes, u32 count, const u8 *split, u32 split_len, struct coherent_placement *placement, u8 *text, u32 len);

/* A line of the log about a placement, from 0 on; 0 beyond the last one, else 1. */
int coherent_line(u32 index, const struct coherent_facts *facts, const struct coherent_memory *memory, const struct coherent_placement *placement, u8 *text, u32 len);

/*
 * Sentence about memory of a node that could not be taken away, for the errno of the kernel
 * (negative).
 */
void coherent_held(const struct coherent_share *share, int errno, u8 *text, u32 len);

#endif /* COHERENT_ABI_H */
