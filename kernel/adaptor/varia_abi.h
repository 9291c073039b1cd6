/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The border between the C adaptor and the Rust object.
 * Rendered from kernel/rust by its tests; do not edit.
 */
#ifndef VARIA_ABI_H
#define VARIA_ABI_H

#include <linux/build_bug.h>
#include <linux/types.h>

/* `u64` words in a variant's state. */
#define VARIA_STATE_WORDS 608
/* Bytes for a property's name, NUL included. */
#define VARIA_NAME_LEN 48
/* Bytes for a reason, NUL included. */
#define VARIA_TEXT_LEN 256
/* Regions that can be memory: the first ones. */
#define VARIA_REGIONS 6
/* Where the region index is in a file position. */
#define VARIA_OFFSET_SHIFT 40
/* The most bytes of memory in a segment of an access that goes through the bounce buffer. */
#define VARIA_COPY_CHUNK 4096
/* The most bytes of memory in a segment that is copied directly: so long is the lock held. */
#define VARIA_DIRECT_CHUNK 2097152
/* The most bytes in a segment of configuration space that the variant keeps. */
#define VARIA_CONFIG_CHUNK 16
/* The most questions that a variant asks. */
#define VARIA_MAX_QUESTIONS 12
/* The most registers that a poll of the readiness registers reads. */
#define VARIA_MAX_REGISTERS 2
/* A firmware property: an unsigned 64-bit integer. */
#define VARIA_QUESTION_PROPERTY 0
/* The configuration offset of a DVSEC. */
#define VARIA_QUESTION_DVSEC_OFFSET 1
/* A little-endian u16 in a DVSEC. */
#define VARIA_QUESTION_DVSEC_WORD 2
/* The size of the BAR whose number is in the offset. */
#define VARIA_QUESTION_BAR_SIZE 3
/* A little-endian u64 in the result of the owner's command whose operation is in the id. */
#define VARIA_QUESTION_COMMAND_WORD 4
/* The variant serves the device. */
#define VARIA_OUTCOME_SERVE 0
/* vfio-pci-core serves the device alone. */
#define VARIA_OUTCOME_DECLINE 1
/* The region is vfio-pci-core's. */
#define VARIA_REGION_BASE 0
/* The region is the variant's memory. */
#define VARIA_REGION_MEMORY 1
/* Cached memory, at byte granularity. */
#define VARIA_MEMORY_CACHED 0
/* Uncached memory with write combining, in naturally aligned accesses. */
#define VARIA_MEMORY_WRITE_COMBINING 1
/* The user reads. */
#define VARIA_READ 0
/* The user writes. */
#define VARIA_WRITE 1
/* Memory is there. */
#define VARIA_SEGMENT_MEMORY 0
/* Nothing is there: a read gives 0xFF. */
#define VARIA_SEGMENT_ONES 1
/* No bytes, but the device has to be ready. */
#define VARIA_SEGMENT_CHECK 2
/* vfio-pci-core serves an access. */
#define VARIA_ROUTE_BASE 0
/* It is an access to a region of memory. */
#define VARIA_ROUTE_MEMORY 1
/* The same, and it is one segment that is copied directly. */
#define VARIA_ROUTE_DIRECT 2
/* A read of configuration space that the variant alone answers. */
#define VARIA_ROUTE_LOAD 3
/* A write of configuration space that the variant alone keeps; the device need not be awake. */
#define VARIA_ROUTE_STORE 4
/* An access to configuration space that goes segment by segment. */
#define VARIA_ROUTE_SPLIT 5
/* vfio-pci-core serves the segment. */
#define VARIA_OWNER_BASE 0
/* The variant serves the segment. */
#define VARIA_OWNER_KEEP 1
/* Both get a write; a read shows the variant's bytes. */
#define VARIA_OWNER_BOTH 2
/* An unused register. */
#define VARIA_REGISTER_NONE 0
/* A register in BAR0. */
#define VARIA_REGISTER_BAR0 1
/* A register in the device's own configuration space. */
#define VARIA_REGISTER_CONFIG 2
/* Ready: act, in this lock hold. */
#define VARIA_READY 0
/* Read the registers, in this lock hold. */
#define VARIA_READY_POLL 1
/* Drop the lock, sleep, begin again. */
#define VARIA_READY_SLEEP 2
/* The mapping is vfio-pci-core's. */
#define VARIA_MMAP_BASE 0
/* It is made: a bit, beside those of how. */
#define VARIA_MMAP_MEMORY 1
/* Uncached with write combining; else cached. */
#define VARIA_MMAP_WRITE_COMBINING 2
/* A hypervisor may let its guest map it uncached. */
#define VARIA_MMAP_ALLOW_UNCACHED 4
/* Try a smaller order. */
#define VARIA_FAULT_FALLBACK -1
/* Nothing backs it. */
#define VARIA_FAULT_SIGBUS -2
/* An open has failed. */
#define VARIA_COUNT_OPEN_FAILED 0
/* The device was closed. */
#define VARIA_COUNT_CLOSED 1
/* The device did not get ready for a fault. */
#define VARIA_COUNT_FAULT_NOT_READY 2
/* A fault's pages were inserted in a lock hold. */
#define VARIA_COUNT_FAULT_SERVED 3
/* They were not. */
#define VARIA_COUNT_FAULT_NOT_INSERTED 4
/* A region was mapped for the kernel. */
#define VARIA_COUNT_MEMORY_MAPPED 5
/* It was unmapped. */
#define VARIA_COUNT_MEMORY_UNMAPPED 6
/* Page frames were registered for memory failure. */
#define VARIA_COUNT_PAGES_REGISTERED 7
/* They were unregistered. */
#define VARIA_COUNT_PAGES_UNREGISTERED 8

/* A variant's state, in storage that C provides. Rust alone reads it. */
struct varia_state {
	/* Nothing that C could read. */
	u64 words[608];
};
static_assert(sizeof(struct varia_state) == 4864);

/* One thing to find out before a variant's state is built. */
struct varia_question {
	/* VARIA_QUESTION_*. */
	u32 kind;
	/* The vendor of a DVSEC. */
	u16 vendor;
	/* The id of a DVSEC. */
	u16 id;
	/* Bytes from the start of a DVSEC, or the number of a BAR. */
	u64 offset;
	/* The name of a firmware property, with a NUL. */
	u8 name[48];
};
static_assert(sizeof(struct varia_question) == 64);

/* What was found out. */
struct varia_answer {
	/* The number, if errno is 0. */
	u64 value;
	/* Why there is none, or 0. */
	u32 errno;
	/* Zero. */
	u32 reserved;
};
static_assert(sizeof(struct varia_answer) == 16);

/* What holds for the whole host. */
struct varia_environment {
	/* Log2 of the base page size. */
	u32 page_shift;
	/* Whether reads and writes fail while memory is disabled: 0 or 1. */
	u32 honour_memory_enable;
};
static_assert(sizeof(struct varia_environment) == 8);

/* `struct vfio_region_info_cap_sparse_mmap` with one area. */
struct varia_sparse {
	/* VFIO_REGION_INFO_CAP_SPARSE_MMAP. */
	u16 id;
	/* The capability's version. */
	u16 version;
	/* Where the next one is; VFIO fills it in. */
	u32 next;
	/* Areas: one. */
	u32 nr_areas;
	/* Zero. */
	u32 reserved;
	/* Bytes from the start of the region. */
	u64 offset;
	/* Bytes in the area. */
	u64 size;
};
static_assert(sizeof(struct varia_sparse) == 32);

/* Memory outside every physical BAR, presented as one. */
struct varia_region {
	/* Host-physical address. */
	u64 base;
	/* Bytes of memory. */
	u64 length;
	/* Bytes of the BAR. */
	u64 size;
	/* The area that can be mapped. */
	struct varia_sparse sparse;
	/* The first page frame. */
	u64 first_frame;
	/* Whole pages, from the first frame on. */
	u64 frames;
	/* VFIO_REGION_INFO_FLAG_*. */
	u32 flags;
	/* VARIA_MEMORY_*. */
	u32 memory;
};
static_assert(sizeof(struct varia_region) == 80);

/* A read or write of a region of memory, on the stack of who carries it out. */
struct varia_access {
	/* The position in the device's file. */
	u64 position;
	/* Bytes that are asked for, and once it has begun, those that are served. */
	u64 count;
	/*
	 * Bytes of the segments that are done: where the next one is in the user's buffer. Before it
	 * has begun, those that were copied directly.
	 */
	u64 done;
	/* Bytes of the present segment. */
	u64 segment;
	/* VARIA_READ or VARIA_WRITE. */
	u32 direction;
	/* Whether it has begun: 0 or 1. */
	u32 begun;
	/*
	 * How the present segment ended: bytes that were moved, or a negative errno. Fewer bytes than
	 * the segment has are no error of a direct one.
	 */
	int result;
	/* Whether the process is being killed: 0 or 1. */
	u32 killed;
	/* Whether the present segment has had the lock, with the device ready: 0 or 1. */
	u32 held;
	/* Zero. */
	u32 reserved;
};
static_assert(sizeof(struct varia_access) == 56);

/* The next segment of an access. */
struct varia_segment {
	/* Bytes in the segment, at most VARIA_COPY_CHUNK, or VARIA_DIRECT_CHUNK of a direct one. */
	u64 len;
	/* Where it is, from the start of the region. */
	u64 offset;
	/* The index of the region. */
	u32 index;
	/* VARIA_SEGMENT_*. */
	u32 kind;
	/* VARIA_MEMORY_*, for VARIA_SEGMENT_MEMORY. */
	u32 memory;
	/* Bytes of each access, for VARIA_MEMORY_WRITE_COMBINING; the segment is a whole number of them. */
	u32 width;
	/*
	 * Whether it is copied without a bounce buffer, as far as the user's pages are there: 0
	 * or 1.
	 */
	u32 direct;
	/* Zero. */
	u32 reserved;
};
static_assert(sizeof(struct varia_segment) == 40);

/* The first segment of an access to configuration space. */
struct varia_config_segment {
	/* Bytes in the segment: at least 1, at most VARIA_CONFIG_CHUNK if the variant keeps them. */
	u64 len;
	/* VARIA_OWNER_*. */
	u32 owner;
	/* Zero. */
	u32 reserved;
};
static_assert(sizeof(struct varia_config_segment) == 16);

/* One operation's wait, on that operation's stack; all zero at first. */
struct varia_wait {
	/* When to give up, if has_deadline. */
	u64 deadline;
	/* 0 or 1. */
	u32 has_deadline;
	/* Whether the deadline has been moved: 0 or 1. */
	u32 extended;
	/* How long to sleep before the next poll, for VARIA_READY_SLEEP. */
	u64 sleep_ms;
	/* Whether it has slept: 0 or 1. */
	u32 slept;
	/* Zero. */
	u32 reserved;
};
static_assert(sizeof(struct varia_wait) == 32);

/* What was sampled in the present lock hold. */
struct varia_sample {
	/* Milliseconds of a clock that never goes back. */
	u64 now;
	/* Whether memory is enabled and the device is in D0: 0 or 1. */
	u32 memory_enabled;
	/* Whether the device is suspended by runtime PM, and nobody may resume it: 0 or 1. */
	u32 suspended;
	/* Whether the operation's process is being killed: 0 or 1. */
	u32 killed;
	/* Whether somebody may use the device already: 0 or 1. */
	u32 in_use;
	/* Whether somebody holds memory_lock: 0 or 1. */
	u32 locked;
	/* Zero. */
	u32 reserved;
};
static_assert(sizeof(struct varia_sample) == 32);

/* A register to read: a little-endian u32. */
struct varia_register {
	/* The offset in bytes. */
	u64 offset;
	/* VARIA_REGISTER_*. */
	u32 kind;
	/* What was read. */
	u32 value;
};
static_assert(sizeof(struct varia_register) == 16);

/* A poll of the readiness registers: filled in by Rust, its registers by C, judged by Rust. */
struct varia_poll {
	/* The resets that it has seen. */
	u64 generation;
	/* What to read, in this order. */
	struct varia_register registers[2];
};
static_assert(sizeof(struct varia_poll) == 40);

/* Question number `number` of the variant, or -ENOENT when there are no more. */
int varia_question(u32 number, struct varia_question *out);

/* Builds the variant's state from the answers to its questions, in order. */
int varia_probe(const struct varia_answer *answers, u32 count, const struct varia_environment *environment, struct varia_state *out);

/*
 * Whether the device is served: VARIA_OUTCOME_*, or a negative errno with which the probe
 * fails. `waited` is how the first wait for readiness ended: 0 or a negative errno. `ram`
 * has a bit for each region index whose memory the kernel uses as RAM; `last` is the last
 * host-physical address that the CPU can reach. If the device is not served, `text` says why
 * and what to do, in `len` bytes with a NUL.
 */
int varia_outcome(const struct varia_state *state, int waited, u32 ram, u64 last, u8 *text, u32 len);

/* Whether open fails unless BAR0 can be mapped: 0 or 1. */
int varia_needs_bar0(const struct varia_state *state);

/* An ioctl of the device: 0 if vfio-pci-core shall carry it out, or a negative errno. */
int varia_ioctl(const struct varia_state *state, u32 request);

/* The device was opened. */
void varia_opened(const struct varia_state *state);

/* The device has been reset, by whatever means. */
void varia_reset_done(const struct varia_state *state);

/* What stands behind a region index: VARIA_REGION_*, and the region if it is memory. */
int varia_region(const struct varia_state *state, u32 index, struct varia_region *out);

/*
 * The next segment of an access to a region of memory: 1 and the segment, 0 when all is done, or
 * a negative errno with which the access ends. The segment before it has ended with
 * `access->result`.
 */
int varia_next(const struct varia_state *state, struct varia_access *access, struct varia_segment *out);

/*
 * Counts an access that was copied directly in one lock hold, `whole` or not: 0 or 1. If not, it
 * goes on with varia_next.
 */
void varia_direct(const struct varia_state *state, u32 whole);

/*
 * Who serves an access to `len` bytes at a position in the device's file: VARIA_ROUTE_*, and the
 * one segment of VARIA_ROUTE_DIRECT. A write of configuration space is counted.
 */
int varia_route(const struct varia_state *state, u32 direction, u64 at, u64 len, struct varia_segment *out);

/*
 * The first segment of an access to `len` (at least 1) bytes at a position in configuration
 * space, and its owner.
 */
int varia_config_segment(const struct varia_state *state, u32 direction, u64 at, u64 len, struct varia_config_segment *out);

/*
 * How an access of `len` bytes to configuration space ends of which `done` bytes are done in
 * `segments` segments, and the last of which has ended with `last`, a negative errno if it failed:
 * bytes, or a negative errno. A write is counted; what it has done can't be taken back, so it
 * says how much.
 */
s64 varia_config_done(const struct varia_state *state, u32 direction, u64 len, s64 done, s64 last, u32 segments);

/* Fills in those of the `len` bytes at a position that the variant owns. */
int varia_config_load(const struct varia_state *state, u64 at, u8 *out, u32 len);

/* Keeps those of the `len` bytes at a position that the variant owns. */
int varia_config_store(const struct varia_state *state, u64 at, const u8 *data, u32 len);

/* Whether the next poll of the readiness registers reads BAR0: 0 or 1. */
int varia_polls_bar0(const struct varia_state *state);

/*
 * Whether the device is ready whatever a sample would show, and an operation may act in this
 * lock hold, its first: 1, or 0 to take a sample. `suspended` as in a sample.
 */
int varia_ready_now(const struct varia_state *state, u32 suspended);

/* Before a poll: VARIA_READY, or VARIA_READY_POLL and what to read in this lock hold. */
int varia_ready_before(const struct varia_state *state, struct varia_wait *wait, const struct varia_sample *sample, struct varia_poll *poll);

/* After a poll, with the values in its registers: VARIA_READY or VARIA_READY_SLEEP. */
int varia_ready_after(const struct varia_state *state, struct varia_wait *wait, const struct varia_sample *sample, const struct varia_poll *poll);

/*
 * Whether `len` bytes at a position in the device's file may be mapped, and how: bits
 * VARIA_MMAP_*, or a negative errno.
 */
int varia_mmap(const struct varia_state *state, u64 at, u64 len, u32 copy_on_write);

/*
 * The first page frame that a fault at an address wants inserted, of `1 << order` pages, or
 * VARIA_FAULT_*. The mapping is from `start` to `end`, and `at` is the position in the device's
 * file that `start` maps.
 */
s64 varia_fault(const struct varia_state *state, u64 address, u32 order, u64 start, u64 end, u64 at);

/*
 * How many bytes from the start of a mapping of `len` bytes at a position in the device's
 * file a page frame that has failed is mapped. It is remembered. Atomic context.
 */
int varia_locate(const struct varia_state *state, u64 frame, u64 at, u64 len, u64 *out);

/* Counts something that C has done: VARIA_COUNT_*. */
void varia_count(const struct varia_state *state, u32 counter);

/* The name of debugfs file number `file`, with a NUL, or -ENOENT when there are no more. */
int varia_file(u32 file, u8 *name, u32 len);

/*
 * One line of a debugfs file, with a NUL: 1, or 0 when there are no more. `cursor` begins
 * at 0 and is moved.
 */
int varia_line(const struct varia_state *state, u32 file, u64 *cursor, u8 *text, u32 len);

#endif /* VARIA_ABI_H */
