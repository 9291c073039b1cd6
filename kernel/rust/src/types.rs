// SPDX-License-Identifier: GPL-2.0-only
//! Types that cross the border between C and Rust: integers, and structs of integers.
//!
//! No enum crosses: an unknown number gets `-EINVAL`. A length is in bytes,
//! an errno is positive in a field and negative as a result, a time is in milliseconds.

use crate::abi::{c_constants, c_structs};

c_constants! {
    /// `u64` words in a variant's state.
    STATE_WORDS: usize = 608;
    /// Bytes for a property's name, NUL included.
    NAME_LEN: usize = 48;
    /// Bytes for a reason, NUL included.
    TEXT_LEN: usize = 256;
    /// Regions that can be memory: the first ones.
    REGIONS: usize = 6;
    /// Log2 of the region index in a file position.
    OFFSET_SHIFT: u32 = varia_spec::vfio::OFFSET_SHIFT;
    /// The most bytes of memory in a segment of an access that goes through the bounce buffer.
    COPY_CHUNK: usize = 4096;
    /// The most bytes of memory in a segment that is copied directly, with the lock held.
    DIRECT_CHUNK: usize = 2 << 20;
    /// The most bytes in a segment of configuration space that the variant keeps.
    CONFIG_CHUNK: usize = 16;
    /// The most questions that a variant asks.
    MAX_QUESTIONS: usize = varia_variant::probe::MAX_QUESTIONS;
    /// The most registers that a poll of the readiness registers reads.
    MAX_REGISTERS: usize = varia_variant::ready::MAX_REGISTERS;

    /// A firmware property: an unsigned 64-bit integer.
    QUESTION_PROPERTY: u32 = 0;
    /// The configuration offset of a DVSEC.
    QUESTION_DVSEC_OFFSET: u32 = 1;
    /// A little-endian u16 in a DVSEC.
    QUESTION_DVSEC_WORD: u32 = 2;
    /// The size of the BAR whose number is in the offset.
    QUESTION_BAR_SIZE: u32 = 3;
    /// A little-endian u64 in the result of a command of the function's owner; id is the operation.
    QUESTION_COMMAND_WORD: u32 = 4;
    /// Memory of the platform, or another function: the kernel adaptor does not read it.
    QUESTION_PLATFORM: u32 = 5;

    /// The variant serves the device.
    OUTCOME_SERVE: i32 = 0;
    /// vfio-pci-core serves the device alone.
    OUTCOME_DECLINE: i32 = 1;

    /// A region of vfio-pci-core.
    REGION_BASE: i32 = 0;
    /// A region of memory of the variant.
    REGION_MEMORY: i32 = 1;

    /// Cached memory, at byte granularity.
    MEMORY_CACHED: u32 = 0;
    /// Uncached memory with write combining, in naturally aligned accesses.
    MEMORY_WRITE_COMBINING: u32 = 1;

    /// The user reads.
    READ: u32 = 0;
    /// The user writes.
    WRITE: u32 = 1;

    /// Memory.
    SEGMENT_MEMORY: u32 = 0;
    /// No memory: a read gives 0xFF.
    SEGMENT_ONES: u32 = 1;
    /// No bytes: the device has to be ready.
    SEGMENT_CHECK: u32 = 2;

    /// vfio-pci-core serves an access.
    ROUTE_BASE: i32 = 0;
    /// An access to a region of memory.
    ROUTE_MEMORY: i32 = 1;
    /// An access to a region of memory, one segment that is copied directly.
    ROUTE_DIRECT: i32 = 2;
    /// A read of configuration space that the variant alone serves.
    ROUTE_LOAD: i32 = 3;
    /// A write of configuration space that the variant alone keeps; no resume is needed.
    ROUTE_STORE: i32 = 4;
    /// An access to configuration space that goes segment by segment.
    ROUTE_SPLIT: i32 = 5;

    /// vfio-pci-core serves the segment.
    OWNER_BASE: u32 = 0;
    /// The variant serves the segment.
    OWNER_KEEP: u32 = 1;
    /// A write reaches vfio-pci-core and the variant; a read shows the variant's bytes.
    OWNER_BOTH: u32 = 2;

    /// An unused register.
    REGISTER_NONE: u32 = 0;
    /// A register in BAR0.
    REGISTER_BAR0: u32 = 1;
    /// A register in the device's own configuration space.
    REGISTER_CONFIG: u32 = 2;

    /// Ready: act, with the lock still held.
    READY: i32 = 0;
    /// Read the registers, with the lock still held.
    READY_POLL: i32 = 1;
    /// Drop the lock, sleep, begin again.
    READY_SLEEP: i32 = 2;

    /// A mapping of vfio-pci-core.
    MMAP_BASE: i32 = 0;
    /// Bit: a mapping of memory.
    MMAP_MEMORY: i32 = 1;
    /// Bit: uncached with write combining; else cached.
    MMAP_WRITE_COMBINING: i32 = 2;
    /// Bit: a hypervisor may let its guest map the memory uncached.
    MMAP_ALLOW_UNCACHED: i32 = 4;

    /// Try a smaller order.
    FAULT_FALLBACK: i64 = -1;
    /// No memory backs the address.
    FAULT_SIGBUS: i64 = -2;
    /// The page of the address has failed.
    FAULT_FAILED_PAGE: i64 = -3;

    /// Wait with the locks of the fault held.
    FAULT_WAIT_HELD: i32 = 0;
    /// Release the locks of the fault, wait, and have the fault tried again.
    FAULT_WAIT_RELEASED: i32 = 1;
    /// Release the lock of the mapping and have the fault tried again with the lock of the memory map.
    FAULT_WAIT_LATER: i32 = 2;
    /// The fault fails.
    FAULT_WAIT_NONE: i32 = 3;

    /// An open has failed.
    COUNT_OPEN_FAILED: u32 = 0;
    /// The device was closed.
    COUNT_CLOSED: u32 = 1;
    /// The device was not ready in time for a fault.
    COUNT_FAULT_NOT_READY: u32 = 2;
    /// The pages of a fault were inserted, with the lock held.
    COUNT_FAULT_SERVED: u32 = 3;
    /// The pages of a fault were not inserted.
    COUNT_FAULT_NOT_INSERTED: u32 = 4;
    /// A region was mapped for the kernel.
    COUNT_MEMORY_MAPPED: u32 = 5;
    /// A region was unmapped.
    COUNT_MEMORY_UNMAPPED: u32 = 6;
    /// Page frames were registered for memory failure.
    COUNT_PAGES_REGISTERED: u32 = 7;
    /// Page frames were unregistered.
    COUNT_PAGES_UNREGISTERED: u32 = 8;
    /// A region was claimed.
    COUNT_MEMORY_CLAIMED: u32 = 9;
    /// A region was released.
    COUNT_MEMORY_RELEASED: u32 = 10;
    /// The locks of a fault were released, and the fault is tried again.
    COUNT_FAULT_RETRIED: u32 = 11;
    /// `memory_lock` was dropped with the device ready, without an act.
    COUNT_CHECKED: u32 = 12;
}

c_structs! {
    /// State of a variant, in storage that C provides and that only Rust reads.
    varia_state State {
        /// Opaque to C.
        words: [u64; STATE_WORDS],
    }

    /// Question to answer before the state of a variant is built.
    varia_question Question {
        /// VARIA_QUESTION_*.
        kind: u32,
        /// The vendor of a DVSEC.
        vendor: u16,
        /// The id of a DVSEC.
        id: u16,
        /// Bytes from the start of a DVSEC, or the number of a BAR.
        offset: u64,
        /// The name of a firmware property, with a NUL.
        name: [u8; NAME_LEN],
    }

    /// Answer to a question.
    varia_answer Answer {
        /// The value, if errno is 0.
        value: u64,
        /// Positive errno without a value, or 0.
        errno: u32,
        /// Zero.
        reserved: u32,
    }

    /// Properties of the whole host.
    varia_environment Environment {
        /// Log2 of the base page size.
        page_shift: u32,
        /// 1 if reads and writes fail while memory is disabled, else 0.
        honour_memory_enable: u32,
        /// 1 if a device that would be declined is refused, else 0.
        strict: u32,
        /// Zero.
        reserved: u32,
    }

    /// `struct vfio_region_info_cap_sparse_mmap` with one area.
    varia_sparse Sparse {
        /// VFIO_REGION_INFO_CAP_SPARSE_MMAP.
        id: u16,
        /// The capability's version.
        version: u16,
        /// Offset of the next capability; VFIO fills it in.
        next: u32,
        /// Areas: one.
        nr_areas: u32,
        /// Zero.
        reserved: u32,
        /// Bytes from the start of the region.
        offset: u64,
        /// Bytes in the area.
        size: u64,
    }

    /// Memory outside every physical BAR, presented as one.
    varia_region Region {
        /// Host-physical address.
        base: u64,
        /// Bytes of memory.
        length: u64,
        /// Bytes of the BAR.
        size: u64,
        /// The area that can be mapped.
        sparse: Sparse,
        /// The first page frame.
        first_frame: u64,
        /// Whole pages, from the first frame on.
        frames: u64,
        /// VFIO_REGION_INFO_FLAG_*.
        flags: u32,
        /// VARIA_MEMORY_*.
        memory: u32,
    }

    /// A read or write of a region of memory, on the stack of the operation.
    varia_access Access {
        /// The position in the device's file.
        position: u64,
        /// Bytes of the request; once the access has begun, bytes that are served.
        count: u64,
        /// Bytes of the segments that are done: position of the next segment in the user's buffer.
        /// Before the access has begun, bytes that were copied directly.
        done: u64,
        /// Bytes of the present segment.
        segment: u64,
        /// VARIA_READ or VARIA_WRITE.
        direction: u32,
        /// 1 once the access has begun, else 0.
        begun: u32,
        /// Result of the present segment: bytes that were moved, or a negative errno. A direct
        /// segment may move fewer bytes than its length without an error.
        result: i32,
        /// 1 if the process is being killed, else 0.
        killed: u32,
        /// 1 if the present segment ran with the lock held and the device ready, else 0.
        held: u32,
        /// Zero.
        reserved: u32,
    }

    /// The next segment of an access.
    varia_segment Segment {
        /// Bytes in the segment, at most VARIA_COPY_CHUNK, or VARIA_DIRECT_CHUNK of a direct one.
        len: u64,
        /// Offset in the region in bytes.
        offset: u64,
        /// The index of the region.
        index: u32,
        /// VARIA_SEGMENT_*.
        kind: u32,
        /// VARIA_MEMORY_*, for VARIA_SEGMENT_MEMORY.
        memory: u32,
        /// Bytes of each access, for VARIA_MEMORY_WRITE_COMBINING; they divide the segment.
        width: u32,
        /// 1 to copy without a bounce buffer, up to the first page that the user's buffer lacks.
        direct: u32,
        /// Zero.
        reserved: u32,
    }

    /// The first segment of an access to configuration space.
    varia_config_segment ConfigSegment {
        /// Bytes in the segment: at least 1, at most VARIA_CONFIG_CHUNK if the variant keeps them.
        len: u64,
        /// VARIA_OWNER_*.
        owner: u32,
        /// Zero.
        reserved: u32,
    }

    /// One operation's wait, on that operation's stack; all zero at first.
    varia_wait Wait {
        /// The deadline, if has_deadline.
        deadline: u64,
        /// 0 or 1.
        has_deadline: u32,
        /// 1 once the deadline has been moved, else 0.
        extended: u32,
        /// Milliseconds to sleep before the next poll, for VARIA_READY_SLEEP.
        sleep_ms: u64,
        /// 1 once the operation has slept, else 0.
        slept: u32,
        /// Zero.
        reserved: u32,
    }

    /// State that was sampled with the lock held.
    varia_sample Sample {
        /// Milliseconds of a clock that never goes back.
        now: u64,
        /// 1 if memory is enabled and the device is in D0, else 0.
        memory_enabled: u32,
        /// 1 if the device is suspended by runtime PM and must not be resumed, else 0.
        suspended: u32,
        /// 1 if the process of the operation is being killed, else 0.
        killed: u32,
        /// 1 once the device may have users, else 0.
        in_use: u32,
        /// 1 if memory_lock is held, else 0.
        locked: u32,
        /// Zero.
        reserved: u32,
    }

    /// A register to read: a little-endian u32.
    varia_register Register {
        /// The offset in bytes.
        offset: u64,
        /// VARIA_REGISTER_*.
        kind: u32,
        /// The value that was read.
        value: u32,
    }

    /// A poll of the readiness registers: Rust names the registers, C reads them, Rust judges.
    varia_poll Poll {
        /// Number of resets at the start of the poll.
        generation: u64,
        /// Registers to read, in this order.
        registers: [Register; MAX_REGISTERS],
    }
}
