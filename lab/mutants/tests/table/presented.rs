//! Faults in the layouts of coherent memory and in GPUDirect cliques.

use varia_mutants::Mutant;

use super::mutant;

const PRESENTED: &str = "variant/src/presented.rs";
const MEMORY: &str = "variant/src/memory.rs";
const CONFIG: &str = "variant/src/config.rs";
const VARIANT: &str = "variants/src/nvgrace_gpu.rs";
const CLIQUE: &str = "variants/src/clique.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        PRESENTED,
        "layout region can be read too",
        "region.device_specific(region_type, region_flags::MMAP)",
        "region.device_specific(region_type, region_flags::MMAP | region_flags::READ)",
    ),
    mutant(
        PRESENTED,
        "both device-specific regions have one type",
        "uncached.map(|region| mapped(region, second))",
        "uncached.map(|region| mapped(region, first))",
    ),
    mutant(
        PRESENTED,
        "a BAR of the memory's size is too small",
        "if size < memory {",
        "if size <= memory {",
    ),
    mutant(
        PRESENTED,
        "the physical BAR takes the memory's size",
        "BarSize::covering(size.0)",
        "BarSize::covering(memory.0)",
    ),
    mutant(
        PRESENTED,
        "layout physical-bar drops the carve-out",
        "if let Some(uncached) = uncached {",
        "if let Some(uncached) = uncached.filter(|_| false) {",
    ),
    mutant(
        PRESENTED,
        "layout region leaves BAR5",
        "RegionIndex(2..=5)",
        "RegionIndex(2..=4)",
    ),
    mutant(
        PRESENTED,
        "the regions are counted from 8",
        "const CACHED: RegionIndex = RegionIndex(RegionIndex::COUNT);",
        "const CACHED: RegionIndex = RegionIndex(RegionIndex::COUNT - 1);",
    ),
    mutant(
        MEMORY,
        "a device-specific region has the size of a BAR",
        "size: self.length,\n            region_type: Some(region_type),",
        "size: self.size,\n            region_type: Some(region_type),",
    ),
    mutant(
        CONFIG,
        "a BAR that does not exist keeps its type",
        "Self::new(start as u64, 8, 0, 0)",
        "Self::new(start as u64, 8, MEM_TYPE_64, 0)",
    ),
    mutant(
        VARIANT,
        "layout region ignores memory enable silently",
        "environment.honour_memory_enable && form == MemoryLayout::Region",
        "environment.honour_memory_enable && form == MemoryLayout::PhysicalBar",
    ),
    mutant(
        CLIQUE,
        "a capability's end does not count",
        "one.start < at + LEN && at < one.end",
        "one.start == at",
    ),
    mutant(
        CLIQUE,
        "clique 16 exists",
        "*small <= MAX_CLIQUE",
        "*small <= MAX_CLIQUE + 1",
    ),
    mutant(
        CLIQUE,
        "the number is in the low bits",
        "b'P', number << 3, 0]",
        "b'P', number, 0]",
    ),
];
