//! Faults in the PCI core.

use varia_mutants::Mutant;

use super::mutant;

const CAPABILITY: &str = "core/src/config/capability.rs";
const CONFIG: &str = "core/src/config.rs";
const CORE: &str = "core/src/core.rs";
const IRQ: &str = "core/src/irq.rs";
const POWER: &str = "core/src/power.rs";
const REGIONS: &str = "core/src/regions.rs";
const REGISTERS: &str = "core/src/config/registers.rs";

/// Ordered by file, so that little is built anew from one to the next.
pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        CAPABILITY,
        "a user can write the device's id",
        ".word(header::DEVICE_ID, 0xffff, 0)",
        ".word(header::DEVICE_ID, 0xffff, 0xffff)",
    ),
    mutant(
        CAPABILITY,
        "the interrupt line goes to the device",
        ".byte(header::INTERRUPT_LINE, 0xff, 0xff)",
        ".byte(header::INTERRUPT_LINE, 0, 0xff)",
    ),
    mutant(
        CAPABILITY,
        "PME status is cleared through the power register",
        "let write = !(pme | pm::CTRL_STATE_MASK);",
        "let write = !pm::CTRL_STATE_MASK;",
    ),
    mutant(
        CAPABILITY,
        "the payload size goes to the device",
        "exp::DEVCTL_BCR_FLR | exp::DEVCTL_PAYLOAD | exp::DEVCTL_READRQ",
        "exp::DEVCTL_BCR_FLR | exp::DEVCTL_READRQ",
    ),
    mutant(
        CAPABILITY,
        "phantom functions can be switched on",
        "let write = !exp::DEVCTL_PHANTOM;",
        "let write = u16::MAX;",
    ),
    mutant(
        CAPABILITY,
        "the address of messages goes to the device",
        ".dword(msi::ADDRESS_LO, u32::MAX, u32::MAX);",
        ".dword(msi::ADDRESS_LO, 0, u32::MAX);",
    ),
    mutant(
        CAPABILITY,
        "error masks can't be written",
        "|errors, at| errors.dword(at, 0, err::UNCOR_BITS)",
        "|errors, at| errors.dword(at, 0, 0)",
    ),
    mutant(
        REGISTERS,
        "an access reaches beyond its register",
        "let count = count.min(rest) as u8;",
        "let count = count.min(4) as u8;",
    ),
    mutant(
        REGISTERS,
        "bytes in the middle of a register lose their place",
        "8 * u32::from(self.first)",
        "0 * u32::from(self.first)",
    ),
    mutant(
        REGISTERS,
        "bytes that nobody owns can't be written",
        "                write: u32::MAX,\n                role: Role::Raw,",
        "                write: 0,\n                role: Role::Plain,",
    ),
    mutant(
        CONFIG,
        "a BAR keeps address bits below its size",
        "Ok(own & sizing.mask | sizing.flags)",
        "Ok(own | sizing.flags)",
    ),
    mutant(
        CONFIG,
        "a BAR loses its flags",
        "Ok(own & sizing.mask | sizing.flags)",
        "Ok(own & sizing.mask)",
    ),
    mutant(
        CONFIG,
        "a write through a mask clears the other bits",
        "write_device(device, access, kept | value & through)",
        "write_device(device, access, value & through)",
    ),
    mutant(
        CONFIG,
        "a write passes the mask",
        "write_device(device, access, kept | value & through)",
        "write_device(device, access, value)",
    ),
    mutant(
        CONFIG,
        "PME shows in the capabilities",
        "for (offset, bits) in [(pm::PMC, pm::PMC_PME_MASK), (pm::CTRL, events)] {",
        "for (offset, bits) in [(pm::CTRL, events)] {",
    ),
    mutant(
        CONFIG,
        "a write of the command register switches nothing",
        "        Ok(Some(Effect::Command))",
        "        Ok(None)",
    ),
    mutant(
        CONFIG,
        "a user enables MSI by writing its flag",
        "flags &= !msi::FLAGS_ENABLE;",
        "flags |= 0;",
    ),
    mutant(
        CONFIG,
        "the reset bit stays set",
        "let seen = control & !exp::DEVCTL_BCR_FLR;",
        "let seen = control;",
    ),
    mutant(
        CORE,
        "the last byte of configuration space can't be reached",
        "let inside = len as u64 <= u64::from(CFG_SPACE_EXP_SIZE)",
        "let inside = (len as u64) < u64::from(CFG_SPACE_EXP_SIZE)",
    ),
    mutant(
        CORE,
        "memory stays enabled when the command register disables it",
        "lines.memory = open.config.memory_enabled();\n                self",
        "lines.memory |= open.config.memory_enabled();\n                self",
    ),
    mutant(
        IRQ,
        "INTx is not masked when it is signalled",
        "            self.masked = true;\n            signal(",
        "            signal(",
    ),
    mutant(
        IRQ,
        "vectors beyond the last can be set",
        "vectors.check_range(start, count)?;",
        "vectors.check_range(start, 0)?;",
    ),
    mutant(
        POWER,
        "registers are lost on the way from D3hot",
        "            saved.restore(device)?;\n            self",
        "            drop(saved);\n            self",
    ),
    mutant(
        POWER,
        "a reset loses the registers",
        "put back\n        saved.restore(device)?;",
        "put back\n        drop(saved);",
    ),
    mutant(
        POWER,
        "nobody is told of a reset",
        "        if let Some(hook) = hook {\n            hook();\n        }",
        "        drop(hook);",
    ),
    mutant(
        POWER,
        "a user gets a device that masters the bus",
        "& !u32::from(command::MASTER);",
        "| u32::from(command::MASTER);",
    ),
    mutant(
        REGIONS,
        "the MSI-X table is shown",
        "hidden.fill(0xff);",
        "hidden.fill(0);",
    ),
    mutant(
        REGIONS,
        "bytes behind the MSI-X table come from its beginning",
        "            read(offset + (self.before + self.hidden) as u64, last)?;",
        "            read(offset + self.before as u64, last)?;",
    ),
    mutant(
        REGIONS,
        "a region ends a byte early",
        "Ok(count.min(rest))",
        "Ok(count.min(rest - 1))",
    ),
];
