//! Faults in the variants of other platforms, nvlink2 and ism, and in the extension zdev.

use varia_mutants::Mutant;

use super::mutant;

const BRIDGE: &str = "variants/src/nvlink2/link.rs";
const GPU: &str = "variants/src/nvlink2/gpu.rs";
const NVLINK2: &str = "variants/src/nvlink2.rs";
const ISM: &str = "variants/src/ism.rs";
const ZDEV: &str = "variants/src/zdev.rs";
const TABLE: &str = "variants/src/table.rs";

/// Ordered by file, so that little is built anew from one to the next.
pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        BRIDGE,
        "a register at address 0 is one",
        "match register.filter(|address| *address != 0) {",
        "match register {",
    ),
    mutant(
        BRIDGE,
        "the register is that of link 0",
        "Ok(index) if index < ATSD_REGISTERS => register(answers, index)?,",
        "Ok(index) if index < ATSD_REGISTERS => register(answers, 0)?,",
    ),
    mutant(
        BRIDGE,
        "a link without a register of its own has none",
        "        None => register(answers, 0)?,\n",
        "        None => None,\n",
    ),
    mutant(
        BRIDGE,
        "addresses of a wrong size are none",
        "        Err(refused) => Err(refused),",
        "        Err(_) => Ok(None),",
    ),
    mutant(
        BRIDGE,
        "the bridge of an older unit has links",
        "    wanted(answers.to(MEMORY_REGION), memory)?;\n",
        "",
    ),
    mutant(
        BRIDGE,
        "the speed has a default",
        "needed(answers.to(SPEED), speed, Errno::EFAULT)? as u32",
        "answers.to(SPEED).unwrap_or(9) as u32",
    ),
    mutant(
        BRIDGE,
        "a register may be in the middle of a page",
        "if !base.0.is_multiple_of(size.0) {",
        "if !base.0.is_multiple_of(8) {",
    ),
    mutant(
        GPU,
        "the second word of reg is the base",
        "const BASE: Question = doubleword(MEMORY, property::REG, 0, Some(2));",
        "const BASE: Question = doubleword(MEMORY, property::REG, 1, Some(2));",
    ),
    mutant(
        GPU,
        "a GPU is mapped as often as a client asks",
        "                .mapped_once()\n",
        "",
    ),
    mutant(
        GPU,
        "the size need not be whole pages",
        "if size == 0 || !size.is_multiple_of(page.size()) {",
        "if size == 0 {",
    ),
    mutant(
        NVLINK2,
        "missing links fail the probe",
        "Err(Not::Declined(reason)) => Plan::declined(reason, environment),",
        "Err(Not::Declined(reason)) => Plan::Fail(Refusal::Strict(reason)),",
    ),
    mutant(
        NVLINK2,
        "a fact of a wrong size is missing",
        "        Err(Errno::EOVERFLOW) => needed(answer, fact, Errno::EINVAL),\n",
        "",
    ),
    mutant(
        NVLINK2,
        "memory enable is honoured without effect",
        "            Ok(_) if environment.honour_memory_enable => Plan::Fail(Refusal::NothingToHonour),\n",
        "",
    ),
    mutant(
        NVLINK2,
        "the region has every index",
        "Some(region) if index == REGION => Region::Memory(*region),",
        "Some(region) => Region::Memory(*region),",
    ),
    mutant(
        ISM,
        "a store may be longer than firmware allows",
        "if len > self.longest || len > left_in_page",
        "if len > left_in_page",
    ),
    mutant(
        ISM,
        "a store may cross a page",
        "if len > self.longest || len > left_in_page",
        "if len > self.longest",
    ),
    mutant(
        ISM,
        "reads are limited as stores",
        "Direction::Write if len",
        "_ if len",
    ),
    mutant(
        ISM,
        "an access is not clipped",
        "let len = access.len.min(room);",
        "let len = access.len;",
    ),
    mutant(
        ISM,
        "an access at the end is served",
        "room.filter(|room| *room > 0)",
        "room.filter(|_| true)",
    ),
    mutant(
        ISM,
        "the ROM is the base's",
        "index == RegionIndex::CONFIG ||",
        "index == RegionIndex::CONFIG || index == RegionIndex::ROM ||",
    ),
    mutant(
        ISM,
        "a BAR that the function lacks is the base's",
        "bar.map_or(Region::Absent,",
        "bar.map_or(Region::Base,",
    ),
    mutant(
        ISM,
        "a store of no bytes is the longest",
        "Ok(longest @ 1..=MAX_STORE)",
        "Ok(longest @ 0..=MAX_STORE)",
    ),
    mutant(
        ISM,
        "a store may be longer than a page",
        "Ok(longest @ 1..=MAX_STORE)",
        "Ok(longest @ 1..)",
    ),
    mutant(
        ISM,
        "ISM honours memory enable without effect",
        "if environment.honour_memory_enable => {",
        "if environment.honour_memory_enable && environment.strict => {",
    ),
    mutant(
        ISM,
        "without facts the probe fails",
        "                Plan::declined(missing, environment)",
        "                Plan::Fail(Refusal::Strict(missing))",
    ),
    mutant(
        TABLE,
        "a fact selects a device of any vendor",
        "entry.fact.filter(|(of, _)| *of == vendor)",
        "entry.fact",
    ),
    mutant(
        TABLE,
        "the class comes before facts of the platform",
        "if let Some((_, question)) = fact.filter(|(_, question)| answer(*question).is_ok()) {",
        "if let Some((_, question)) = fact.filter(|(_, question)| answer(*question).is_err()) {",
    ),
    mutant(
        ZDEV,
        "the least value is refused",
        "if value < least || value > most {",
        "if value <= least || value > most {",
    ),
    mutant(
        ZDEV,
        "a value above the most is cut",
        "if value < least || value > most {",
        "if value < least {",
    ),
    mutant(
        ZDEV,
        "a DMA range may end before it begins",
        "facts.end_dma, facts.start_dma, u64::MAX)?",
        "facts.end_dma, 0, u64::MAX)?",
    ),
    mutant(
        ZDEV,
        "the base has version 2 with error records too",
        "Some(_) => version::BASE_WITH_ERRORS,",
        "Some(_) => version::BASE,",
    ),
    mutant(
        ZDEV,
        "type and group are swapped",
        ".with(&[self.pft, self.gid])",
        ".with(&[self.gid, self.pft])",
    ),
    mutant(
        ZDEV,
        "the handle is left out",
        "            .with(&self.fh.to_ne_bytes());",
        ";",
    ),
    mutant(
        ZDEV,
        "refresh is not set",
        ".with(&REFRESH.to_ne_bytes())",
        ".with(&0_u64.to_ne_bytes())",
    ),
    mutant(
        ZDEV,
        "firmware's limit is the kernel's",
        ".with(&self.imaxstbl.to_ne_bytes())",
        ".with(&self.maxstbl.to_ne_bytes())",
    ),
    mutant(
        ZDEV,
        "the path comes before the utility string",
        "        add(self.base());\n        add(self.group());",
        "        add(self.group());\n        add(self.base());",
    ),
    mutant(
        ZDEV,
        "a text has no length",
        "let len = bytes.len() as u32;",
        "let len = 0_u32;",
    ),
    mutant(
        ZDEV,
        "error records are a feature of every platform",
        "        if let Some(len) = self.error_length {\n            add(Feature {",
        "        if let Some(len) = self.error_length.or(Some(1)) {\n            add(Feature {",
    ),
];
