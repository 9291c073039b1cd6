//! Inventories of captured hosts: the models' machines, as directories and as archives.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use varia_facts::{Bytes, CoherentSource, NodeId};
use varia_linux::capture::{self, Options};
use varia_linux::inventory::{Extent, Inventory};
use varia_linux::{Error, Tree, layout};
use varia_silicon::machine::{self, Machine};

const GIB: u64 = 1 << 30;

/// Writes a machine into a directory.
fn folder(machine: &Machine) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    machine.write(folder.path()).unwrap();
    folder
}

fn inventory(path: &Path, extent: Extent) -> Inventory {
    Inventory::of(&Tree::open(path).unwrap(), extent).unwrap()
}

/// Captures the host in a directory.
fn captured(folder: &TempDir, options: Options) -> PathBuf {
    let file = folder.path().join("host.tar");
    capture::capture(&Tree::open(folder.path()).unwrap(), &file, options).unwrap();
    file
}

#[test]
fn a_gh200_is_found_with_all_that_firmware_says() {
    let host = folder(&machine::GH200);
    let found = inventory(host.path(), Extent::Served);
    assert_eq!(found.notes, Vec::<String>::new());
    let bdf = machine::GH200.gpus()[0].parse().unwrap();
    assert_eq!(found.served(), [bdf]);
    let gpu = found.facts.function(bdf).unwrap();
    assert_eq!(
        gpu.name.as_deref(),
        Some("NVIDIA Corporation GH100 [GH200 120GB / 480GB]")
    );
    assert_eq!(gpu.driver.as_deref(), Some("nvidia"));
    assert_eq!(gpu.driver_override, None);
    assert_eq!(gpu.upstream.unwrap().to_string(), "0009:00:00.0");
    assert_eq!(found.best(gpu).module, "nvgrace_gpu_vfio_pci");
    let memory = gpu.coherent_memory.as_ref().unwrap();
    assert_eq!(memory.size, Bytes(96 * GIB));
    assert_eq!((memory.pxm_start, memory.pxm_count), (Some(1), Some(8)));
    assert_eq!(memory.source, CoherentSource::AcpiDsd("SSDT1".to_owned()));
    let bars: Vec<_> = gpu
        .virtual_bars
        .iter()
        .map(|bar| (bar.index, bar.size.0, bar.memory.as_deref()))
        .collect();
    assert_eq!(
        bars,
        [
            (0, 16 << 20, None),
            (2, GIB, Some("resmem")),
            (4, 128 * GIB, Some("usemem")),
        ]
    );
    assert_eq!(
        (gpu.numa_node, gpu.cpu_node),
        (Some(NodeId(0)), Some(NodeId(0)))
    );
    assert_eq!(found.facts.host.nodes.len(), 9);
    assert_eq!(found.facts.kernel.version(), Some((6, 17)));
    assert_eq!(found.facts.kernel.kvm.cacheable_pfnmap, Some(true));
    // the drives are not part of it
    assert_eq!(found.facts.functions.len(), 2, "the GPU and its port");
}

#[test]
fn a_gb200_is_in_a_node_without_cpus_and_knows_the_nearest_that_has_some() {
    let host = folder(&machine::GB200_NVL4);
    let found = inventory(host.path(), Extent::Served);
    let nodes: Vec<_> = found
        .served()
        .into_iter()
        .map(|bdf| found.facts.function(bdf).unwrap())
        .map(|gpu| (gpu.numa_node.unwrap().0, gpu.cpu_node.unwrap().0))
        .collect();
    assert_eq!(nodes, [(2, 0), (10, 0), (18, 1), (26, 1)]);
    let first = found.facts.function(found.served()[0]).unwrap();
    // no MIG bug: no resmem, BAR 2 is the chip's own
    let bars = &first.virtual_bars;
    assert_eq!(bars[1].memory, None);
    assert_eq!(
        (bars[2].size, bars[2].length),
        (Bytes(256 * GIB), Bytes(184 * GIB))
    );
}

#[test]
fn a_host_without_a_gpu_serves_none() {
    let host = folder(&machine::NONE);
    let found = inventory(host.path(), Extent::Served);
    assert!(found.served().is_empty());
    assert!(found.facts.functions.is_empty());
    assert_eq!(inventory(host.path(), Extent::All).facts.functions.len(), 2);
}

#[test]
fn an_archive_and_its_unpacked_folder_tell_what_the_host_told() {
    for machine in machine::ALL {
        let host = folder(machine);
        let archive = captured(&host, Options { config: true });
        let unpacked = tempfile::tempdir().unwrap();
        tar::Archive::new(fs::File::open(&archive).unwrap())
            .unpack(unpacked.path())
            .unwrap();
        for extent in [Extent::Served, Extent::All] {
            let told = inventory(host.path(), extent);
            for copy in [archive.as_path(), unpacked.path()] {
                let copy = inventory(copy, extent);
                assert_eq!(copy.facts, told.facts, "{}", machine.name);
                assert_eq!(copy.aliases, told.aliases, "{}", machine.name);
                assert_eq!(copy.notes, told.notes, "{}", machine.name);
            }
        }
    }
}

#[test]
fn an_inventory_of_a_made_up_host_finds_the_facts_that_it_was_made_of() {
    for machine in machine::ALL {
        let host = folder(machine);
        let mut facts = machine.facts().unwrap();
        let config = machine.config_space().unwrap();
        let page = facts.kernel.page_size;
        let gpus = machine.gpus();
        for function in &mut facts.functions {
            if gpus.contains(&function.bdf.to_string()) {
                layout::lay_out(function, config.as_deref(), page);
            }
        }
        let found = inventory(host.path(), Extent::All).facts;
        for (found, made) in found.functions.iter().zip(&facts.functions) {
            assert_eq!(found, made, "{}", machine.name);
        }
        assert_eq!(found, facts, "{}", machine.name);
    }
}

#[test]
fn the_same_host_is_captured_as_the_same_bytes() {
    let host = folder(&machine::GH200_X4);
    let once = fs::read(captured(&host, Options::default())).unwrap();
    assert_eq!(fs::read(captured(&host, Options::default())).unwrap(), once);
}

#[test]
fn a_compressed_capture_is_refused_with_the_program_that_unpacks_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.tar.gz");
    for (begin, program) in [
        (&b"\x1f\x8b\x08"[..], "gunzip"),
        (b"\xfd7zXZ\0", "unxz"),
        (b"\x28\xb5\x2f\xfd", "unzstd"),
        (b"BZh9", "bunzip2"),
    ] {
        fs::write(&path, [begin, &[7; 600]].concat()).unwrap();
        let refused = Tree::open(&path).unwrap_err().to_string();
        assert!(
            refused.ends_with(&format!("unpack it with {program}")),
            "{refused}"
        );
    }
}

#[test]
fn a_capture_has_no_serial_number() {
    let host = folder(&machine::GH200);
    let archive = fs::read(captured(&host, Options { config: true })).unwrap();
    let has = |needle: &[u8]| archive.windows(needle.len()).any(|bytes| bytes == needle);
    // in VPD and in DMI
    assert!(!has(b"1234567890123"));
    // the Device Serial Number of the model, as its configuration space has it
    let serial = 0x48b0_2d00_0000_0200_u64.to_le_bytes();
    let raw = host
        .path()
        .join("sys/devices/pci0009:00/0009:00:00.0/0009:01:00.0/config");
    let raw = fs::read(raw).unwrap();
    assert!(
        raw.windows(8).any(|bytes| bytes == serial),
        "the model has one"
    );
    assert!(!has(&serial));
    assert!(
        !has(b"root=UUID"),
        "nor what the command line says of disks"
    );
    // and configuration spaces only when asked for
    let plain = captured(&host, Options::default());
    let names = tar::Archive::new(fs::File::open(plain).unwrap());
    let mut names = names;
    let config = names
        .entries()
        .unwrap()
        .any(|entry| entry.unwrap().path().unwrap().ends_with("config"));
    assert!(!config);
}

#[test]
fn what_is_no_host_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let error = Tree::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NoHost(_)), "{error}");
    let file = folder.path().join("noise");
    fs::write(&file, vec![0x55; 4096]).unwrap();
    let error = Tree::open(&file).unwrap_err().to_string();
    assert!(
        error.contains("noise") && error.contains("varia capture"),
        "{error}"
    );
    let error = Tree::open(&folder.path().join("absent")).unwrap_err();
    assert!(error.to_string().contains("absent"), "{error}");
}

#[test]
fn an_archive_that_is_cut_or_spoilt_never_panics() {
    let host = folder(&machine::GH200);
    let archive = fs::read(captured(&host, Options::default())).unwrap();
    let file = host.path().join("spoilt.tar");
    for turn in 0..200_usize {
        let mut bytes = archive.clone();
        if turn % 2 == 0 {
            bytes.truncate(archive.len() * turn / 200);
        } else {
            for at in (turn * 7..bytes.len()).step_by(997) {
                bytes[at] = bytes[at].wrapping_add(turn as u8);
            }
        }
        fs::write(&file, bytes).unwrap();
        if let Ok(tree) = Tree::open(&file) {
            let _ = Inventory::of(&tree, Extent::All);
        }
    }
}

#[test]
fn functions_that_go_while_one_looks_are_left_out_and_counted() {
    let host = folder(&machine::GH200);
    let gone = host.path().join("sys/devices/pci1000:00/1000:00:00.0");
    fs::remove_dir_all(gone).unwrap();
    let found = inventory(host.path(), Extent::All);
    assert_eq!(found.facts.functions.len(), 3);
    assert!(
        found.notes[0].starts_with("1 PCI functions"),
        "{:?}",
        found.notes
    );
}

#[test]
fn a_device_without_iommu_and_without_properties_has_none() {
    let host = folder(&machine::GH200);
    let gpu = host
        .path()
        .join("sys/devices/pci0009:00/0009:00:00.0/0009:01:00.0");
    fs::remove_file(gpu.join("iommu_group")).unwrap();
    fs::remove_file(host.path().join("sys/firmware/acpi/tables/SSDT1")).unwrap();
    let found = inventory(host.path(), Extent::Served);
    let gpu = found.facts.function(found.served()[0]).unwrap();
    assert_eq!((gpu.iommu_group, &gpu.coherent_memory), (None, &None));
    assert!(gpu.virtual_bars.is_empty());
    let note = gpu.layout_note.as_deref().unwrap();
    assert!(note.contains("nvidia,gpu-mem-base-pa"), "{note}");
}

/// Writes a file of a host.
fn put(host: &TempDir, path: &str, bytes: &[u8]) {
    let path = host.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_kernels_own_copy_of_its_options_is_read_and_captured() {
    let host = folder(&machine::GH200);
    let place = host.path().join("boot/config-6.17.9-64k");
    let options = fs::read(&place).unwrap();
    fs::remove_file(&place).unwrap();
    assert_eq!(
        inventory(host.path(), Extent::All).facts.kernel.config,
        None
    );
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&options).unwrap();
    packed
        .write_all(b"\nCONFIG_LOCALVERSION=\"-secret\"\n")
        .unwrap();
    let packed = packed.finish().unwrap();
    put(&host, "proc/config.gz", &packed);
    let told = inventory(host.path(), Extent::All).facts.kernel;
    assert_eq!(told.config_source.as_deref(), Some("proc/config.gz"));
    let config = told.config.unwrap();
    assert_eq!(config.get("ARM_SMMU_V3").map(String::as_str), Some("y"));
    let archive = captured(&host, Options::default());
    let copy = inventory(&archive, Extent::All).facts.kernel;
    assert_eq!(copy.config, Some(config));
    let bytes = fs::read(&archive).unwrap();
    assert!(
        !bytes.windows(7).any(|bytes| bytes == b"-secret"),
        "none but those that matter"
    );

    put(&host, "proc/config.gz", &packed[..packed.len() / 2]);
    let facts = inventory(host.path(), Extent::All).facts;
    assert_eq!(facts.kernel.config, None);
    assert_eq!(facts.unread[0].path, "proc/config.gz");
}

#[test]
fn what_checks_need_is_captured_with_the_rest() {
    let host = folder(&machine::GH200);
    put(
        &host,
        "sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
        b"Y\n",
    );
    put(&host, "sys/module/vfio/parameters/other", b"1\n");
    let cpu = "processor : 0\naddress sizes : 46 bits physical, 48 bits virtual\nserial : 77\n\n";
    put(&host, "proc/cpuinfo", cpu.repeat(3).as_bytes());
    let archive = captured(&host, Options { config: true });
    let [told, copy] = [host.path(), &archive].map(|path| inventory(path, Extent::All).facts);
    assert!(told == copy, "the copy differs");
    assert_eq!(copy.host.address_bits, Some(46));
    assert_eq!(copy.host.midr, Some(0x410f_d4f0));
    let vfio = &copy.kernel.modules["vfio"];
    let parameters: Vec<_> = vfio.parameters.iter().collect();
    assert_eq!(
        parameters,
        [(&"enable_unsafe_noiommu_mode".to_owned(), &"Y".to_owned())]
    );
    let qemu = copy.vmm.qemu.unwrap();
    assert_eq!(qemu.has("acpi-generic-initiator"), Some(true));
    let tree = Tree::open(&archive).unwrap();
    assert!(!tree.text("proc/cpuinfo").unwrap().contains("serial"));
}

#[test]
fn files_that_make_no_sense_are_noted_by_their_paths() {
    let host = folder(&machine::GH200);
    let gpu = "sys/devices/pci0009:00/0009:00:00.0/0009:01:00.0";
    let broken = [
        "boot/config-6.17.9-64k",
        "proc/meminfo",
        "sys/devices/pci0009:00/0009:00:00.0/0009:01:00.0/numa_node",
        "sys/devices/system/cpu/cpu0/regs/identification/midr_el1",
        "sys/devices/system/cpu/online",
        "sys/devices/system/node/has_generic_initiator",
        "sys/devices/system/node/node0/cpulist",
        "sys/devices/system/node/node0/hugepages/hugepages-524288kB/nr_hugepages",
        "varia/asked.json",
        "varia/programs.json",
    ];
    for path in broken {
        put(&host, path, b"\xff\x00garbage");
    }
    let unread = inventory(host.path(), Extent::Served).facts.unread;
    let found: Vec<_> = unread.iter().map(|one| one.path.as_str()).collect();
    let expected = broken.map(|path| match path.strip_prefix(gpu) {
        // by the name that a device has
        Some(rest) => format!("sys/bus/pci/devices/0009:01:00.0{rest}"),
        None => path.to_owned(),
    });
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(found, expected, "{unread:#?}");
    // and a release that is no folder's name
    put(&host, "proc/sys/kernel/osrelease", b"../../etc\n");
    let facts = inventory(host.path(), Extent::Served).facts;
    assert_eq!(facts.kernel.release, None);
    assert!(
        facts
            .unread
            .iter()
            .any(|one| one.path.ends_with("osrelease"))
    );
}

/// Makes the GPU of a GH200 a chip that is not in the table: 10de:2343.
fn unknown_chip(host: &TempDir) {
    let gpu = "sys/devices/pci0009:00/0009:00:00.0/0009:01:00.0";
    put(
        host,
        &format!("{gpu}/modalias"),
        b"pci:v000010DEd00002343sv000010DEsd00001809bc03sc02i00\n",
    );
    put(host, &format!("{gpu}/device"), b"0x2343\n");
}

#[test]
fn an_unknown_chip_is_given_no_other_chips_layout_until_it_is_probed() {
    let host = folder(&machine::GH200);
    unknown_chip(&host);
    let bdf = machine::GH200.gpus()[0].parse().unwrap();
    // what a live host shows before --probe: no configuration space
    let config = host
        .path()
        .join("sys/devices/pci0009:00/0009:00:00.0/0009:01:00.0/config");
    let registers = fs::read(&config).unwrap();
    fs::remove_file(&config).unwrap();
    let found = inventory(host.path(), Extent::Served);
    assert_eq!(found.served(), [bdf], "a GPU that is not known is shown");
    let gpu = found.facts.function(bdf).unwrap();
    assert!(gpu.coherent_memory.is_some());
    assert_eq!((&gpu.variant, gpu.virtual_bars.len()), (&None, 0));
    let note = gpu.layout_note.as_deref().unwrap();
    for part in ["10de:2343", "not known", "varia list --probe"] {
        assert!(note.contains(part), "{part:?} is not in {note}");
    }
    // the device's own registers tell
    fs::write(&config, registers).unwrap();
    let found = inventory(host.path(), Extent::Served);
    let gpu = found.facts.function(bdf).unwrap();
    assert_eq!(gpu.variant.as_deref(), Some("nvgrace-gpu"));
    let reason = gpu.variant_reason.as_deref().unwrap();
    assert!(reason.contains("registers"), "{reason}");
    assert_eq!(gpu.virtual_bars[1].memory.as_deref(), Some("resmem"));
    let note = gpu.layout_note.as_deref().unwrap();
    assert!(note.contains("not known"), "{note}");
}

#[test]
fn an_unknown_chip_without_coherent_memory_is_shown_with_vfio_pci() {
    let host = folder(&machine::GH200);
    unknown_chip(&host);
    fs::remove_file(host.path().join("sys/firmware/acpi/tables/SSDT1")).unwrap();
    let found = inventory(host.path(), Extent::Served);
    let gpu = found.facts.function(found.served()[0]).unwrap();
    assert_eq!(gpu.variant, None);
    assert_eq!(gpu.best_driver.as_deref(), Some("vfio-pci"));
    let note = gpu.layout_note.as_deref().unwrap();
    assert!(
        note.contains("not known") && note.contains("vfio-pci"),
        "{note}"
    );
}
