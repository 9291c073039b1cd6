//! Faults in the virtio variant and what it brought, and in the layer that extends any variant.

use varia_mutants::Mutant;

use super::{CONFIG, mutant};

const VIRTIO: &str = "variants/src/virtio.rs";
const REGISTERS: &str = "variants/src/virtio/registers.rs";
const COMMAND: &str = "variant/src/registers.rs";
const EXTENSION: &str = "variant/src/extension.rs";
const TABLE: &str = "variants/src/table.rs";

/// Ordered by file, so that little is built anew from one to the next.
pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        VIRTIO,
        "one legacy command is enough",
        "if commands == admin::LEGACY_BITMAP",
        "if commands != 0",
    ),
    mutant(
        VIRTIO,
        "other commands are in the way of the legacy ones",
        "answers.to(COMMANDS).unwrap_or(0) & admin::LEGACY_BITMAP",
        "answers.to(COMMANDS).unwrap_or(0)",
    ),
    mutant(
        VIRTIO,
        "a BAR0 of its own is covered",
        "_ if answers.to(BAR0_SIZE).is_ok() =>",
        "_ if false =>",
    ),
    mutant(
        VIRTIO,
        "places behind the end are read",
        "admin::NOTIFY_INFO_END => return None,",
        "admin::NOTIFY_INFO_END => {}",
    ),
    mutant(
        VIRTIO,
        "a place in the owner's BARs is taken",
        "admin::NOTIFY_INFO_MEMBER => {",
        "1 | admin::NOTIFY_INFO_MEMBER => {",
    ),
    mutant(
        VIRTIO,
        "the revision is the function's own",
        "FixedRegister::byte(header::REVISION_ID as u64, virtio::ABI_VERSION),",
        "FixedRegister::byte(header::REVISION_ID as u64, 1),",
    ),
    mutant(
        VIRTIO,
        "the subsystem and its vendor are swapped",
        "FixedRegister::word(header::SUBSYSTEM_ID as u64, virtio::ID_NET)",
        "FixedRegister::word(header::SUBSYSTEM_ID as u64, virtio::VENDOR_ID)",
    ),
    mutant(
        VIRTIO,
        "writes of the registers don't reach the base",
        "ConfigSegment::split_all(offset, len, windows, ConfigOwner::Both)",
        "ConfigSegment::split_all(offset, len, windows, ConfigOwner::Keep)",
    ),
    mutant(
        CONFIG,
        "a register that another begins behind is the base's",
        "if segment.owner == owner =>",
        "if segment.owner != owner =>",
    ),
    mutant(
        CONFIG,
        "an access is the first register's as far as it reaches",
        "if segment.len < first.len =>",
        "if segment.len > first.len =>",
    ),
    mutant(
        VIRTIO,
        "I/O enable does not show",
        "served.interface.io.load(offset, out);",
        "",
    ),
    mutant(
        VIRTIO,
        "memory enable is taken for I/O enable",
        "StickyBits::new(u64::from(header::COMMAND), command::IO)",
        "StickyBits::new(u64::from(header::COMMAND), command::MEMORY)",
    ),
    mutant(
        VIRTIO,
        "I/O stays enabled over a reset",
        "Event::ResetDone => served.interface.io.clear(),",
        "Event::ResetDone => {}",
    ),
    mutant(
        VIRTIO,
        "a reset zeroes BAR0",
        "Event::ResetDone => served.interface.io.clear(),",
        "Event::ResetDone => {\n                served.interface.io.clear();\n                served.bar0.clear();\n            }",
    ),
    mutant(
        VIRTIO,
        "a reset that is only asked for takes I/O enable",
        "Event::ResetRequested => {}",
        "Event::ResetRequested => served.interface.io.clear(),",
    ),
    mutant(
        VIRTIO,
        "a new user sees the last one's BAR0",
        "                served.interface.io.clear();\n                served.bar0.clear();",
        "                served.interface.io.clear();",
    ),
    mutant(
        VIRTIO,
        "BAR0 is needed to open the device",
        "served.interface.notify.bar == bar",
        "bar == BarIndex::BAR0",
    ),
    mutant(
        REGISTERS,
        "registers answer while I/O is disabled",
        "return Err(Errno::EIO);",
        "",
    ),
    mutant(
        REGISTERS,
        "an access may reach one byte beyond",
        "Some(end) if end <= LEN => {}",
        "Some(end) if end <= LEN + 1 => {}",
    ),
    mutant(
        REGISTERS,
        "an access may not reach the last byte",
        "Some(end) if end <= LEN => {}",
        "Some(end) if end < LEN => {}",
    ),
    mutant(
        REGISTERS,
        "a notification may be longer",
        "2 => Ok(Target::Bar {",
        "2.. => Ok(Target::Bar {",
    ),
    mutant(
        REGISTERS,
        "a notification may be shorter",
        "2 => Ok(Target::Bar {",
        "1..=2 => Ok(Target::Bar {",
    ),
    mutant(
        REGISTERS,
        "the common part has no vectors with MSI-X",
        "legacy::config_off(access.msix)",
        "legacy::config_off(!access.msix)",
    ),
    mutant(
        REGISTERS,
        "the common part ends with its vectors in any case",
        "legacy::config_off(access.msix)",
        "legacy::config_off(true)",
    ),
    mutant(
        REGISTERS,
        "device registers are counted from the region's start",
        "Some(offset) => (offset, false)",
        "Some(_) => (access.offset, false)",
    ),
    mutant(
        REGISTERS,
        "device registers are read as common ones",
        "(admin::LEGACY_DEV_CFG_READ, admin::LEGACY_READ_HEADER)",
        "(admin::LEGACY_COMMON_CFG_READ, admin::LEGACY_READ_HEADER)",
    ),
    mutant(
        REGISTERS,
        "a write's data follows the offset at once",
        "(admin::LEGACY_COMMON_CFG_WRITE, admin::LEGACY_WRITE_HEADER)",
        "(admin::LEGACY_COMMON_CFG_WRITE, admin::LEGACY_READ_HEADER)",
    ),
    mutant(
        COMMAND,
        "a command has its whole header always",
        ".get(..usize::from(self.header_len))",
        ".get(..usize::from(self.header_len).max(8))",
    ),
    mutant(
        COMMAND,
        "registers can be mapped",
        "flags: region_flags::READ | region_flags::WRITE,",
        "flags: region_flags::READ | region_flags::WRITE | region_flags::MMAP,",
    ),
    mutant(
        CONFIG,
        "an I/O BAR shows as memory",
        "Self::new(start, 4, SPACE_IO, size.address_mask())",
        "Self::new(start, 4, 0, size.address_mask())",
    ),
    mutant(
        CONFIG,
        "an I/O BAR takes the register behind it",
        "Self::new(start, 4, SPACE_IO, size.address_mask())",
        "Self::new(start, 8, SPACE_IO, size.address_mask())",
    ),
    mutant(
        CONFIG,
        "a sticky bit hides what the base shows",
        "*byte |= set;",
        "*byte = set;",
    ),
    mutant(
        CONFIG,
        "one sticky bit of two is enough",
        "self.set() == self.mask.to_le_bytes()",
        "self.set() != [0; 2]",
    ),
    mutant(
        CONFIG,
        "bits that are not sticky stick",
        "first.load(Ordering::Relaxed) & low,",
        "first.load(Ordering::Relaxed) | low & 0,",
    ),
    mutant(
        EXTENSION,
        "a variant below gets what the extension keeps",
        "if segment.owner != ConfigOwner::Keep {",
        "if true {",
    ),
    mutant(
        EXTENSION,
        "an extension gets what it does not own",
        "if segment.owner != ConfigOwner::Base {",
        "if true {",
    ),
    mutant(
        EXTENSION,
        "the base gets what the variant keeps",
        "(ConfigOwner::Keep, _) | (_, ConfigOwner::Keep) => ConfigOwner::Keep,",
        "(ConfigOwner::Keep, _) => ConfigOwner::Keep,",
    ),
    mutant(
        EXTENSION,
        "the variant's bytes cover the extension's",
        "        self.variant.config_load(offset, out);\n        self.extension.config_load(offset, out);",
        "        self.extension.config_load(offset, out);\n        self.variant.config_load(offset, out);",
    ),
    mutant(
        EXTENSION,
        "the variant is asked beyond the extension's piece",
        "self.variant.config_segment(direction, offset, above.len)",
        "self.variant.config_segment(direction, offset, len)",
    ),
    mutant(
        EXTENSION,
        "an extension hears of nothing",
        "self.extension.event(event);",
        "",
    ),
    mutant(
        TABLE,
        "a transitional card is taken for a modern one",
        "device_id::MODERN_NET)",
        "device_id::TRANSITIONAL_NET)",
    ),
];
