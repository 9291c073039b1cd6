//! GPUs whose memory the driver does not serve, or is not known to serve.

use std::fs;

use varia_facts::Bdf;
use varia_linux::bind::{self, BindError, Lack, Request, State};

use crate::played::Played;
use crate::{VARIANT, gpus, native, request, states};

/// Makes a GPU one that its driver serves without its memory; the reason.
pub(super) type Decline = fn(&mut Played, Bdf) -> &'static str;

/// Ways to find out: the driver says so, or the firmware's properties do.
pub(super) const DECLINES: [Decline; 4] = [
    |host, bdf| {
        let layout = format!("sys/kernel/debug/{VARIANT}/{bdf}/layout");
        host.put(&layout, "declined: the link is down\npage_size 64 KiB\n");
        "the link is down"
    },
    |host, _| {
        host.forget_properties();
        "nvidia,gpu-mem-base-pa can't be read (ENOENT)"
    },
    |host, bdf| {
        host.forget_properties();
        for (name, value) in [("base-pa", 0x4200_0000_0000_u64), ("size", 0)] {
            let file = format!("sys/bus/pci/devices/{bdf}/of_node/nvidia,gpu-mem-{name}");
            host.put(&file, value.to_be_bytes());
        }
        "reports a memory size of 0"
    },
    // what another driver's folder says is of no account
    |host, bdf| {
        host.forget_properties();
        host.put(&format!("sys/kernel/debug/other/{bdf}/layout"), "served\n");
        "nvidia,gpu-mem-base-pa can't be read (ENOENT)"
    },
];

#[test]
fn on_a_host_a_gpu_without_its_memory_is_refused_as_such() {
    for decline in DECLINES {
        let gpus = gpus(1);
        let mut host = Played::new();
        let why = decline(&mut host, gpus[0]);
        let error = bind::bind(&mut host, &request(&gpus)).unwrap_err();
        assert!(matches!(error, BindError::WithoutMemory { .. }), "{error}");
        let error = error.to_string();
        for part in [
            "0009:01:00.0 would be bound to nvgrace_gpu_vfio_pci WITHOUT ITS MEMORY",
            why,
            "as it was, bound to nvidia",
            "--fallback vfio-pci",
        ] {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
        assert_eq!(host.state(gpus[0]), native());
        assert!(host.saved_names().is_empty(), "{:?}", host.saved_names());
    }
}

#[test]
fn a_gpu_without_its_memory_takes_the_others_with_it_and_falls_back_alone() {
    let gpus = gpus(2);
    let mut host = Played::new();
    DECLINES[0](&mut host, gpus[1]);
    bind::bind(&mut host, &request(&gpus)).unwrap_err();
    assert_eq!(states(&host, &gpus), vec![native(); 2], "the first one too");
    for fallback in ["vfio-pci", VARIANT] {
        let request = Request {
            fallback: Some(fallback.to_owned()),
            ..request(&gpus)
        };
        let bound = bind::bind(&mut host, &request).unwrap();
        assert_eq!(bound[0].fell_back, None);
        assert_eq!(bound[0].without_memory, None);
        let (driver, act) = bound[1].fell_back.clone().unwrap();
        assert_eq!(driver, VARIANT);
        assert_eq!(
            act,
            "serves the device WITHOUT ITS MEMORY (the link is down)"
        );
        assert!(bound[1].without_memory.is_some());
        assert_eq!(host.state(gpus[0]), State::overridden(VARIANT));
        assert_eq!(host.state(gpus[1]), State::overridden(fallback));
        bind::unbind(&mut host, &gpus).unwrap();
        assert_eq!(states(&host, &gpus), vec![native(); 2]);
    }
}

#[test]
fn a_gpu_that_is_bound_without_its_memory_already_is_told_as_that() {
    let gpus = gpus(1);
    let mut host = Played::new();
    host.set(gpus[0], Some(VARIANT), Some(VARIANT));
    host.put(&format!("sys/bus/pci/drivers/{VARIANT}/module"), "");
    let layout = |text: &str| {
        (
            format!("sys/kernel/debug/{VARIANT}/{}/layout", gpus[0]),
            text.to_owned(),
        )
    };
    let (path, text) = layout("served\n");
    // the driver knows better than the firmware's tables
    host.forget_properties();
    host.put(&path, text);
    let bound = bind::bind(&mut host, &request(&gpus)).unwrap();
    assert_eq!(bound[0].without_memory, None);
    host.put(&path, "declined: the link is down\n");
    let error = bind::bind(&mut host, &request(&gpus)).unwrap_err();
    assert!(matches!(error, BindError::WithoutMemory { .. }), "{error}");
    let error = bind::plan(&host, &request(&gpus)).unwrap_err();
    assert!(matches!(error, BindError::WithoutMemory { .. }), "{error}");
}

#[test]
fn inside_a_vm_a_gpu_without_its_memory_is_told_and_no_failure() {
    let vms: [fn(&mut Played); 3] = [
        Played::make_vm,
        |host| host.put("proc/cpuinfo", "processor : 0\nflags : fpu hypervisor\n"),
        |host| {
            let id = "sys/class/dmi/id";
            host.put(&format!("{id}/sys_vendor"), "Microsoft Corporation\n");
            host.put(&format!("{id}/product_name"), "Virtual Machine\n");
        },
    ];
    for make_vm in vms {
        for decline in DECLINES {
            let gpus = gpus(1);
            let mut host = Played::new();
            make_vm(&mut host);
            let why = decline(&mut host, gpus[0]);
            let bound = bind::bind(&mut host, &request(&gpus)).unwrap();
            assert_eq!(host.state(gpus[0]), State::overridden(VARIANT));
            let told = bound[0].without_memory.as_ref().unwrap();
            assert!(told.to_string().contains(why), "{told}");
            bind::unbind(&mut host, &gpus).unwrap();
            let strict = Request {
                strict: true,
                ..request(&gpus)
            };
            let error = bind::bind(&mut host, &strict).unwrap_err();
            assert!(matches!(error, BindError::WithoutMemory { .. }), "{error}");
            assert_eq!(host.state(gpus[0]), native());
        }
    }
}

#[test]
fn vfio_pci_by_its_name_is_no_failure_but_strict_refuses_it() {
    let gpus = gpus(1);
    let mut host = Played::new();
    let plain = Request {
        driver: Some("vfio_pci".to_owned()),
        ..request(&gpus)
    };
    let strict = Request {
        strict: true,
        ..plain.clone()
    };
    let error = bind::bind(&mut host, &strict).unwrap_err().to_string();
    assert!(error.contains("own BARs alone"), "{error}");
    assert!(!error.contains("--fallback"), "it is no remedy: {error}");
    let planned = bind::plan(&host, &strict).unwrap_err().to_string();
    assert!(!planned.contains("--fallback"), "{planned}");
    let bound = bind::bind(&mut host, &plain).unwrap();
    assert!(bound[0].without_memory.is_some());
    // what has no such memory loses none
    let drive = "1000:00:00.0".parse().unwrap();
    let strict = Request {
        devices: vec![drive],
        ..strict
    };
    let bound = bind::bind(&mut host, &strict).unwrap();
    assert_eq!(bound[0].without_memory, None);
}

/// Makes firmware's tables unreadable; the path of the table that the message names.
type Hide = fn(&mut Played) -> &'static str;

const HIDDEN: [Hide; 3] = [
    |host| {
        let path = "sys/firmware/acpi/tables/DSDT";
        fs::remove_file(host.path(path)).unwrap();
        path
    },
    |host| {
        let path = "sys/firmware/acpi/tables/SSDT7";
        fs::create_dir_all(host.path(path)).unwrap();
        path
    },
    |host| {
        let path = "sys/firmware/acpi/tables";
        fs::remove_dir_all(host.path(path)).unwrap();
        path
    },
];

#[test]
fn tables_that_can_not_be_read_prove_nothing() {
    for hide in HIDDEN {
        let gpus = gpus(1);
        let mut host = Played::new();
        host.forget_properties();
        let path = hide(&mut host);
        let bound = bind::bind(&mut host, &request(&gpus)).unwrap();
        let told = bound[0].without_memory.as_ref().unwrap();
        assert!(matches!(told, Lack::Unknown(_)), "{told}");
        let text = told.to_string();
        assert!(text.contains("not known whether"), "{text}");
        assert!(text.contains(path), "{text}");
        assert!(!text.contains("WITHOUT"), "{text}");
        bind::unbind(&mut host, &gpus).unwrap();
        let strict = Request {
            strict: true,
            ..request(&gpus)
        };
        let planned = bind::plan(&host, &strict).unwrap_err();
        let error = bind::bind(&mut host, &strict).unwrap_err();
        for error in [planned, error] {
            assert!(matches!(error, BindError::UnknownMemory { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("not known whether"), "{text}");
            assert!(text.contains("as it was, bound to nvidia"), "{text}");
            assert!(!text.contains("WITHOUT"), "{text}");
        }
        assert_eq!(host.state(gpus[0]), native());
    }
}
