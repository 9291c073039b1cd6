//! The half of a bridge: the register by which the GPU's address translations are dropped (ATSD),
//! and the facts of the link as capabilities.
//!
//! A link without a register of its own shares the first one. Without any ATSD register the region is
//! empty, and exists all the same: the capabilities are its own. A wrong link speed is a dead link
//! without a sign, so that an unknown one is refused.

use varia_spec::{
    Errno,
    nvlink2::{ATSD_REGISTERS, IBM, property, region},
    vfio::{RegionCapability, RegionType, region_flags},
};
use varia_variant::{
    Answers, Bytes, HostPhys, MemoryRegion, MemoryType, PageShift, Question, Refusal,
    TreeStep::{self, HostBridge, Phandle},
    WrongFact,
};

use super::{Not, doubleword, needed, wanted, word};

/// The GPU of the bridge.
const GPU: &[TreeStep] = &[Phandle(property::GPU)];
/// The link of the bridge.
const LINK: &[TreeStep] = &[Phandle(property::NVLINK)];

/// Presence of the GPU's node.
const GPU_NODE: Question = word(GPU, property::PHANDLE);
const LINK_INDEX: Question = word(LINK, property::LINK_INDEX);
/// Firmware of an older unit, which does not have the memory behind its links, names none.
const MEMORY_REGION: Question = word(&[], property::MEMORY);
const TARGET: Question = doubleword(&[], property::TARGET, 0, None);
const SPEED: Question = word(&[], property::SPEED);

/// Address of the ATSD register of the link with this index.
const fn atsd(index: u16) -> Question {
    doubleword(&[HostBridge], property::ATSD, index, None)
}

/// The number of the GPU's node in the bridge's node, which selects the half.
pub const GPU_NUMBER: Question = word(&[], property::GPU);

/// Questions of this half.
pub const QUESTIONS: &[Question] = &[
    GPU_NODE,
    MEMORY_REGION,
    LINK_INDEX,
    TARGET,
    SPEED,
    atsd(0),
    atsd(1),
    atsd(2),
    atsd(3),
    atsd(4),
    atsd(5),
    atsd(6),
    atsd(7),
];

/// The region, or the reason against it.
pub(super) fn region(answers: &Answers, page: PageShift) -> Result<MemoryRegion, Not> {
    let gpu = "GPU of the NVLink2 bridge (ibm,gpu)";
    wanted(answers.to(GPU_NODE), gpu)?;
    let memory = "memory of the NVLink2 bridge (memory-region)";
    wanted(answers.to(MEMORY_REGION), memory)?;
    let link = "link of the NVLink2 bridge (ibm,nvlink, ibm,npu-link-index)";
    let link = wanted(answers.to(LINK_INDEX), link)?;
    let own = match u16::try_from(link) {
        Ok(index) if index < ATSD_REGISTERS => register(answers, index)?,
        _ => None,
    };
    let register = match own {
        None => register(answers, 0)?,
        own => own,
    };
    let target = "target address of the NVLink2 bridge (ibm,device-tgt-addr)";
    let target = needed(answers.to(TARGET), target, Errno::EFAULT)?;
    let speed = "speed of the NVLink2 bridge (ibm,nvlink-speed)";
    let speed = needed(answers.to(SPEED), speed, Errno::EFAULT)? as u32;
    let region = match register.filter(|address| *address != 0) {
        Some(address) => page_of(HostPhys(address), page)
            .map_err(|fact| Not::Refused(Refusal::Platform(fact)))?,
        None => MemoryRegion::without_memory(
            RegionType::of_vendor(IBM, region::ATSD),
            region_flags::READ | region_flags::WRITE,
        ),
    };
    Ok(region.named("ATSD").with_capabilities([
        Some(RegionCapability::TargetAddress(target)),
        Some(RegionCapability::LinkSpeed(speed)),
    ]))
}

/// The name of the registers' addresses, for a message.
const REGISTERS: &str = "addresses of the ATSD registers (ibm,mmio-atsd)";

/// Address of the register with this index, if the platform names one.
fn register(answers: &Answers, index: u16) -> Result<Option<u64>, Not> {
    match wanted(answers.to(atsd(index)), REGISTERS) {
        Ok(address) => Ok(Some(address)),
        Err(Not::Declined(_)) => Ok(None),
        Err(refused) => Err(refused),
    }
}

/// The page of a register.
fn page_of(base: HostPhys, page: PageShift) -> Result<MemoryRegion, WrongFact> {
    let size = Bytes(page.size());
    let fact = REGISTERS;
    if !base.0.is_multiple_of(size.0) {
        return Err(WrongFact::Misaligned {
            fact,
            base,
            page: size,
        });
    }
    let flags = region_flags::READ | region_flags::WRITE | region_flags::MMAP;
    let region_type = RegionType::of_vendor(IBM, region::ATSD);
    MemoryRegion::of_device(base, size.0, MemoryType::Registers, region_type, flags)
        .map_err(|_| WrongFact::BeyondAddresses { fact, base, size })
}
