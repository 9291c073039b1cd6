// SPDX-License-Identifier: GPL-2.0-only
//! What crosses the border between C and Rust: integers, and structs of integers.
//!
//! No enum crosses: a number that means nothing is answered with `-EINVAL`. A length is in bytes,
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
    /// Where the region index is in a file position.
    OFFSET_SHIFT: u32 = varia_spec::vfio::OFFSET_SHIFT;
    /// The most bytes of memory in a segment of an access that goes through the bounce buffer.
    COPY_CHUNK: usize = 4096;
    /// The most bytes of memory in a segment that is copied directly: so long is the lock held.
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
    /// A little-endian u64 in the result of the owner's command whose operation is in the id.
    QUESTION_COMMAND_WORD: u32 = 4;

    /// The variant serves the device.
    OUTCOME_SERVE: i32 = 0;
    /// vfio-pci-core serves the device alone.
    OUTCOME_DECLINE: i32 = 1;

    /// The region is vfio-pci-core's.
    REGION_BASE: i32 = 0;
    /// The region is the variant's memory.
    REGION_MEMORY: i32 = 1;

    /// Cached memory, at byte granularity.
    MEMORY_CACHED: u32 = 0;
    /// Uncached memory with write combining, in naturally aligned accesses.
    MEMORY_WRITE_COMBINING: u32 = 1;

    /// The user reads.
    READ: u32 = 0;
    /// The user writes.
    WRITE: u32 = 1;

    /// Memory is there.
    SEGMENT_MEMORY: u32 = 0;
    /// Nothing is there: a read gives 0xFF.
    SEGMENT_ONES: u32 = 1;
    /// No bytes, but the device has to be ready.
    SEGMENT_CHECK: u32 = 2;

    /// vfio-pci-core serves an access.
    ROUTE_BASE: i32 = 0;
    /// It is an access to a region of memory.
    ROUTE_MEMORY: i32 = 1;
    /// The same, and it is one segment that is copied directly.
    ROUTE_DIRECT: i32 = 2;
    /// A read of configuration space that the variant alone answers.
    ROUTE_LOAD: i32 = 3;
    /// A write of configuration space that the variant alone keeps; the device need not be awake.
    ROUTE_STORE: i32 = 4;
    /// An access to configuration space that goes segment by segment.
    ROUTE_SPLIT: i32 = 5;

    /// vfio-pci-core serves the segment.
    OWNER_BASE: u32 = 0;
    /// The variant serves the segment.
    OWNER_KEEP: u32 = 1;
    /// Both get a write; a read shows the variant's bytes.
    OWNER_BOTH: u32 = 2;

    /// An unused register.
    REGISTER_NONE: u32 = 0;
    /// A register in BAR0.
    REGISTER_BAR0: u32 = 1;
    /// A register in the device's own configuration space.
    REGISTER_CONFIG: u32 = 2;

    /// Ready: act, in this lock hold.
    READY: i32 = 0;
    /// Read the registers, in this lock hold.
    READY_POLL: i32 = 1;
    /// Drop the lock, sleep, begin again.
    READY_SLEEP: i32 = 2;

    /// The mapping is vfio-pci-core's.
    MMAP_BASE: i32 = 0;
    /// It is made: a bit, beside those of how.
    MMAP_MEMORY: i32 = 1;
    /// Uncached with write combining; else cached.
    MMAP_WRITE_COMBINING: i32 = 2;
    /// A hypervisor may let its guest map it uncached.
    MMAP_ALLOW_UNCACHED: i32 = 4;

    /// Try a smaller order.
    FAULT_FALLBACK: i64 = -1;
    /// Nothing backs it.
    FAULT_SIGBUS: i64 = -2;

    /// An open has failed.
    COUNT_OPEN_FAILED: u32 = 0;
    /// The device was closed.
    COUNT_CLOSED: u32 = 1;
    /// The device did not get ready for a fault.
    COUNT_FAULT_NOT_READY: u32 = 2;
    /// A fault's pages were inserted in a lock hold.
    COUNT_FAULT_SERVED: u32 = 3;
    /// They were not.
    COUNT_FAULT_NOT_INSERTED: u32 = 4;
    /// A region was mapped for the kernel.
    COUNT_MEMORY_MAPPED: u32 = 5;
    /// It was unmapped.
    COUNT_MEMORY_UNMAPPED: u32 = 6;
    /// Page frames were registered for memory failure.
    COUNT_PAGES_REGISTERED: u32 = 7;
    /// They were unregistered.
    COUNT_PAGES_UNREGISTERED: u32 = 8;
}

c_structs! {
    /// A variant's state, in storage that C provides. Rust alone reads it.
    varia_state State {
        /// Nothing that C could read.
        words: [u64; STATE_WORDS],
    }

    /// One thing to find out before a variant's state is built.
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

    /// What was found out.
    varia_answer Answer {
        /// The number, if errno is 0.
        value: u64,
        /// Why there is none, or 0.
        errno: u32,
        /// Zero.
        reserved: u32,
    }

    /// What holds for the whole host.
    varia_environment Environment {
        /// Log2 of the base page size.
        page_shift: u32,
        /// Whether reads and writes fail while memory is disabled: 0 or 1.
        honour_memory_enable: u32,
    }

    /// `struct vfio_region_info_cap_sparse_mmap` with one area.
    varia_sparse Sparse {
        /// VFIO_REGION_INFO_CAP_SPARSE_MMAP.
        id: u16,
        /// The capability's version.
        version: u16,
        /// Where the next one is; VFIO fills it in.
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

    /// A read or write of a region of memory, on the stack of who carries it out.
    varia_access Access {
        /// The position in the device's file.
        position: u64,
        /// Bytes that are asked for, and once it has begun, those that are served.
        count: u64,
        /// Bytes of the segments that are done: where the next one is in the user's buffer. Before it
        /// has begun, those that were copied directly.
        done: u64,
        /// Bytes of the present segment.
        segment: u64,
        /// VARIA_READ or VARIA_WRITE.
        direction: u32,
        /// Whether it has begun: 0 or 1.
        begun: u32,
        /// How the present segment ended: bytes that were moved, or a negative errno. Fewer bytes than
        /// the segment has are no error of a direct one.
        result: i32,
        /// Whether the process is being killed: 0 or 1.
        killed: u32,
        /// Whether the present segment has had the lock, with the device ready: 0 or 1.
        held: u32,
        /// Zero.
        reserved: u32,
    }

    /// The next segment of an access.
    varia_segment Segment {
        /// Bytes in the segment, at most VARIA_COPY_CHUNK, or VARIA_DIRECT_CHUNK of a direct one.
        len: u64,
        /// Where it is, from the start of the region.
        offset: u64,
        /// The index of the region.
        index: u32,
        /// VARIA_SEGMENT_*.
        kind: u32,
        /// VARIA_MEMORY_*, for VARIA_SEGMENT_MEMORY.
        memory: u32,
        /// Bytes of each access, for VARIA_MEMORY_WRITE_COMBINING; the segment is a whole number of them.
        width: u32,
        /// Whether it is copied without a bounce buffer, as far as the user's pages are there: 0
        /// or 1.
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
        /// When to give up, if has_deadline.
        deadline: u64,
        /// 0 or 1.
        has_deadline: u32,
        /// Whether the deadline has been moved: 0 or 1.
        extended: u32,
        /// How long to sleep before the next poll, for VARIA_READY_SLEEP.
        sleep_ms: u64,
        /// Whether it has slept: 0 or 1.
        slept: u32,
        /// Zero.
        reserved: u32,
    }

    /// What was sampled in the present lock hold.
    varia_sample Sample {
        /// Milliseconds of a clock that never goes back.
        now: u64,
        /// Whether memory is enabled and the device is in D0: 0 or 1.
        memory_enabled: u32,
        /// Whether the device is suspended by runtime PM, and nobody may resume it: 0 or 1.
        suspended: u32,
        /// Whether the operation's process is being killed: 0 or 1.
        killed: u32,
        /// Whether somebody may use the device already: 0 or 1.
        in_use: u32,
        /// Whether somebody holds memory_lock: 0 or 1.
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
        /// What was read.
        value: u32,
    }

    /// A poll of the readiness registers: filled in by Rust, its registers by C, judged by Rust.
    varia_poll Poll {
        /// The resets that it has seen.
        generation: u64,
        /// What to read, in this order.
        registers: [Register; MAX_REGISTERS],
    }
}
