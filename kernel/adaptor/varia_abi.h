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
/* Log2 of the region index in a file position. */
#define VARIA_OFFSET_SHIFT 40
/* The most bytes of memory in a segment of an access that goes through the bounce buffer. */
#define VARIA_COPY_CHUNK 4096
/* The most bytes of memory in a segment that is copied directly, with the lock held. */
#define VARIA_DIRECT_CHUNK 2097152
/* The most bytes in a segment of configuration space that the variant keeps. */
#define VARIA_CONFIG_CHUNK 16
/* The most questions that a variant asks. */
#define VARIA_MAX_QUESTIONS 13
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
/* A little-endian u64 in the result of a command of the function's owner; id is the operation. */
#define VARIA_QUESTION_COMMAND_WORD 4
/* Memory of the platform, or another function: the kernel adaptor does not read it. */
#define VARIA_QUESTION_PLATFORM 5
/* The variant serves the device. */
#define VARIA_OUTCOME_SERVE 0
/* vfio-pci-core serves the device alone. */
#define VARIA_OUTCOME_DECLINE 1
/* A region of vfio-pci-core. */
#define VARIA_REGION_BASE 0
/* A region of memory of the variant. */
#define VARIA_REGION_MEMORY 1
/* Cached memory, at byte granularity. */
#define VARIA_MEMORY_CACHED 0
/* Uncached memory with write combining, in naturally aligned accesses. */
#define VARIA_MEMORY_WRITE_COMBINING 1
/* The user reads. */
#define VARIA_READ 0
/* The user writes. */
#define VARIA_WRITE 1
/* Memory. */
#define VARIA_SEGMENT_MEMORY 0
/* No memory: a read gives 0xFF. */
#define VARIA_SEGMENT_ONES 1
/* No bytes: the device has to be ready. */
#define VARIA_SEGMENT_CHECK 2
/* vfio-pci-core serves an access. */
#define VARIA_ROUTE_BASE 0
/* An access to a region of memory. */
#define VARIA_ROUTE_MEMORY 1
/* An access to a region of memory, one segment that is copied directly. */
#define VARIA_ROUTE_DIRECT 2
/* A read of configuration space that the variant alone serves. */
#define VARIA_ROUTE_LOAD 3
/* A write of configuration space that the variant alone keeps; no resume is needed. */
#define VARIA_ROUTE_STORE 4
/* An access to configuration space that goes segment by segment. */
#define VARIA_ROUTE_SPLIT 5
/* vfio-pci-core serves the segment. */
#define VARIA_OWNER_BASE 0
/* The variant serves the segment. */
#define VARIA_OWNER_KEEP 1
/* A write reaches vfio-pci-core and the variant; a read shows the variant's bytes. */
#define VARIA_OWNER_BOTH 2
/* An unused register. */
#define VARIA_REGISTER_NONE 0
/* A register in BAR0. */
#define VARIA_REGISTER_BAR0 1
/* A register in the device's own configuration space. */
#define VARIA_REGISTER_CONFIG 2
/* Ready: act, with the lock still held. */
#define VARIA_READY 0
/* Read the registers, with the lock still held. */
#define VARIA_READY_POLL 1
/* Drop the lock, sleep, begin again. */
#define VARIA_READY_SLEEP 2
/* A mapping of vfio-pci-core. */
#define VARIA_MMAP_BASE 0
/* Bit: a mapping of memory. */
#define VARIA_MMAP_MEMORY 1
/* Bit: uncached with write combining; else cached. */
#define VARIA_MMAP_WRITE_COMBINING 2
/* Bit: a hypervisor may let its guest map the memory uncached. */
#define VARIA_MMAP_ALLOW_UNCACHED 4
/* Try a smaller order. */
#define VARIA_FAULT_FALLBACK -1
/* No memory backs the address. */
#define VARIA_FAULT_SIGBUS -2
/* The page of the address has failed. */
#define VARIA_FAULT_FAILED_PAGE -3
/* Wait with the locks of the fault held. */
#define VARIA_FAULT_WAIT_HELD 0
/* Release the locks of the fault, wait, and have the fault tried again. */
#define VARIA_FAULT_WAIT_RELEASED 1
/* Release the lock of the mapping and have the fault tried again with the lock of the memory map. */
#define VARIA_FAULT_WAIT_LATER 2
/* The fault fails. */
#define VARIA_FAULT_WAIT_NONE 3
/* An open has failed. */
#define VARIA_COUNT_OPEN_FAILED 0
/* The device was closed. */
#define VARIA_COUNT_CLOSED 1
/* The device was not ready in time for a fault. */
#define VARIA_COUNT_FAULT_NOT_READY 2
/* The pages of a fault were inserted, with the lock held. */
#define VARIA_COUNT_FAULT_SERVED 3
/* The pages of a fault were not inserted. */
#define VARIA_COUNT_FAULT_NOT_INSERTED 4
/* A region was mapped for the kernel. */
#define VARIA_COUNT_MEMORY_MAPPED 5
/* A region was unmapped. */
#define VARIA_COUNT_MEMORY_UNMAPPED 6
/* Page frames were registered for memory failure. */
#define VARIA_COUNT_PAGES_REGISTERED 7
/* Page frames were unregistered. */
#define VARIA_COUNT_PAGES_UNREGISTERED 8
/* A region was claimed. */
#define VARIA_COUNT_MEMORY_CLAIMED 9
/* A region was released. */
#define VARIA_COUNT_MEMORY_RELEASED 10
/* The locks of a fault were released, and the fault is tried again. */
#define VARIA_COUNT_FAULT_RETRIED 11
/* `memory_lock` was dropped with the device ready, without an act. */
#define VARIA_COUNT_CHECKED 12

/* State of a variant, in storage that C provides and that only Rust reads. */
struct varia_state {
	/* Opaque to C. */
	u64 words[608];
};
static_assert(sizeof(struct varia_state) == 4864);

/* Question to answer before the state of a variant is built. */
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

/* Answer to a question. */
struct varia_answer {
	/* The value, if errno is 0. */
	u64 value;
	/* Positive errno without a value, or 0. */
	u32 errno;
	/* Zero. */
	u32 reserved;
};
static_assert(sizeof(struct varia_answer) == 16);

/* Properties of the whole host. */
struct varia_environment {
	/* Log2 of the base page size. */
	u32 page_shift;
	/* 1 if reads and writes fail while memory is disabled, else 0. */
	u32 honour_memory_enable;
	/* 1 if a device that would be declined is refused, else 0. */
	u32 strict;
	/* Zero. */
	u32 reserved;
};
static_assert(sizeof(struct varia_environment) == 16);

/* `struct vfio_region_info_cap_sparse_mmap` with one area. */
struct varia_sparse {
	/* VFIO_REGION_INFO_CAP_SPARSE_MMAP. */
	u16 id;
	/* The capability's version. */
	u16 version;
	/* Offset of the next capability; VFIO fills it in. */
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

/* A read or write of a region of memory, on the stack of the operation. */
struct varia_access {
	/* The position in the device's file. */
	u64 position;
	/* Bytes of the request; once the access has begun, bytes that are served. */
	u64 count;
	/*
	 * Bytes of the segments that are done: position of the next segment in the user's buffer.
	 * Before the access has begun, bytes that were copied directly.
	 */
	u64 done;
	/* Bytes of the present segment. */
	u64 segment;
	/* VARIA_READ or VARIA_WRITE. */
	u32 direction;
	/* 1 once the access has begun, else 0. */
	u32 begun;
	/*
	 * Result of the present segment: bytes that were moved, or a negative errno. A direct
	 * segment may move fewer bytes than its length without an error.
	 */
	int result;
	/* 1 if the process is being killed, else 0. */
	u32 killed;
	/* 1 if the present segment ran with the lock held and the device ready, else 0. */
	u32 held;
	/* Zero. */
	u32 reserved;
};
static_assert(sizeof(struct varia_access) == 56);

/* The next segment of an access. */
struct varia_segment {
	/* Bytes in the segment, at most VARIA_COPY_CHUNK, or VARIA_DIRECT_CHUNK of a direct one. */
	u64 len;
	/* Offset in the region in bytes. */
	u64 offset;
	/* The index of the region. */
	u32 index;
	/* VARIA_SEGMENT_*. */
	u32 kind;
	/* VARIA_MEMORY_*, for VARIA_SEGMENT_MEMORY. */
	u32 memory;
	/* Bytes of each access, for VARIA_MEMORY_WRITE_COMBINING; they divide the segment. */
	u32 width;
	/* 1 to copy without a bounce buffer, up to the first page that the user's buffer lacks. */
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
	/* The deadline, if has_deadline. */
	u64 deadline;
	/* 0 or 1. */
	u32 has_deadline;
	/* 1 once the deadline has been moved, else 0. */
	u32 extended;
	/* Milliseconds to sleep before the next poll, for VARIA_READY_SLEEP. */
	u64 sleep_ms;
	/* 1 once the operation has slept, else 0. */
	u32 slept;
	/* Zero. */
	u32 reserved;
};
static_assert(sizeof(struct varia_wait) == 32);

/* State that was sampled with the lock held. */
struct varia_sample {
	/* Milliseconds of a clock that never goes back. */
	u64 now;
	/* 1 if memory is enabled and the device is in D0, else 0. */
	u32 memory_enabled;
	/* 1 if the device is suspended by runtime PM and must not be resumed, else 0. */
	u32 suspended;
	/* 1 if the process of the operation is being killed, else 0. */
	u32 killed;
	/* 1 once the device may have users, else 0. */
	u32 in_use;
	/* 1 if memory_lock is held, else 0. */
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
	/* The value that was read. */
	u32 value;
};
static_assert(sizeof(struct varia_register) == 16);

/* A poll of the readiness registers: Rust names the registers, C reads them, Rust judges. */
struct varia_poll {
	/* Number of resets at the start of the poll. */
	u64 generation;
	/* Registers to read, in this order. */
	struct varia_register registers[2];
};
static_assert(sizeof(struct varia_poll) == 40);

/* Question number `number` of the variant, or -ENOENT after the last. */
int varia_question(u32 number, struct varia_question *out);

/* Builds the state of the variant from the answers to questions 0 to count - 1. */
int varia_probe(const struct varia_answer *answers, u32 count, const struct varia_environment *environment, struct varia_state *out);

/*
 * Outcome of the probe: VARIA_OUTCOME_*, or a negative errno with which the probe fails.
 * `waited` is the result of the first wait for readiness: 0 or a negative errno. `ram` has a
 * bit for each region index whose memory the kernel uses as RAM; `last` is the last
 * host-physical address that the CPU can reach. If the device is not served, `text` gets the
 * reason and the remedy, in `len` bytes with a NUL.
 */
int varia_outcome(const struct varia_state *state, int waited, u32 ram, u64 last, u8 *text, u32 len);

/* 1 if open fails unless BAR0 can be mapped, else 0. */
int varia_needs_bar0(const struct varia_state *state);

/* An ioctl of the device: 0 if vfio-pci-core shall carry it out, or a negative errno. */
int varia_ioctl(const struct varia_state *state, u32 request);

/* The device was opened. */
void varia_opened(const struct varia_state *state);

/*
 * Reason why an open fails whose memory of region `index` another part of the kernel has
 * claimed: a negative errno, and the reason and the remedy in `len` bytes with a NUL.
 */
int varia_claimed(const struct varia_state *state, u32 index, u8 *text, u32 len);

/*
 * The device has recovered from an error on its link, in which the link may have been reset
 * without a word to the driver: its memory has to be checked anew.
 */
void varia_recovered(const struct varia_state *state);

/* The device has been reset, by whatever means. */
void varia_reset_done(const struct varia_state *state);

/* Kind of a region: VARIA_REGION_*, and the region if it is memory. */
int varia_region(const struct varia_state *state, u32 index, struct varia_region *out);

/*
 * Next segment of an access to a region of memory: 1 and the segment, 0 at the end of the
 * access, or a negative errno with which the access fails. `access->result` is the result of
 * the segment before.
 */
int varia_next(const struct varia_state *state, struct varia_access *access, struct varia_segment *out);

/*
 * Counts an access that was copied directly with the lock held once. `whole` is 1 if all bytes
 * were copied; if it is 0, the access continues with varia_next.
 */
void varia_direct(const struct varia_state *state, u32 whole);

/*
 * Route of an access to `len` bytes at a position in the device's file: VARIA_ROUTE_*, and the
 * segment of VARIA_ROUTE_DIRECT. Counts a write of configuration space.
 */
int varia_route(const struct varia_state *state, u32 direction, u64 at, u64 len, struct varia_segment *out);

/*
 * First segment of an access to `len` (at least 1) bytes at a position in configuration space,
 * and the owner of the segment.
 */
int varia_config_segment(const struct varia_state *state, u32 direction, u64 at, u64 len, struct varia_config_segment *out);

/*
 * Result of an access of `len` bytes to configuration space, of which `done` bytes in
 * `segments` segments are done: bytes, or a negative errno. `last` is the result of the last segment. A
 * write is counted, and returns the bytes that it has changed even if a later segment failed.
 */
s64 varia_config_done(const struct varia_state *state, u32 direction, u64 len, s64 done, s64 last, u32 segments);

/* Replaces those of the `len` bytes at a position that the variant owns. */
int varia_config_load(const struct varia_state *state, u64 at, u8 *out, u32 len);

/* Keeps those of the `len` bytes at a position that the variant owns. */
int varia_config_store(const struct varia_state *state, u64 at, const u8 *data, u32 len);

/* 1 if the next poll reads BAR0, else 0. */
int varia_polls_bar0(const struct varia_state *state);

/*
 * 1 if the device is ready whatever a sample would show, so that an operation may act with the
 * lock held; 0 to take a sample. `suspended` as in a sample.
 */
int varia_ready_now(const struct varia_state *state, u32 suspended);

/*
 * Decision before a poll: VARIA_READY, or VARIA_READY_POLL and the registers to read with the
 * lock still held.
 */
int varia_ready_before(const struct varia_state *state, struct varia_wait *wait, const struct varia_sample *sample, struct varia_poll *poll);

/* Decision after a poll, from the values in its registers: VARIA_READY or VARIA_READY_SLEEP. */
int varia_ready_after(const struct varia_state *state, struct varia_wait *wait, const struct varia_sample *sample, const struct varia_poll *poll);

/*
 * Attributes of a mapping of `len` bytes at a position in the device's file: bits
 * VARIA_MMAP_*, or a negative errno if the mapping is refused.
 */
int varia_mmap(const struct varia_state *state, u64 at, u64 len, u32 copy_on_write);

/*
 * First page frame to insert for a fault at an address, of `1 << order` pages, or
 * VARIA_FAULT_*. The mapping is from `start` to `end`, and `at` is the position in the
 * device's file that `start` maps.
 */
s64 varia_fault(const struct varia_state *state, u64 address, u32 order, u64 start, u64 end, u64 at);

/*
 * How a fault waits for a device that is not ready: VARIA_FAULT_WAIT_*. `of_mapping` is nonzero
 * if the fault holds the lock of its mapping alone, `first` if it may release its locks and be
 * tried again, `tried` if that has been done. A wait that has begun ends here unless the fault
 * goes on with it.
 */
int varia_fault_wait(const struct varia_state *state, struct varia_wait *wait, u32 of_mapping, u32 first, u32 tried);

/*
 * Position of a failed page frame in a mapping of `len` bytes at a position in the device's
 * file, in bytes from the start of the mapping. Adds the page to the list. Atomic context.
 */
int varia_locate(const struct varia_state *state, u64 frame, u64 at, u64 len, u64 *out);

/* Counts an act of C: VARIA_COUNT_*. */
void varia_count(const struct varia_state *state, u32 counter);

/* Name of debugfs file number `file`, with a NUL, or -ENOENT after the last. */
int varia_file(u32 file, u8 *name, u32 len);

/*
 * One line of a debugfs file, with a NUL: 1, or 0 after the last. `cursor` begins at 0 and is
 * advanced.
 */
int varia_line(const struct varia_state *state, u32 file, u64 *cursor, u8 *text, u32 len);

#endif /* VARIA_ABI_H */
