//! Both halves against a second, plain description of the kernel's: a device tree as nodes, from which
//! the region of each function is computed in the original's order.

use std::{collections::BTreeMap, format, string::String, string::ToString, vec, vec::Vec};

use varia_spec::vfio::{RegionCapability, RegionType, region_flags};
use varia_variant::{Begin, Bytes, MemoryType, MmapRequest, PageShift, TreePlace, TreeStep};

use super::*;

const ENVIRONMENT: Environment = Environment::new(PageShift::KIB_64);
const PAGE: u64 = 64 << 10;
const GIB: u64 = 1 << 30;

/// Nodes by number; number 0 is the function's own, 1 the host bridge's.
#[derive(Clone, Default)]
struct Tree(BTreeMap<u32, BTreeMap<&'static str, Vec<u32>>>);

impl Tree {
    fn put(&mut self, node: u32, property: &'static str, cells: &[u32]) {
        let node = self.0.entry(node).or_default();
        node.insert(property, cells.to_vec());
    }

    fn cells(&self, node: u32, property: &str) -> Result<&[u32], Errno> {
        let node = self.0.get(&node).ok_or(Errno::ENODEV)?;
        node.get(property).map(Vec::as_slice).ok_or(Errno::ENOENT)
    }

    /// Answers as a runtime does.
    fn answer(&self, question: Question) -> Answer {
        let (place, width) = match question {
            Question::TreeWord(place) => (place, 1),
            Question::TreeDoubleword(place) => (place, 2),
            other => panic!("{other:?}"),
        };
        let TreePlace {
            node,
            property,
            index,
            count,
        } = place;
        let mut at = 0;
        for step in node {
            at = match step {
                TreeStep::HostBridge => 1,
                TreeStep::Phandle(property) => {
                    *self.cells(at, property)?.first().ok_or(Errno::EOVERFLOW)?
                }
            };
        }
        let cells = self.cells(at, property)?;
        let whole = cells.len() % width == 0 && !cells.is_empty();
        if !whole || count.is_some_and(|count| usize::from(count) * width != cells.len()) {
            return Err(Errno::EOVERFLOW);
        }
        let integer = cells.chunks(width).nth(index.into()).ok_or(Errno::ENOENT)?;
        Ok(integer
            .iter()
            .fold(0, |value, cell| value << 32 | u64::from(*cell)))
    }

    fn gpu(&self, environment: Environment) -> Nvlink2 {
        let answers = Answers::collect(gpu::QUESTIONS, |question| self.answer(question));
        Nvlink2::gpu(&answers, environment)
    }

    fn bridge(&self, environment: Environment) -> Nvlink2 {
        let answers = Answers::collect(link::QUESTIONS, |question| self.answer(question));
        Nvlink2::bridge(&answers, environment)
    }
}

fn halves(value: u64) -> [u32; 2] {
    [(value >> 32) as u32, value as u32]
}

/// The tree of a GPU.
fn gpu_tree(base: u64, size: u64, target: u64) -> Tree {
    let mut tree = Tree::default();
    tree.put(0, "ibm,npu", &[20, 21, 22]);
    tree.put(20, "memory-region", &[30]);
    tree.put(20, "ibm,device-tgt-addr", &halves(target));
    tree.put(30, "reg", &[halves(base), halves(size)].concat());
    tree
}

/// The tree of the bridge of a link.
fn bridge_tree(link: u32, registers: &[u64], target: u64, speed: u32) -> Tree {
    let mut tree = Tree::default();
    tree.put(0, "ibm,gpu", &[10]);
    tree.put(10, "phandle", &[10]);
    tree.put(0, "memory-region", &[30]);
    tree.put(0, "ibm,nvlink", &[40]);
    tree.put(40, "ibm,npu-link-index", &[link]);
    tree.put(0, "ibm,device-tgt-addr", &halves(target));
    tree.put(0, "ibm,nvlink-speed", &[speed]);
    tree.put(1, "phandle", &[1]);
    let registers: Vec<u32> = registers.iter().flat_map(|r| halves(*r)).collect();
    if !registers.is_empty() {
        tree.put(1, "ibm,mmio-atsd", &registers);
    }
    tree
}

fn region(variant: &Nvlink2) -> MemoryRegion {
    for index in (0..9).chain([10, 11, u32::MAX]) {
        let region = variant.region(RegionIndex(index));
        assert!(matches!(region, Region::Base), "{index}: {region:?}");
    }
    match variant.region(RegionIndex(9)) {
        Region::Memory(region) => region,
        other => panic!("{other:?}"),
    }
}

/// An access or a mapping as the kernel decides: an error, or the count.
fn kernel_access(size: u64, offset: u64, count: u64) -> Result<u64, Errno> {
    if offset >= size {
        return Err(Errno::EINVAL);
    }
    Ok(count.min(size - offset))
}

/// Every offset around an edge, in every count around a size, as the kernel serves it.
fn assert_accesses(region: &MemoryRegion, size: u64) {
    let around = |at: u64| at.saturating_sub(2)..=at.saturating_add(2);
    let offsets = [2, size / 2, size, size + PAGE, u64::MAX - 2];
    for offset in offsets.into_iter().flat_map(around) {
        for count in [2, PAGE, size].into_iter().flat_map(around) {
            let expected = kernel_access(size, offset, count);
            for direction in [Direction::Read, Direction::Write] {
                let ours = match region.begin(direction, offset, count) {
                    Begin::Refuse(errno) => Err(errno),
                    Begin::Serve { count, .. } => Ok(count),
                };
                assert_eq!(ours, expected, "{count} at {offset:#x}");
                if let Ok(count @ 1..) = ours {
                    let segment = region.segment(direction, offset, count);
                    let at = region.base().0 + offset;
                    let memory = region.memory();
                    let kind =
                        varia_variant::SegmentKind::Memory(varia_variant::HostPhys(at), memory);
                    assert_eq!((segment.len, segment.kind), (count, kind));
                }
            }
        }
    }
}

#[test]
fn the_gpus_region_is_its_memory_for_every_base_size_and_target() {
    for base in [0, PAGE, 0x4_0000_0000, 0x6000_0000_0000] {
        for size in [PAGE, 128 * GIB, 127 * GIB + PAGE, 1 << 40] {
            for target in [0, 1, 0x1_0000_0000, u64::MAX] {
                let gpu = gpu_tree(base, size, target).gpu(ENVIRONMENT);
                assert_eq!(gpu.outcome(), Outcome::Serve, "{base:#x} {size:#x}");
                let region = region(&gpu);
                let info = region.info();
                assert_eq!(info.size, size);
                assert_eq!(
                    info.flags,
                    region_flags::READ | region_flags::WRITE | region_flags::MMAP
                );
                let region_type = RegionType {
                    kind: 0x8000_10de,
                    subtype: 1,
                };
                assert_eq!(info.region_type, Some(region_type));
                let target = RegionCapability::TargetAddress(target);
                assert_eq!(info.capabilities, [Some(target), None]);
                assert_eq!(
                    (region.base().0, region.memory()),
                    (base, MemoryType::Cached)
                );
                assert!(region.is_mapped_once());
                assert_accesses(&region, size);
            }
        }
    }
}

#[test]
fn a_bridges_region_is_its_links_register_or_the_first_for_every_link_and_number_of_registers() {
    let registers: Vec<u64> = (0..8).map(|i| 0x6020_0000_0000 + i * PAGE).collect();
    for count in 0..=registers.len() {
        for link in (0..9).chain([0xffff, 0x1_0000, u32::MAX]) {
            for speed in [0, 8, 9, u32::MAX] {
                let named = &registers[..count];
                let tree = bridge_tree(link, named, 0x1234_5678_9abc, speed);
                let bridge = tree.bridge(ENVIRONMENT);
                assert_eq!(bridge.outcome(), Outcome::Serve);
                let region = region(&bridge);
                let info = region.info();
                let own = named.get(link as usize);
                let register = own.or(named.first()).copied();
                let size = register.map_or(0, |_| PAGE);
                assert_eq!(info.size, size, "link {link} of {count}");
                let mapped = register.map_or(0, |_| region_flags::MMAP);
                assert_eq!(
                    info.flags,
                    region_flags::READ | region_flags::WRITE | mapped
                );
                let region_type = RegionType {
                    kind: 0x8000_1014,
                    subtype: 1,
                };
                assert_eq!(info.region_type, Some(region_type));
                let expected = [
                    RegionCapability::TargetAddress(0x1234_5678_9abc),
                    RegionCapability::LinkSpeed(speed),
                ];
                assert_eq!(info.capabilities, expected.map(Some));
                assert_eq!(region.memory(), MemoryType::Registers);
                assert!(!region.is_mapped_once());
                if let Some(register) = register {
                    assert_eq!(region.base().0, register);
                }
                assert_accesses(&region, size);
            }
        }
    }
}

/// Mappings: of a GPU any part, of a register the page, of no register nothing (the original maps the
/// physical page 0 then).
#[test]
fn a_mapping_lies_in_the_region_and_page_0_is_never_mapped() {
    let gpu = region(&gpu_tree(0, 4 * PAGE, 0).gpu(ENVIRONMENT));
    let register = region(&bridge_tree(0, &[PAGE], 0, 0).bridge(ENVIRONMENT));
    let zero = region(&bridge_tree(0, &[0], 0, 0).bridge(ENVIRONMENT));
    let none = region(&bridge_tree(0, &[], 0, 0).bridge(ENVIRONMENT));
    assert_eq!(zero.info().size, 0, "an address of 0 is no register");
    for (region, size) in [(gpu, 4 * PAGE), (register, PAGE), (zero, 0), (none, 0)] {
        for offset in 0..6 {
            for pages in 1..6 {
                let (offset, len) = (offset * PAGE, pages * PAGE);
                let request = MmapRequest {
                    offset,
                    len,
                    copy_on_write: false,
                };
                let fits = offset + len <= size;
                let mapping = region.mmap(request);
                assert_eq!(mapping.is_ok(), fits, "{len} at {offset} of {size}");
                if let Ok(mapping) = mapping {
                    assert!(!mapping.allow_uncached);
                    assert_eq!(mapping.memory, region.memory());
                }
            }
        }
    }
}

/// A register of address 0 that is named is taken, as the original does: it is none.
#[test]
fn the_first_register_takes_no_part_where_the_links_own_is_named() {
    let bridge = |link| region(&bridge_tree(link, &[PAGE, 0], 0, 0).bridge(ENVIRONMENT));
    assert_eq!((bridge(1).info().size, bridge(2).info().size), (0, PAGE));
    // without a host bridge there is no register
    let mut tree = bridge_tree(0, &[PAGE], 0, 0);
    tree.0.remove(&1);
    assert_eq!(region(&tree.bridge(ENVIRONMENT)).info().size, 0);
}

#[test]
fn memory_enable_can_t_be_honoured() {
    let honour = Environment {
        honour_memory_enable: true,
        ..ENVIRONMENT
    };
    let refused = Outcome::Fail(Refusal::NothingToHonour);
    assert_eq!(gpu_tree(0, PAGE, 0).gpu(honour).outcome(), refused);
    let bridge = bridge_tree(0, &[PAGE], 0, 0).bridge(honour);
    assert_eq!(bridge.outcome(), refused);
}

#[test]
fn a_gpu_and_its_bridges_have_one_target_address() {
    let target = |region: MemoryRegion| match region.info().capabilities {
        [Some(RegionCapability::TargetAddress(target)), _] => target,
        other => panic!("{other:?}"),
    };
    for address in [1, 0x8000_0000_0000_0000] {
        let gpu = region(&gpu_tree(0, PAGE, address).gpu(ENVIRONMENT));
        for link in 0..6 {
            let bridge = region(&bridge_tree(link, &[], address, 9).bridge(ENVIRONMENT));
            assert_eq!(target(bridge), target(gpu));
        }
    }
}

/// A change of a tree, the errno of a refusal (`None`: declined), and the begin of the reason.
type Row<'a> = (&'a dyn Fn(&mut Tree), Option<Errno>, &'a str);

fn assert_reasons(good: &Tree, probe: fn(&Tree, Environment) -> Nvlink2, rows: &[Row<'_>]) {
    assert_eq!(probe(good, ENVIRONMENT).outcome(), Outcome::Serve);
    let strict = Environment {
        strict: true,
        ..ENVIRONMENT
    };
    for (change, errno, says) in rows {
        let mut tree = good.clone();
        change(&mut tree);
        let variant = probe(&tree, ENVIRONMENT);
        for index in 0..12 {
            assert!(matches!(variant.region(RegionIndex(index)), Region::Base));
        }
        match (variant.outcome(), errno) {
            (Outcome::Decline(reason), None) => {
                let text = reason.to_string();
                assert!(text.starts_with(says), "{text}");
                assert!(text.contains(WITHOUT_LINKS), "{text}");
                let Outcome::Fail(refusal) = probe(&tree, strict).outcome() else {
                    panic!("{says}: strict takes it");
                };
                assert_eq!(refusal, Refusal::Strict(reason));
                assert_eq!(refusal.errno(), Errno::ENODEV);
            }
            (Outcome::Fail(refusal), Some(errno)) => {
                let text = refusal.to_string();
                assert!(text.starts_with(says), "{text}");
                assert_eq!(refusal.errno(), *errno, "{text}");
                assert_eq!(probe(&tree, strict).outcome(), Outcome::Fail(refusal));
            }
            (outcome, _) => panic!("{says}: {outcome:?}"),
        }
    }
}

#[test]
fn each_fact_of_a_gpu_that_is_missing_of_wrong_size_or_leads_nowhere_has_its_reason() {
    let reg = |base, size| [halves(base), halves(size)].concat();
    let put_reg = |cells: Vec<u32>| move |tree: &mut Tree| tree.put(30, "reg", &cells);
    assert_reasons(
        &gpu_tree(GIB, GIB, 5),
        |tree, environment| tree.gpu(environment),
        &[
            (
                &|tree| drop(tree.0.remove(&0)),
                None,
                "the platform names no NVLink2 bridge of the GPU (ibm,npu) (ENODEV): served as",
            ),
            (
                &|tree| tree.0.get_mut(&0).unwrap().clear(),
                None,
                "the platform names no NVLink2 bridge of the GPU (ibm,npu) (ENOENT): served as",
            ),
            (
                &|tree| tree.put(0, "ibm,npu", &[]),
                Some(Errno::EINVAL),
                "the platform's NVLink2 bridge of the GPU (ibm,npu) can't be read (EOVERFLOW); correct",
            ),
            (
                &|tree| tree.put(0, "ibm,npu", &[99]),
                None,
                "the platform names no memory of the NVLink2 bridge (memory-region) (ENODEV): ",
            ),
            (
                &|tree| drop(tree.0.get_mut(&20).unwrap().remove("memory-region")),
                None,
                "the platform names no memory of the NVLink2 bridge (memory-region) (ENOENT): ",
            ),
            (
                &|tree| tree.put(20, "memory-region", &[]),
                Some(Errno::EINVAL),
                "the platform's memory of the NVLink2 bridge (memory-region) can't be read (EOVERFLOW)",
            ),
            (
                &|tree| tree.put(20, "memory-region", &[99]),
                Some(Errno::EINVAL),
                "the platform's place of the GPU's memory (reg) can't be read (ENODEV)",
            ),
            (
                &|tree| drop(tree.0.get_mut(&30).unwrap().remove("reg")),
                Some(Errno::EINVAL),
                "the platform's place of the GPU's memory (reg) can't be read (ENOENT)",
            ),
            (
                &put_reg(vec![0, 0, 1]),
                Some(Errno::EINVAL),
                "the platform's place of the GPU's memory (reg) can't be read (EOVERFLOW)",
            ),
            (
                &put_reg([reg(GIB, GIB), reg(0, GIB)].concat()),
                Some(Errno::EINVAL),
                "the platform's place of the GPU's memory (reg) can't be read (EOVERFLOW)",
            ),
            (
                &|tree| drop(tree.0.get_mut(&20).unwrap().remove("ibm,device-tgt-addr")),
                Some(Errno::EFAULT),
                "the platform's target address of the NVLink2 bridge (ibm,device-tgt-addr) can't be read (ENOENT)",
            ),
            (
                &|tree| tree.put(20, "ibm,device-tgt-addr", &[1]),
                Some(Errno::EFAULT),
                "the platform's target address of the NVLink2 bridge (ibm,device-tgt-addr) can't be read (EOVERFLOW)",
            ),
            (
                &put_reg(reg(GIB, 0)),
                Some(Errno::EINVAL),
                "size of the GPU's memory (reg), a fact of the platform, is 0 bytes, no multiple of the page size 64 KiB; correct",
            ),
            (
                &put_reg(reg(GIB, GIB + 1)),
                Some(Errno::EINVAL),
                "size of the GPU's memory (reg), a fact of the platform, is 1 GiB + 1 byte, no",
            ),
            (
                &put_reg(reg(GIB + 4096, GIB)),
                Some(Errno::EINVAL),
                "memory base 0x40001000 is not a multiple of the page size 64 KiB",
            ),
            (
                &put_reg(reg(u64::MAX - PAGE + 1, PAGE)),
                Some(Errno::EOVERFLOW),
                "memory of 64 KiB at 0xffffffffffff0000 ends beyond 64 bits",
            ),
            (
                &put_reg(reg(0, (1 << 40) + PAGE)),
                Some(Errno::EOVERFLOW),
                "memory of 1 TiB + 64 KiB needs a BAR above 1 TiB, which VFIO can't address",
            ),
        ],
    );
}

#[test]
fn each_fact_of_a_bridge_that_is_missing_of_wrong_size_or_leads_nowhere_has_its_reason() {
    let remove = |node: u32, property: &'static str| {
        move |tree: &mut Tree| drop(tree.0.get_mut(&node).unwrap().remove(property))
    };
    let no_link = |errno: &str| {
        format!(
            "the platform names no link of the NVLink2 bridge (ibm,nvlink, ibm,npu-link-index) ({errno}): "
        )
    };
    let texts: Vec<String> = ["ENOENT", "ENODEV"].map(no_link).into();
    let speed = "the platform's speed of the NVLink2 bridge (ibm,nvlink-speed) can't be read (";
    let target = "the platform's target address of the NVLink2 bridge (ibm,device-tgt-addr) can't";
    let gpu = "the platform names no GPU of the NVLink2 bridge (ibm,gpu) (";
    assert_reasons(
        &bridge_tree(3, &[PAGE, PAGE, PAGE, PAGE], 5, 9),
        |tree, environment| tree.bridge(environment),
        &[
            (&remove(0, "ibm,gpu"), None, gpu),
            (&|tree| tree.put(0, "ibm,gpu", &[99]), None, gpu),
            (
                &|tree| tree.put(0, "ibm,gpu", &[]),
                Some(Errno::EINVAL),
                "the platform's GPU of the NVLink2 bridge (ibm,gpu) can't be read (EOVERFLOW)",
            ),
            (
                &remove(0, "memory-region"),
                None,
                "the platform names no memory of the NVLink2 bridge (memory-region) (ENOENT): ",
            ),
            (
                &|tree| tree.put(0, "memory-region", &[]),
                Some(Errno::EINVAL),
                "the platform's memory of the NVLink2 bridge (memory-region) can't be read (EOVERFLOW)",
            ),
            (&remove(0, "ibm,nvlink"), None, &texts[0]),
            (&|tree| tree.put(0, "ibm,nvlink", &[99]), None, &texts[1]),
            (&remove(40, "ibm,npu-link-index"), None, &texts[0]),
            (
                &|tree| tree.put(40, "ibm,npu-link-index", &[]),
                Some(Errno::EINVAL),
                "the platform's link of the NVLink2 bridge (ibm,nvlink, ibm,npu-link-index) can't be",
            ),
            (
                &remove(0, "ibm,device-tgt-addr"),
                Some(Errno::EFAULT),
                target,
            ),
            (
                &|tree| tree.put(0, "ibm,device-tgt-addr", &[1, 2, 3]),
                Some(Errno::EFAULT),
                target,
            ),
            (&remove(0, "ibm,nvlink-speed"), Some(Errno::EFAULT), speed),
            (
                &|tree| tree.put(0, "ibm,nvlink-speed", &[]),
                Some(Errno::EFAULT),
                speed,
            ),
            (
                &|tree| tree.put(1, "ibm,mmio-atsd", &[0, 0, 0]),
                Some(Errno::EINVAL),
                "the platform's addresses of the ATSD registers (ibm,mmio-atsd) can't be read (EOVERFLOW)",
            ),
            (
                &|tree| tree.put(1, "ibm,mmio-atsd", &[]),
                Some(Errno::EINVAL),
                "the platform's addresses of the ATSD registers (ibm,mmio-atsd) can't be read (EOVERFLOW)",
            ),
            (
                &|tree| tree.put(1, "ibm,mmio-atsd", &[0, 0, 0, 0, 0, 0, 0, 0x1000]),
                Some(Errno::EINVAL),
                "memory base 0x1000 is not a multiple of the page size 64 KiB",
            ),
            (
                &|tree| {
                    tree.put(
                        1,
                        "ibm,mmio-atsd",
                        &[0, 0, 0, 0, 0, 0, u32::MAX, 0xffff_0000],
                    )
                },
                Some(Errno::EOVERFLOW),
                "memory of 64 KiB at 0xffffffffffff0000 ends beyond 64 bits",
            ),
        ],
    );
}

#[test]
fn configuration_space_and_events_are_the_bases() {
    let gpu = gpu_tree(0, PAGE, 0).gpu(ENVIRONMENT);
    for (offset, len) in [(0, 1), (0x10, 0x30), (0xffc, 4)] {
        for direction in [Direction::Read, Direction::Write] {
            let segment = gpu.config_segment(direction, offset, len);
            assert_eq!((segment.len, segment.owner), (len, ConfigOwner::Base));
        }
    }
    let mut bytes = [7; 64];
    gpu.config_load(0, &mut bytes);
    gpu.config_store(0, &[1; 64]);
    assert_eq!(bytes, [7; 64]);
    let region_before = region(&gpu);
    for event in [Event::Opened, Event::ResetRequested, Event::ResetDone] {
        gpu.event(event);
        assert_eq!(region(&gpu), region_before);
    }
    for bar in (0..6).filter_map(BarIndex::new) {
        assert!(!gpu.needs_bar(bar));
    }
    assert_eq!(Bytes(region_before.length()), Bytes(PAGE));
}
