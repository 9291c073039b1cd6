//! Users of a device: processes that have the device open, file systems, interfaces that are up.

use std::fmt;
use std::io;

use varia_facts::{Bdf, Facts, GroupId, PciFunction};

use crate::inventory::functions_folder;
use crate::tree::Tree;

/// Depth of the search for device nodes below a function's directory: a partition of a drive is at
/// `nvme/nvme0/nvme0n1/nvme0n1p1`.
const DEPTH: usize = 6;

/// A user of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// A process has the device open.
    Process {
        /// Number of the process.
        pid: u32,
        /// Name of the process.
        name: String,
        /// The open file.
        file: String,
    },
    /// A file system on the device is mounted.
    Mount {
        /// The device node.
        node: String,
        /// Mount point.
        place: String,
    },
    /// Swap space on the device is in use.
    Swap {
        /// The device node.
        node: String,
    },
    /// A network interface of the device is up.
    Interface {
        /// Name of the interface.
        name: String,
    },
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name, file } => {
                write!(f, "process {pid} ({name}), which has {file} open")
            }
            Self::Mount { node, place } => write!(f, "the file system of {node} on {place}"),
            Self::Swap { node } => write!(f, "swap space on {node}"),
            Self::Interface { name } => write!(f, "the network interface {name}, which is up"),
        }
    }
}

impl User {
    /// Remedy that ends the use.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Process { .. } => "end the process first",
            Self::Mount { .. } => "unmount the file system first",
            Self::Swap { .. } => "remove the swap space with swapoff first",
            Self::Interface { .. } => "take the interface down first (ip link set dev NAME down)",
        }
    }
}

/// Notes the users of these functions, and of the other functions of their IOMMU groups. The users
/// of a captured host are not known.
pub fn note(tree: &Tree, facts: &mut Facts, devices: &[Bdf]) {
    if !tree.is_live() {
        return;
    }
    let is_asked = |function: &PciFunction| devices.contains(&function.bdf);
    let asked = facts.functions.iter().filter(|one| is_asked(one));
    let groups: Vec<_> = asked.filter_map(|one| one.iommu_group).collect();
    for function in &mut facts.functions {
        let shares = function.iommu_group.is_some_and(|id| groups.contains(&id));
        if shares || is_asked(function) {
            let users = users(tree, function.bdf, function.iommu_group);
            function.open = Some(!users.is_empty());
            function.user = users.first().map(ToString::to_string);
        }
    }
}

/// All users of a device. Only root sees the open files of other users' processes.
#[must_use]
pub fn users(tree: &Tree, bdf: Bdf, group: Option<GroupId>) -> Vec<User> {
    let folder = functions_folder(bdf);
    let mut nodes = Vec::new();
    let mut found = Vec::new();
    if let Some(group) = group {
        nodes.push(format!("/dev/vfio/{group}"));
    }
    for name in tree.list(&format!("{folder}/vfio-dev")).unwrap_or_default() {
        nodes.push(format!("/dev/vfio/devices/{name}"));
    }
    if let Some(node) = nvidia_node(tree, bdf) {
        nodes.push(node);
    }
    device_nodes(tree, &folder, DEPTH, &mut nodes);
    holders(tree, &mut nodes);
    for name in tree.list(&format!("{folder}/net")).unwrap_or_default() {
        let flags = tree.text(&format!("{folder}/net/{name}/flags"));
        let flags = flags.and_then(|flags| {
            let digits = flags.strip_prefix("0x")?.to_owned();
            u32::from_str_radix(&digits, 16).ok()
        });
        // IFF_UP
        if flags.is_some_and(|flags| flags & 1 != 0) {
            found.push(User::Interface { name });
        }
    }
    let mounts = tree.text("proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(node), Some(place)) = (words.next(), words.next()) else {
            continue;
        };
        if nodes.iter().any(|own| own == node) {
            found.push(User::Mount {
                node: node.to_owned(),
                place: place.to_owned(),
            });
        }
    }
    let swaps = tree.text("proc/swaps").unwrap_or_default();
    for line in swaps.lines() {
        if let Some(node) = nodes
            .iter()
            .find(|node| line.split(' ').next() == Some(node))
        {
            found.push(User::Swap { node: node.clone() });
        }
    }
    let resource = tree.link(&folder).ok().and_then(|target| {
        let (_, place) = target.split_once("devices/")?;
        Some(format!("/sys/devices/{place}/resource"))
    });
    processes(tree, &nodes, resource.as_deref(), &mut found);
    found
}

/// Process whose open files this process may not see, as a sentence with the remedy: with such a
/// process, a device without users may have one.
#[must_use]
pub fn unseen(tree: &Tree) -> Option<String> {
    let processes = tree.list("proc").unwrap_or_default();
    let mut pids = processes.iter().filter_map(|name| name.parse().ok());
    pids.find_map(|pid| hidden(pid, |folder| tree.list(folder)))
}

/// Sentence about a process if its open files may not be listed. A process that has ended has none.
fn hidden(pid: u32, list: impl Fn(&str) -> io::Result<Vec<String>>) -> Option<String> {
    let error = list(&format!("proc/{pid}/fd")).err()?;
    // EACCES and EPERM
    (error.kind() == io::ErrorKind::PermissionDenied).then(|| {
        format!(
            "the open files of process {pid} can't be read ({error}), so it is not known which \
             devices are in use: run this command as root with CAP_SYS_PTRACE, and in a container \
             with hostPID and without an AppArmor profile"
        )
    })
}

/// Device node that NVIDIA's own driver gives a GPU.
fn nvidia_node(tree: &Tree, bdf: Bdf) -> Option<String> {
    let text = tree.text(&format!("proc/driver/nvidia/gpus/{bdf}/information"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Device Minor:"))?;
    let minor: u32 = line.trim().parse().ok()?;
    Some(format!("/dev/nvidia{minor}"))
}

/// Device nodes below a directory of sysfs: a directory with `dev` has the name in `uevent`.
fn device_nodes(tree: &Tree, folder: &str, depth: usize, nodes: &mut Vec<String>) {
    let names = tree.list(folder).unwrap_or_default();
    if names.iter().any(|name| name == "dev") {
        let uevent = tree.text(&format!("{folder}/uevent")).unwrap_or_default();
        let name = uevent
            .lines()
            .find_map(|line| line.strip_prefix("DEVNAME="));
        nodes.extend(name.map(|name| format!("/dev/{name}")));
    }
    if depth == 0 {
        return;
    }
    for name in names {
        let below = format!("{folder}/{name}");
        // links lead to other devices, or upwards
        if tree.link(&below).is_err() && tree.is_folder(&below) {
            device_nodes(tree, &below, depth - 1, nodes);
        }
    }
}

/// Adds the block devices above the given devices: logical volumes, encrypted devices, arrays, and
/// in turn the devices above these. Each device is visited once, so that a loop ends.
fn holders(tree: &Tree, nodes: &mut Vec<String>) {
    let mut next = 0;
    while let Some(node) = nodes.get(next) {
        next += 1;
        let Some(name) = node.strip_prefix("/dev/") else {
            continue;
        };
        // sysfs has no slash in a name
        let folder = format!("sys/class/block/{}/holders", name.replace('/', "!"));
        for holder in tree.list(&folder).unwrap_or_default() {
            if nodes.contains(&format!("/dev/{}", holder.replace('!', "/"))) {
                continue;
            }
            let folder = format!("sys/class/block/{holder}");
            nodes.push(format!("/dev/{}", holder.replace('!', "/")));
            // name of a device-mapper device in the mount table
            let mapped = tree.text(&format!("{folder}/dm/name"));
            nodes.extend(mapped.map(|mapped| format!("/dev/mapper/{mapped}")));
            // partitions of the holder
            let mut below = Vec::new();
            device_nodes(tree, &folder, 1, &mut below);
            below.retain(|node| !nodes.contains(node));
            nodes.extend(below);
        }
    }
}

fn processes(tree: &Tree, nodes: &[String], resource: Option<&str>, found: &mut Vec<User>) {
    for pid in tree.list("proc").unwrap_or_default() {
        let Ok(number) = pid.parse::<u32>() else {
            continue;
        };
        let folder = format!("proc/{pid}/fd");
        // the list is empty if the process has ended, or belongs to another user
        for descriptor in tree.list(&folder).unwrap_or_default() {
            let Ok(file) = tree.link(&format!("{folder}/{descriptor}")) else {
                continue;
            };
            let uses = nodes.contains(&file)
                || resource.is_some_and(|resource| file.starts_with(resource));
            if uses {
                let name = tree.text(&format!("proc/{pid}/comm")).unwrap_or_default();
                found.push(User::Process {
                    pid: number,
                    name,
                    file,
                });
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    const BDF: &str = "0000:01:00.0";

    fn file(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(root: &Path, path: &str, target: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// A function without users, beside a process that uses something else.
    fn host() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        let place = format!("devices/pci0000:00/{BDF}");
        file(path, &format!("sys/{place}/vendor"), "0x10de\n");
        link(
            path,
            &format!("sys/bus/pci/devices/{BDF}"),
            &format!("../../../{place}"),
        );
        file(path, "proc/77/comm", "qemu\n");
        link(path, "proc/77/fd/3", "/dev/vfio/8");
        link(path, "proc/77/fd/4", "socket:[1]");
        root
    }

    fn found(root: &Path) -> Vec<String> {
        let tree = Tree::open(root).unwrap();
        let users = users(&tree, BDF.parse().unwrap(), Some(GroupId(7)));
        users.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_device_without_users_has_none() {
        assert_eq!(found(host().path()), Vec::<String>::new());
    }

    #[test]
    fn open_files_that_may_not_be_read_are_unseen() {
        let denied = |code: i32| {
            hidden(77, |folder| {
                assert_eq!(folder, "proc/77/fd");
                Err(io::Error::from_raw_os_error(code))
            })
        };
        // EPERM and EACCES
        for code in [1, 13] {
            let found = denied(code).unwrap();
            assert!(found.contains("of process 77 can't be read"), "{found}");
        }
        // ENOENT and ESRCH: the process has ended
        assert_eq!([2, 3].map(denied), [None, None]);
        let root = host();
        assert_eq!(unseen(&Tree::open(root.path()).unwrap()), None);
    }

    #[test]
    fn a_process_is_named_with_its_open_file() {
        let function = format!("sys/bus/pci/devices/{BDF}");
        for (target, sysfs) in [
            ("/dev/vfio/7".to_owned(), None),
            (
                "/dev/vfio/devices/vfio3".to_owned(),
                Some("vfio-dev/vfio3/dev"),
            ),
            ("/dev/dri/card1".to_owned(), Some("drm/card1/dev")),
            (format!("/sys/devices/pci0000:00/{BDF}/resource0_wc"), None),
        ] {
            let root = host();
            let path = root.path();
            if let Some(sysfs) = sysfs {
                file(path, &format!("{function}/{sysfs}"), "226:1\n");
                let uevent = format!("{function}/{}", sysfs.replace("/dev", "/uevent"));
                file(
                    path,
                    &uevent.replace("vfio-uevent", "vfio-dev"),
                    "DEVNAME=dri/card1\n",
                );
            }
            link(path, "proc/77/fd/9", &target);
            let expected = format!("process 77 (qemu), which has {target} open");
            assert_eq!(found(path), [expected]);
        }
    }

    #[test]
    fn a_mounted_partition_and_an_interface_that_is_up_are_users() {
        let root = host();
        let path = root.path();
        let partition = format!("sys/bus/pci/devices/{BDF}/nvme/nvme0/nvme0n1/nvme0n1p2");
        file(path, &format!("{partition}/dev"), "259:2\n");
        file(path, &format!("{partition}/uevent"), "DEVNAME=nvme0n1p2\n");
        file(
            path,
            "proc/self/mounts",
            "/dev/nvme0n1p2 /srv ext4 rw 0 0\n",
        );
        file(
            path,
            &format!("sys/bus/pci/devices/{BDF}/net/eth0/flags"),
            "0x1003\n",
        );
        file(
            path,
            &format!("sys/bus/pci/devices/{BDF}/net/eth1/flags"),
            "0x1002\n",
        );
        assert_eq!(
            found(path),
            [
                "the network interface eth0, which is up",
                "the file system of /dev/nvme0n1p2 on /srv",
            ]
        );
    }

    #[test]
    fn a_drive_below_a_mounted_volume_or_swap_space_is_in_use() {
        let drive = format!("sys/bus/pci/devices/{BDF}/nvme/nvme0/nvme0n1");
        let partition = format!("{drive}/nvme0n1p2");
        for (mounts, swaps, user) in [
            (
                "/dev/mapper/vg-root / ext4 rw 0 0\n",
                "",
                "the file system of /dev/mapper/vg-root on /",
            ),
            (
                "",
                "/dev/dm-1 partition 8 0 -2\n",
                "swap space on /dev/dm-1",
            ),
            (
                "/dev/md127p1 /srv ext4 rw 0 0\n",
                "",
                "the file system of /dev/md127p1 on /srv",
            ),
            ("/dev/dm-7 / ext4 rw 0 0\n", "/dev/sda2 file 8 0 -2\n", ""),
        ] {
            let root = host();
            let path = root.path();
            let block = |name: &str, at: &str| {
                file(path, &format!("{at}/dev"), "259:2\n");
                file(path, &format!("{at}/uevent"), &format!("DEVNAME={name}\n"));
            };
            let hold = |below: &str, above: &str| {
                let at = format!("sys/class/block/{below}/holders/{above}");
                link(path, &at, &format!("../../{above}"));
            };
            block("nvme0n1p2", &partition);
            // an encrypted partition with a logical volume; the loop must end
            hold("nvme0n1p2", "dm-0");
            hold("dm-0", "dm-1");
            hold("dm-1", "dm-0");
            block("dm-0", "sys/class/block/dm-0");
            file(path, "sys/class/block/dm-0/dm/name", "crypt\n");
            block("dm-1", "sys/class/block/dm-1");
            file(path, "sys/class/block/dm-1/dm/name", "vg-root\n");
            // an array with partitions
            hold("nvme0n1p2", "md127");
            block("md127", "sys/class/block/md127");
            block("md127p1", "sys/class/block/md127/md127p1");
            // a volume on another drive
            block("dm-7", "sys/class/block/dm-7");
            file(path, "proc/self/mounts", mounts);
            file(path, "proc/swaps", swaps);
            assert_eq!(found(path).join(""), user);
        }
    }

    #[test]
    fn the_node_of_nvidias_own_driver_is_found() {
        let root = host();
        let path = root.path();
        file(
            path,
            &format!("proc/driver/nvidia/gpus/{BDF}/information"),
            "Model: GH200\nDevice Minor: \t 2\n",
        );
        link(path, "proc/77/fd/9", "/dev/nvidia2");
        assert_eq!(found(path).len(), 1);
    }
}
