//! A Tesla V100 on POWER9 and a bridge of its NVLinks, with the device tree of a made-up machine: a
//! GPU with three links, of which the bridge is the first.
//!
//! What the GPU computes, and the drop of address translations by the bridge's register, are not
//! modelled: registers and memory keep what is written.

use varia_core::{BarSpace, BarSpec};
use varia_facts::{DeviceTree, Number, PlatformFacts, PlatformMemory, TreeNode};
use varia_spec::{
    nvidia,
    nvlink2::{self, property},
};

use super::gh100::at;
use super::{BarModel, Body, Content, Fact, Profile};

const SERIES: &str = "the ids of the series \"Introduce vfio-pci-core subsystem\" of 2021";
const MADE_UP: &str = "made up: no listing was looked at";

/// Address of the GPU's memory in the processor's address space.
const MEMORY: u64 = 0x4_0000_0000;
/// Bytes of the links' window, which the tree gives as the GPU's memory. A V100 has 16 GiB or 32 GiB;
/// here each byte of the window keeps what is written.
const WINDOW: u64 = 128 << 30;
/// Address of the first ATSD register, on a page of 64 KiB.
const ATSD: u64 = 0x6_0200_1000_0000;
/// Target address of the GPU's links.
const TARGET: u64 = 0x3_ffff_0000_0000;
/// Speed of the links in the encoding of firmware: 25 Gbit/s.
const SPEED: u64 = 9;

/// Numbers of the nodes.
const GPU: u64 = 0x100;
const BRIDGES: [u64; 3] = [0x200, 0x201, 0x202];
const LINKS: [u64; 3] = [0x300, 0x301, 0x302];
const GPU_MEMORY: u64 = 0x400;
const HOST_BRIDGE: &str = "/pciex@6230200000000";
const GPU_NODE: &str = "/pciex@600c3c0100000/pci@0/pci@0/gpu@0";

pub(super) fn v100() -> Profile {
    Profile {
        name: "v100-nvlink",
        alias: None,
        title: "NVIDIA Tesla V100 SXM2 on POWER9",
        vendor_id: Fact::sourced(nvidia::VENDOR_ID, SERIES),
        device_id: Fact::sourced(nvlink2::GPU_IDS[0].1, SERIES),
        revision: Fact::assumed(0xa1, MADE_UP),
        class: Fact::assumed(0x03_02_00, MADE_UP),
        subsystem_vendor_id: Fact::assumed(nvidia::VENDOR_ID, MADE_UP),
        subsystem_id: Fact::assumed(0x1212, MADE_UP),
        bars: [
            bar(0, 16 << 20, BarSpace::Memory32, Content::Registers),
            bar(1, 16 << 30, BarSpace::Memory64, Content::Memory),
            bar(3, 32 << 20, BarSpace::Memory64, Content::Memory),
        ]
        .map(|bar| Fact::assumed(bar, MADE_UP))
        .into(),
        platform: Some(platform(GPU_NODE, memory(MEMORY, WINDOW))),
        ..function()
    }
}

pub(super) fn bridge() -> Profile {
    Profile {
        name: "v100-bridge",
        alias: None,
        title: "NVLink2 bridge of POWER9",
        vendor_id: Fact::sourced(nvlink2::IBM, "the list of vendors of the PCI SIG"),
        device_id: Fact::assumed(nvlink2::BRIDGE_IDS[0].1, "no source was checked"),
        revision: Fact::assumed(1, MADE_UP),
        class: Fact::assumed(0x06_80_00, MADE_UP),
        subsystem_vendor_id: Fact::assumed(nvlink2::IBM, MADE_UP),
        subsystem_id: Fact::assumed(0, MADE_UP),
        bars: vec![Fact::assumed(
            bar(0, 128 << 10, BarSpace::Memory64, Content::Registers),
            MADE_UP,
        )],
        platform: Some(platform(&bridge_node(0), memory(ATSD, 64 << 10))),
        ..function()
    }
}

/// Fields that both have in common.
fn function() -> Profile {
    let power = Body::Power {
        light_sleep: false,
        soft_reset: false,
    };
    let express = Body::Express {
        speed: 3,
        lanes: 16,
        reset: true,
    };
    let message = Body::Message {
        vectors: 1,
        maskable: false,
    };
    let capabilities = [at(0x60, power), at(0x68, message), at(0x78, express)];
    Profile {
        name: "",
        alias: None,
        title: "",
        chip: None,
        vendor_id: Fact::assumed(0, MADE_UP),
        device_id: Fact::assumed(0, MADE_UP),
        revision: Fact::assumed(0, MADE_UP),
        class: Fact::assumed(0, MADE_UP),
        subsystem_vendor_id: Fact::assumed(0, MADE_UP),
        subsystem_id: Fact::assumed(0, MADE_UP),
        interrupt_pin: Fact::assumed(1, MADE_UP),
        bars: Vec::new(),
        rom: None,
        capabilities: capabilities
            .map(|capability| Fact::assumed(capability, MADE_UP))
            .into(),
        coherent: None,
        platform: None,
    }
}

fn bar(index: u8, size: u64, space: BarSpace, content: Content) -> BarModel {
    BarModel {
        index,
        spec: BarSpec {
            size,
            space,
            prefetchable: content == Content::Memory,
        },
        content,
    }
}

fn memory(base: u64, size: u64) -> PlatformMemory {
    PlatformMemory {
        base: Number(base),
        size: Number(size),
        bytes: Default::default(),
    }
}

fn bridge_node(link: usize) -> String {
    format!("{HOST_BRIDGE}/pci@{link}")
}

/// The tree, as it looks to the function of this node.
fn platform(function: &str, memory: PlatformMemory) -> PlatformFacts {
    let mut nodes = vec![
        node(
            GPU_NODE,
            &[(property::PHANDLE, &[GPU]), (property::NPU, &BRIDGES)],
        ),
        node(
            "/memory@400000000",
            &[
                (property::PHANDLE, &[GPU_MEMORY]),
                (property::REG, &[cells(MEMORY), cells(WINDOW)].concat()),
            ],
        ),
        node(
            HOST_BRIDGE,
            &[(
                property::ATSD,
                &(0..3)
                    .flat_map(|i| cells(ATSD + (i << 16)))
                    .collect::<Vec<_>>(),
            )],
        ),
    ];
    for (link, (bridge, number)) in BRIDGES.into_iter().zip(LINKS).enumerate() {
        nodes.push(node(
            &bridge_node(link),
            &[
                (property::PHANDLE, &[bridge]),
                (property::GPU, &[GPU]),
                (property::NVLINK, &[number]),
                (property::MEMORY, &[GPU_MEMORY]),
                (property::TARGET, &cells(TARGET)),
                (property::SPEED, &[SPEED]),
            ],
        ));
        nodes.push(node(
            &format!("/npu/link@{link}"),
            &[
                (property::PHANDLE, &[number]),
                (property::LINK_INDEX, &[link as u64]),
            ],
        ));
    }
    PlatformFacts {
        device_tree: Some(DeviceTree {
            function: function.to_owned(),
            host_bridge: Some(HOST_BRIDGE.to_owned()),
            nodes: nodes.into_iter().collect(),
        }),
        memory: vec![memory],
        ..PlatformFacts::new()
    }
}

fn node(name: &str, properties: &[(&str, &[u64])]) -> (String, TreeNode) {
    let properties = properties.iter().map(|(name, cells)| {
        let cells = cells.iter().copied().map(Number).collect();
        ((*name).to_owned(), cells)
    });
    let properties = properties.collect();
    (name.to_owned(), TreeNode { properties })
}

/// An integer of 64 bits as cells.
fn cells(value: u64) -> Vec<u64> {
    vec![value >> 32, value & 0xffff_ffff]
}
