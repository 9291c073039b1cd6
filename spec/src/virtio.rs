//! Virtio over PCI: ids, the legacy and the modern register layouts, administration commands.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.3, sections 2.12, 4.1 and 5.1; the names are those of
//! Linux 7.2 `include/uapi/linux/virtio_pci.h`, `virtio_net.h` and `virtio_config.h`.

/// The PCI vendor id of virtio devices (`PCI_VENDOR_ID_REDHAT_QUMRANET`).
pub const VENDOR_ID: u16 = 0x1af4;

/// PCI device ids.
pub mod device_id {
    /// A network card that a legacy driver knows (`VIRTIO_TRANS_ID_NET`).
    pub const TRANSITIONAL_NET: u16 = 0x1000;
    /// A network card with the modern interface alone.
    pub const MODERN_NET: u16 = 0x1041;
}

/// The virtio device id of a network card (`VIRTIO_ID_NET`).
pub const ID_NET: u16 = 1;

/// The revision that a legacy driver asks for (`VIRTIO_PCI_ABI_VERSION`).
pub const ABI_VERSION: u8 = 0;

/// No MSI-X vector.
pub const NO_VECTOR: u16 = 0xffff;

/// The legacy interface's registers, in an I/O BAR0.
pub mod legacy {
    /// Features that the device has, u32.
    pub const HOST_FEATURES: u64 = 0;
    /// Features that the driver takes, u32.
    pub const GUEST_FEATURES: u64 = 4;
    /// The selected queue's address in pages of 4 KiB, u32.
    pub const QUEUE_PFN: u64 = 8;
    /// The selected queue's size, u16.
    pub const QUEUE_NUM: u64 = 12;
    /// Index of the selected queue, u16.
    pub const QUEUE_SEL: u64 = 14;
    /// Notifies a queue, u16.
    pub const QUEUE_NOTIFY: u64 = 16;
    /// Device status, u8.
    pub const STATUS: u64 = 18;
    /// Interrupt status, u8; a read clears it.
    pub const ISR: u64 = 19;
    /// Configuration vector, u16; only while MSI-X is enabled.
    pub const CONFIG_VECTOR: u64 = 20;
    /// The selected queue's vector, u16; only while MSI-X is enabled.
    pub const QUEUE_VECTOR: u64 = 22;
    /// Log2 of the unit of a queue's address, and the alignment of its used ring.
    pub const QUEUE_ADDR_SHIFT: u32 = 12;

    /// Offset of the device's own registers (`VIRTIO_PCI_CONFIG_OFF`).
    pub const fn config_off(msix: bool) -> u64 {
        if msix { 24 } else { 20 }
    }
}

/// Registers of a network card (`struct virtio_net_config`).
pub mod net {
    /// The MAC address, six bytes.
    pub const MAC: u64 = 0;
    /// Link status, u16.
    pub const STATUS: u64 = 6;
    /// Bytes up to the end of the link status.
    pub const CONFIG_LEN: u64 = 8;
    /// The link is up.
    pub const S_LINK_UP: u16 = 1;
    /// Feature: the MAC address is there.
    pub const F_MAC: u64 = 1 << 5;
    /// Feature: the link status is there.
    pub const F_STATUS: u64 = 1 << 16;
}

/// Feature: the modern interface.
pub const F_VERSION_1: u64 = 1 << 32;

/// Device status: the driver is ready.
pub const STATUS_DRIVER_OK: u8 = 4;
/// Device status: the features are agreed.
pub const STATUS_FEATURES_OK: u8 = 8;
/// Device status: the device can't go on until it is reset.
pub const STATUS_NEEDS_RESET: u8 = 64;

/// Interrupt status: a queue.
pub const ISR_QUEUE: u8 = 1;

/// Administration commands.
pub mod admin {
    /// Bitmap of the opcodes of the commands that exist.
    pub const LIST_QUERY: u16 = 0;
    /// Writes common registers of a member's legacy interface.
    pub const LEGACY_COMMON_CFG_WRITE: u16 = 2;
    /// Reads common registers of a member's legacy interface.
    pub const LEGACY_COMMON_CFG_READ: u16 = 3;
    /// Writes device registers of a member's legacy interface.
    pub const LEGACY_DEV_CFG_WRITE: u16 = 4;
    /// Reads device registers of a member's legacy interface.
    pub const LEGACY_DEV_CFG_READ: u16 = 5;
    /// Place where a member's queues are notified.
    pub const LEGACY_NOTIFY_INFO: u16 = 6;
    /// The commands of the legacy interface, as a bitmap of opcodes.
    pub const LEGACY_BITMAP: u64 = 1 << LEGACY_COMMON_CFG_WRITE
        | 1 << LEGACY_COMMON_CFG_READ
        | 1 << LEGACY_DEV_CFG_WRITE
        | 1 << LEGACY_DEV_CFG_READ
        | 1 << LEGACY_NOTIFY_INFO;
    /// Bytes before the registers in the data of a legacy write: the offset and a reserve.
    pub const LEGACY_WRITE_HEADER: u8 = 8;
    /// Bytes in the data of a legacy read: the offset.
    pub const LEGACY_READ_HEADER: u8 = 1;
    /// Entries in the result of [`LEGACY_NOTIFY_INFO`].
    pub const MAX_NOTIFY_INFO: u16 = 4;
    /// Bytes in each: flags, BAR, a reserve of 6, and the offset as u64.
    pub const NOTIFY_INFO_LEN: u16 = 16;
    /// Flags: no entry here or beyond.
    pub const NOTIFY_INFO_END: u8 = 0;
    /// Flags: the place is in a BAR of the member itself
    /// (`VIRTIO_ADMIN_CMD_NOTIFY_INFO_FLAGS_OWNER_MEM`).
    pub const NOTIFY_INFO_MEMBER: u8 = 2;
}

/// The vendor-specific capabilities that say where the modern interface is.
pub mod cap {
    /// Type of the structure, u8.
    pub const CFG_TYPE: u16 = 3;
    /// BAR that the structure is in, u8.
    pub const BAR: u16 = 4;
    /// Offset in the BAR, u32.
    pub const OFFSET: u16 = 8;
    /// Bytes, u32.
    pub const LENGTH: u16 = 12;
    /// By how much queues' notification places are apart, u32; in the notification capability.
    pub const NOTIFY_MULTIPLIER: u16 = 16;
    /// Type: common registers.
    pub const COMMON_CFG: u8 = 1;
    /// Type: notification.
    pub const NOTIFY_CFG: u8 = 2;
    /// Type: interrupt status.
    pub const ISR_CFG: u8 = 3;
    /// Type: the device's own registers.
    pub const DEVICE_CFG: u8 = 4;
}

/// The modern interface's common registers.
pub mod common {
    /// Selector of the 32 feature bits of the device that are shown, u32.
    pub const DFSELECT: u64 = 0;
    /// Features that the device has, u32.
    pub const DF: u64 = 4;
    /// Selector of the 32 feature bits of the driver that are shown, u32.
    pub const GFSELECT: u64 = 8;
    /// Features that the driver takes, u32.
    pub const GF: u64 = 12;
    /// Configuration vector, u16.
    pub const MSIX: u64 = 16;
    /// Number of queues, u16.
    pub const NUMQ: u64 = 18;
    /// Device status, u8.
    pub const STATUS: u64 = 20;
    /// Index of the selected queue, u16.
    pub const Q_SELECT: u64 = 22;
    /// The selected queue's size, u16.
    pub const Q_SIZE: u64 = 24;
    /// The selected queue's vector, u16.
    pub const Q_MSIX: u64 = 26;
    /// The selected queue is enabled, u16.
    pub const Q_ENABLE: u64 = 28;
    /// Offset at which the selected queue is notified, in multipliers, u16.
    pub const Q_NOFF: u64 = 30;
    /// The selected queue's descriptors, u64.
    pub const Q_DESC: u64 = 32;
    /// The selected queue's available ring, u64.
    pub const Q_AVAIL: u64 = 40;
    /// The selected queue's used ring, u64.
    pub const Q_USED: u64 = 48;
    /// Bytes.
    pub const LEN: u64 = 56;
}
