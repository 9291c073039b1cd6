//! Notice of a memory error, as firmware gives it to a running kernel.
//!
//! Source: ACPI 6.5 section 18.3.2.7.1 (Generic Error Status Block, Generic Error Data Entry), UEFI
//! 2.10 appendix N.2.5 (Memory Error Section).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::qmp::Connection;

/// `A5BC1114-6F64-4EDE-B863-3E83ED7C83B1`, the Memory Error Section.
const MEMORY_ERROR: [u8; 16] = [
    0x14, 0x11, 0xbc, 0xa5, 0x64, 0x6f, 0xde, 0x4e, 0xb8, 0x63, 0x3e, 0x83, 0xed, 0x7c, 0x83, 0xb1,
];
/// One uncorrectable error, in one entry.
const BLOCK_STATUS: u32 = 1 | 1 << 4;
const RECOVERABLE: u32 = 0;
const ENTRY_LENGTH: usize = 72;
const ENTRY_REVISION: u16 = 0x300;
const SECTION_LENGTH: usize = 80;
/// The physical address is valid.
const HAS_ADDRESS: u64 = 1 << 1;

/// Status block for a recoverable error of the memory at `address`.
fn status_block(address: u64) -> Vec<u8> {
    let mut section = vec![0; SECTION_LENGTH];
    section[..8].copy_from_slice(&HAS_ADDRESS.to_le_bytes());
    section[16..24].copy_from_slice(&address.to_le_bytes());

    let mut entry = vec![0; ENTRY_LENGTH];
    entry[..16].copy_from_slice(&MEMORY_ERROR);
    entry[16..20].copy_from_slice(&RECOVERABLE.to_le_bytes());
    entry[20..22].copy_from_slice(&ENTRY_REVISION.to_le_bytes());
    entry[24..28].copy_from_slice(&(SECTION_LENGTH as u32).to_le_bytes());

    let data_length = (ENTRY_LENGTH + SECTION_LENGTH) as u32;
    let header = [BLOCK_STATUS, 0, 0, data_length, RECOVERABLE];
    let mut block: Vec<u8> = header.into_iter().flat_map(u32::to_le_bytes).collect();
    block.extend(entry);
    block.extend(section);
    block
}

/// Has the machine's firmware tell the guest that its memory at a physical address has failed. The
/// machine has the option `ras=on`.
///
/// # Errors
/// In words, if QEMU refuses.
pub fn notify(monitor: &mut Connection, address: u64) -> Result<(), String> {
    let record = BASE64_STANDARD.encode(status_block(address));
    let arguments = json!({ "cper": record });
    monitor.ask("inject-ghes-v2-error", &arguments).map(|_| ())
}
