//! GH200 120GB: Grace and a Hopper GPU with 96 GiB of coherent memory, with the MIG bug.

use varia_core::{BarSpace, BarSpec, HostPhys};
use varia_spec::nvidia::device_id;

use super::{Bar, Body, Capability, Content, Fact, Profile};

/// `lspci` of an H100 PCIe on bare metal, NVIDIA/nvtrust issue 51.
pub(super) const H100: &str = "bare-metal lspci of an H100, github.com/NVIDIA/nvtrust issue 51";
/// `lspci` of an H20 in a VM behind vfio-pci, NVIDIA/nvtrust issue 128.
pub(super) const H20: &str = "lspci of an H20 in a VM, github.com/NVIDIA/nvtrust issue 128";
/// The driver.
pub(super) const DRIVER: &str = "Linux 7.2 drivers/vfio/pci/nvgrace-gpu/main.c";

pub(super) static PROFILE: Profile = Profile {
    name: "gh200",
    title: "NVIDIA GH200 120GB",
    device_id: Fact::sourced(device_id::GH200_120GB, DRIVER),
    revision: Fact::sourced(0xa1, H100),
    class: Fact::sourced(0x03_02_00, H100),
    subsystem_id: Fact::assumed(0x1809, "no public listing of a GH200 shows it"),
    interrupt_pin: Fact::sourced(1, H100),
    bars: &[
        Fact::sourced(bar(0, 16 << 20, Content::Registers), H100),
        Fact::sourced(bar(2, 128 << 30, Content::Memory), H100),
        Fact::sourced(bar(4, 32 << 20, Content::Memory), H100),
    ],
    capabilities: &CAPABILITIES,
    memory: Fact::assumed(
        96 << 30,
        "sold as 96 GB; how many bytes firmware says is not public",
    ),
    memory_base: Fact::assumed(HostPhys(0x4200_0000_0000), BASE),
    pxm_start: Fact::sourced(16, PXM),
    pxm_count: Fact::sourced(8, PXM),
};

pub(super) const BASE: &str = "an address that Grace firmware could choose: above RAM, in 48 bits";
pub(super) const PXM: &str = "NVIDIA's edk2 for Grace: 16 + 8 * socket, eight each";

/// The GH100 die's capabilities; what vfio-pci keeps from a VM is assumed.
static CAPABILITIES: [Fact<Capability>; 12] = [
    Fact::sourced(at(0x40, Body::Power), H100),
    Fact::sourced(at(0x48, Body::Message { vectors: 16 }), H100),
    Fact::sourced(
        at(
            0x60,
            Body::Express {
                speed: 5,
                lanes: 16,
            },
        ),
        H100,
    ),
    Fact::sourced(at(0x9c, Body::Vendor { len: 0x14 }), H20),
    Fact::sourced(
        at(0xb0, MESSAGE_X),
        "count: the H20 listing; offsets: older NVIDIA GPUs",
    ),
    Fact::assumed(at(0x100, Body::SecondaryExpress { lanes: 16 }), HIDDEN),
    Fact::sourced(at(0x12c, Body::Latency), H20),
    Fact::sourced(at(0x134, Body::ResizableBar { bar: 2 }), H20),
    Fact::sourced(at(0x1b8, Body::Errors), H20),
    Fact::sourced(
        at(
            0x2a4,
            Body::ExtVendor {
                id: 1,
                revision: 1,
                len: 0x14,
            },
        ),
        H20,
    ),
    Fact::sourced(at(0x2b8, Body::PowerBudget), H20),
    Fact::sourced(at(0x2f0, Body::Serial(0x48b0_2d00_0000_0200)), H20),
];

pub(super) const HIDDEN: &str = "a VM sees an empty capability of vfio-pci's here; with 16 lanes this one ends where 0x12c begins";

pub(super) const MESSAGE_X: Body = Body::MessageX {
    vectors: 9,
    table: 0xb9_0000,
    pending: 0xba_0000,
};

pub(super) const fn at(offset: u16, body: Body) -> Capability {
    Capability { offset, body }
}

pub(super) const fn bar(index: u8, size: u64, content: Content) -> Bar {
    let spec = BarSpec {
        size,
        space: BarSpace::Memory64,
        prefetchable: true,
    };
    Bar {
        index,
        spec,
        content,
    }
}
