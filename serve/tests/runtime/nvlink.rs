//! A GPU and a bridge of NVLink2: from the facts of a platform to a client.

use std::sync::Arc;

use varia_facts::{Number, PlatformFacts};
use varia_serve::{Backend, Endpoint, Error, Options};
use varia_silicon::{Silicon, profile};
use varia_spec::Errno;
use varia_spec::vfio::{RegionCapability, RegionIndex, RegionType, region_flags};

use varia_sys::mapping::{Access, page_size};

use crate::machine::{Attached, READ_WRITE};

const REGION: u32 = 9;
const GIB: u64 = 1 << 30;

fn facts(name: &str) -> PlatformFacts {
    profile::find(name).unwrap().platform.clone().unwrap()
}

fn served(name: &str, platform: PlatformFacts) -> Result<Arc<Endpoint>, Error> {
    let options = varia_silicon::Options {
        platform: Some(platform),
        ..Default::default()
    };
    let silicon = Silicon::new(profile::find(name).unwrap(), options).unwrap();
    Endpoint::new(Arc::new(silicon), Options::default()).map(Arc::new)
}

fn attach(endpoint: Arc<Endpoint>) -> Attached {
    crate::machine::attach(&Arc::new(Backend::new(endpoint)))
}

fn client(name: &str) -> Attached {
    attach(served(name, facts(name)).unwrap())
}

/// Sets the cells of a property of the node that has a property.
fn put(facts: &mut PlatformFacts, of: &str, property: &str, cells: Option<&[u64]>) {
    let tree = facts.device_tree.as_mut().unwrap();
    for node in tree.nodes.values_mut() {
        if node.properties.contains_key(of) {
            match cells {
                Some(cells) => {
                    let cells = cells.iter().copied().map(Number).collect();
                    node.properties.insert(property.to_owned(), cells);
                }
                None => drop(node.properties.remove(property)),
            }
        }
    }
}

#[test]
fn a_gpu_and_its_bridge_are_found_by_one_target_address_and_mapped() {
    let mut gpu = client("v100-nvlink");
    let mut bridge = client("v100-bridge");
    for client in [&mut gpu, &mut bridge] {
        assert_eq!(client.device_info().unwrap().num_regions, 10);
    }
    let memory = gpu.region_info(REGION).unwrap();
    let atsd = bridge.region_info(REGION).unwrap();
    let flags = READ_WRITE | region_flags::MMAP | region_flags::CAPS;
    for (region, size, kind) in [
        (&memory, 128 * GIB, 0x8000_10de),
        (&atsd, page_size() as u64, 0x8000_1014),
    ] {
        assert_eq!((region.info.flags, region.info.size), (flags, size));
        let region_type = RegionType { kind, subtype: 1 };
        assert_eq!(region.info.region_type, Some(region_type));
        assert!(region.file.is_some());
    }
    let target = memory.info.capabilities[0];
    assert!(matches!(target, Some(RegionCapability::TargetAddress(_))));
    assert_eq!(memory.info.capabilities[1], None);
    let speed = Some(RegionCapability::LinkSpeed(9));
    assert_eq!(atsd.info.capabilities, [target, speed]);

    // a message and a mapping reach the same bytes, at the end of the window too
    for (client, region, at) in [
        (&mut gpu, &memory, 128 * GIB - 8),
        (&mut bridge, &atsd, 0x234),
    ] {
        assert_eq!(client.region_write(REGION, at, b"written!").unwrap(), 8);
        let page = at & !0xfff;
        let mapping = region.map(page, 0x1000, Access::ReadOnly).unwrap();
        let mut bytes = [0; 8];
        mapping.read((at - page) as usize, &mut bytes).unwrap();
        assert_eq!(&bytes, b"written!");
    }
    let beyond = gpu.region_read(REGION, 128 * GIB, &mut [0; 4]).unwrap_err();
    assert_eq!(beyond.errno(), Some(Errno::EINVAL));
    let clipped = gpu.region_read(REGION, 128 * GIB - 2, &mut [0; 4]);
    assert_eq!(clipped.unwrap(), 2);
}

#[test]
fn each_client_gets_the_gpus_memory_to_map_once_and_the_register_as_often_as_it_asks() {
    let gpu = served("v100-nvlink", facts("v100-nvlink")).unwrap();
    let backend = Arc::new(Backend::new(gpu));
    for _ in 0..2 {
        let mut client = crate::machine::attach(&backend);
        assert!(client.region_info(REGION).unwrap().file.is_some());
        let again = client.region_info(REGION).unwrap();
        assert!(again.file.is_none());
        assert_eq!(again.info.flags, READ_WRITE | region_flags::CAPS);
        assert_eq!(again.info.size, 128 * GIB);
        // it can be read all the same
        assert_eq!(client.region_read(REGION, 0, &mut [0; 4]).unwrap(), 4);
    }
    let mut bridge = client("v100-bridge");
    for _ in 0..3 {
        assert!(bridge.region_info(REGION).unwrap().file.is_some());
    }
}

#[test]
fn a_bridge_without_a_register_has_an_empty_region_with_the_facts_of_its_link() {
    let mut facts = facts("v100-bridge");
    put(&mut facts, "ibm,mmio-atsd", "ibm,mmio-atsd", None);
    let mut client = attach(served("v100-bridge", facts).unwrap());
    let region = client.region_info(REGION).unwrap();
    assert_eq!((region.info.size, region.info.areas.len()), (0, 0));
    assert_eq!(region.info.flags, READ_WRITE | region_flags::CAPS);
    assert!(region.file.is_none());
    assert_eq!(
        region.info.capabilities[1],
        Some(RegionCapability::LinkSpeed(9))
    );
    let read = client.region_read(REGION, 0, &mut [0; 4]).unwrap_err();
    assert_eq!(read.errno(), Some(Errno::EINVAL));
    let write = client.region_write(REGION, 0, &[0; 4]).unwrap_err();
    assert_eq!(write.errno(), Some(Errno::EINVAL));
}

/// The first register serves each link that has none of its own.
#[test]
fn a_link_without_a_register_of_its_own_shares_the_first_one() {
    for link in [2, 3, 8, 0xffff_ffff] {
        let mut facts = facts("v100-bridge");
        put(
            &mut facts,
            "ibm,npu-link-index",
            "ibm,npu-link-index",
            Some(&[link]),
        );
        put(
            &mut facts,
            "ibm,mmio-atsd",
            "ibm,mmio-atsd",
            Some(&[0x60200, 0x1000_0000]),
        );
        let mut client = attach(served("v100-bridge", facts).unwrap());
        let region = client.region_info(REGION).unwrap();
        assert_eq!(region.info.size, page_size() as u64, "{link}");
        assert!(region.file.is_some(), "{link}");
    }
}

/// A platform's facts, and the begin of the reason; an errno if the device is refused.
#[test]
fn without_links_the_core_serves_the_device_alone_and_with_wrong_ones_nobody_does() {
    let changed = |name: &str, of: &str, property: &str, cells: Option<&[u64]>| {
        let mut facts = facts(name);
        put(&mut facts, of, property, cells);
        served(name, facts)
    };
    for (served, errno, says) in [
        (
            served("v100-nvlink", PlatformFacts::new()),
            None,
            "the platform names no NVLink2 bridge of the GPU (ibm,npu) (ENODEV): served as a plain",
        ),
        (
            changed("v100-nvlink", "ibm,npu", "ibm,npu", None),
            None,
            "the platform names no NVLink2 bridge of the GPU (ibm,npu) (ENOENT): ",
        ),
        (
            changed("v100-nvlink", "ibm,npu", "ibm,npu", Some(&[0x999])),
            None,
            "the platform names no memory of the NVLink2 bridge (memory-region) (ENODEV): ",
        ),
        (
            changed("v100-nvlink", "reg", "reg", Some(&[0, 1, 2])),
            Some(Errno::EINVAL),
            "the nvlink2-gpu variant refuses the device: the platform's place of the GPU's memory \
             (reg) can't be read (EOVERFLOW)",
        ),
        (
            changed("v100-nvlink", "reg", "reg", Some(&[4, 0, 0, 0x1001])),
            Some(Errno::EINVAL),
            "the nvlink2-gpu variant refuses the device: size of the GPU's memory (reg), a fact of",
        ),
        (
            changed("v100-bridge", "ibm,nvlink", "ibm,nvlink", Some(&[0x999])),
            None,
            "the platform names no link of the NVLink2 bridge (ibm,nvlink, ibm,npu-link-index)",
        ),
        (
            changed("v100-bridge", "memory-region", "memory-region", None),
            None,
            "the platform names no memory of the NVLink2 bridge (memory-region) (ENOENT): ",
        ),
        (
            changed(
                "v100-bridge",
                "ibm,mmio-atsd",
                "ibm,mmio-atsd",
                Some(&[0x60201]),
            ),
            Some(Errno::EINVAL),
            "the nvlink2-bridge variant refuses the device: the platform's addresses of the ATSD \
             registers (ibm,mmio-atsd) can't be read (EOVERFLOW); correct",
        ),
        (
            changed(
                "v100-bridge",
                "ibm,npu-link-index",
                "ibm,npu-link-index",
                Some(&[]),
            ),
            Some(Errno::EINVAL),
            "the nvlink2-bridge variant refuses the device: the platform's link of the NVLink2",
        ),
        (
            changed("v100-bridge", "ibm,nvlink-speed", "ibm,nvlink-speed", None),
            Some(Errno::EFAULT),
            "the nvlink2-bridge variant refuses the device: the platform's speed of the NVLink2",
        ),
    ] {
        match (served, errno) {
            (Ok(endpoint), None) => {
                let reason = endpoint.declined().unwrap().to_string();
                assert!(reason.starts_with(says), "{reason}");
                assert_eq!(endpoint.info().num_regions, 9);
                assert!(endpoint.region_info(RegionIndex(9)).is_err());
                let bar = endpoint.region_info(RegionIndex(0)).unwrap();
                assert!(bar.info.size > 0, "the physical BARs are there");
            }
            (Err(error), Some(errno)) => {
                assert_eq!(error.errno(), errno, "{error}");
                assert!(error.to_string().starts_with(says), "{error}");
            }
            (served, _) => panic!("{says}: {served:?}"),
        }
    }
}

/// Facts that lead out of the platform's memory: the region is there, and its bytes are not.
#[test]
fn memory_that_the_platform_does_not_have_can_t_be_read_or_mapped() {
    let mut facts = facts("v100-nvlink");
    facts.memory.clear();
    let mut client = attach(served("v100-nvlink", facts).unwrap());
    let region = client.region_info(REGION).unwrap();
    assert!(region.file.is_none());
    assert_eq!(region.info.flags, READ_WRITE | region_flags::CAPS);
    let read = client.region_read(REGION, 0, &mut [0; 4]).unwrap_err();
    assert_eq!(read.errno(), Some(Errno::EFAULT));
}
