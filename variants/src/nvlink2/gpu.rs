//! The GPU's half: its memory, as far as the links' window reaches, as a region.

use varia_spec::{
    Errno, nvidia,
    nvlink2::{property, region},
    vfio::{RegionCapability, RegionType, region_flags},
};
use varia_variant::{
    Answers, Bytes, HostPhys, MemoryRegion, MemoryType, PageShift, Question, Refusal,
    TreeStep::{self, Phandle},
    WrongFact,
};

use super::{Not, doubleword, needed, wanted, word};

/// The first bridge of the GPU.
const BRIDGE: &[TreeStep] = &[Phandle(property::NPU)];
/// The memory that the bridge names.
const MEMORY: &[TreeStep] = &[Phandle(property::NPU), Phandle(property::MEMORY)];

/// The number of the bridge's node in the GPU's node, which selects the half too.
pub const NPU: Question = word(&[], property::NPU);
const MEMORY_REGION: Question = word(BRIDGE, property::MEMORY);
const BASE: Question = doubleword(MEMORY, property::REG, 0, Some(2));
const SIZE: Question = doubleword(MEMORY, property::REG, 1, Some(2));
const TARGET: Question = doubleword(BRIDGE, property::TARGET, 0, None);

/// Questions of this half.
pub const QUESTIONS: &[Question] = &[NPU, MEMORY_REGION, BASE, SIZE, TARGET];

/// The region, or the reason against it.
pub(super) fn region(answers: &Answers, page: PageShift) -> Result<MemoryRegion, Not> {
    wanted(answers.to(NPU), "NVLink2 bridge of the GPU (ibm,npu)")?;
    let memory = "memory of the NVLink2 bridge (memory-region)";
    wanted(answers.to(MEMORY_REGION), memory)?;
    let place = "place of the GPU's memory (reg)";
    let base = needed(answers.to(BASE), place, Errno::EINVAL)?;
    let size = needed(answers.to(SIZE), place, Errno::EINVAL)?;
    let target = "target address of the NVLink2 bridge (ibm,device-tgt-addr)";
    let target = needed(answers.to(TARGET), target, Errno::EFAULT)?;
    checked(base, size, page)
        .map(|region| {
            region
                .with_capabilities([Some(RegionCapability::TargetAddress(target)), None])
                .mapped_once()
        })
        .map_err(|fact| Not::Refused(Refusal::Platform(fact)))
}

fn checked(base: u64, size: u64, page: PageShift) -> Result<MemoryRegion, WrongFact> {
    let (base, length) = (HostPhys(base), Bytes(size));
    let fact = "place of the GPU's memory (reg)";
    if size == 0 || !size.is_multiple_of(page.size()) {
        return Err(WrongFact::NotPages {
            fact: "size of the GPU's memory (reg)",
            size: length,
            page: Bytes(page.size()),
        });
    }
    if !base.0.is_multiple_of(page.size()) {
        let page = Bytes(page.size());
        return Err(WrongFact::Misaligned { fact, base, page });
    }
    if base.checked_add(size).is_none() {
        let size = length;
        return Err(WrongFact::BeyondAddresses { fact, base, size });
    }
    let flags = region_flags::READ | region_flags::WRITE | region_flags::MMAP;
    let region_type = RegionType::of_vendor(nvidia::VENDOR_ID, region::GPU_MEMORY);
    MemoryRegion::of_device(base, size, MemoryType::Cached, region_type, flags)
        .map(|region| region.named("GPU memory"))
        .map_err(|_| WrongFact::TooLarge { fact, size: length })
}
