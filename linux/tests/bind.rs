//! Binding on a machine with a simulated kernel: every refusal, and a kill at every step.

mod played;

use std::fs;

use played::{Killed, MACHINE, Played};
use varia_facts::Bdf;
use varia_linux::bind::{self, BindError, Recovery, Request, State};

const VARIANT: &str = "nvgrace_gpu_vfio_pci";

fn gpus(count: usize) -> Vec<Bdf> {
    let names = MACHINE.gpus();
    names
        .iter()
        .take(count)
        .map(|name| name.parse().unwrap())
        .collect()
}

fn request(devices: &[Bdf]) -> Request {
    Request {
        devices: devices.to_vec(),
        ..Request::default()
    }
}

fn native() -> State {
    State {
        driver: Some("nvidia".to_owned()),
        driver_override: None,
    }
}

fn states(host: &Played, devices: &[Bdf]) -> Vec<State> {
    let states = devices.iter().map(|bdf| host.state(*bdf));
    states.collect()
}

#[test]
fn the_best_driver_is_loaded_and_bound_and_unbind_restores_what_was_there() {
    let gpus = gpus(2);
    let mut host = Played::new();
    let bound = bind::bind(&mut host, &request(&gpus)).unwrap();
    assert_eq!(bound.len(), 2);
    assert!(bound[0].why.contains("vfio_pci:v000010DEd00002342"));
    assert_eq!(states(&host, &gpus), vec![State::overridden(VARIANT); 2]);
    assert_eq!(host.loaded(), [VARIANT]);
    // a second time: nothing to do, and what was there is still known
    bind::bind(&mut host, &request(&gpus)).unwrap();
    // to another driver, and still back to the first
    let other = Request {
        driver: Some("vfio_pci".to_owned()),
        ..request(&gpus[..1])
    };
    bind::bind(&mut host, &other).unwrap();
    assert_eq!(host.state(gpus[0]), State::overridden("vfio-pci"));
    bind::unbind(&mut host, &gpus).unwrap();
    assert_eq!(states(&host, &gpus), vec![native(); 2]);
    let error = bind::unbind(&mut host, &gpus).unwrap_err();
    assert!(matches!(error, BindError::NoRecord { .. }), "{error}");
}

#[test]
fn what_had_no_driver_or_an_override_of_its_own_gets_that_back() {
    let gpus = gpus(2);
    let mut host = Played::new();
    host.set(gpus[0], None, None);
    host.set(gpus[1], Some("nvidia"), Some("another"));
    let before = states(&host, &gpus);
    bind::bind(&mut host, &request(&gpus)).unwrap();
    bind::unbind(&mut host, &gpus).unwrap();
    assert_eq!(states(&host, &gpus), before);
}

#[test]
fn a_driver_is_named_in_either_spelling() {
    for name in [
        "nvgrace-gpu-vfio-pci",
        "nvgrace_gpu_vfio_pci",
        "vfio_pci",
        "vfio-pci",
    ] {
        let gpus = gpus(1);
        let mut host = Played::new();
        let request = Request {
            driver: Some(name.to_owned()),
            ..request(&gpus)
        };
        bind::bind(&mut host, &request).unwrap();
        let driver = host.state(gpus[0]).driver.unwrap();
        assert_eq!(driver.replace('-', "_"), name.replace('-', "_"));
    }
}

#[test]
fn a_name_that_no_driver_can_have_is_refused_before_anything_is_done() {
    let gpus = gpus(1);
    let mut host = Played::new();
    for name in ["../../evil", "a b;c", "", ".", "x\u{1b}[31m"] {
        let request = Request {
            driver: Some(name.to_owned()),
            ..request(&gpus)
        };
        let error = bind::plan(&host, &request).unwrap_err().to_string();
        assert!(error.contains("can't be a module's name"), "{error}");
        let error = bind::bind(&mut host, &request).unwrap_err().to_string();
        assert!(error.contains("can't be a module's name"), "{error}");
        assert_eq!(states(&host, &gpus), vec![native(); 1]);
        assert!(host.loaded().is_empty());
    }
}

#[test]
fn a_driver_that_refuses_leaves_the_device_as_it_was_and_offers_the_fallback() {
    let gpus = gpus(2);
    let mut host = Played::new();
    host.refuse(VARIANT, gpus[1]);
    let error = bind::bind(&mut host, &request(&gpus))
        .unwrap_err()
        .to_string();
    for part in [
        VARIANT,
        "0019:01:00.0",
        "bound to nvidia",
        "--fallback vfio-pci",
        "timed out",
    ] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    assert_eq!(states(&host, &gpus), vec![native(); 2], "the first one too");
    assert!(host.saved_names().is_empty(), "{:?}", host.saved_names());

    let fallback = Request {
        fallback: Some("vfio-pci".to_owned()),
        ..request(&gpus)
    };
    let bound = bind::bind(&mut host, &fallback).unwrap();
    assert_eq!(bound[0].fell_back, None);
    assert_eq!(bound[1].fell_back.as_ref().unwrap().0, VARIANT);
    assert_eq!(host.state(gpus[0]), State::overridden(VARIANT));
    assert_eq!(host.state(gpus[1]), State::overridden("vfio-pci"));
    bind::unbind(&mut host, &gpus).unwrap();
    assert_eq!(states(&host, &gpus), vec![native(); 2]);
}

#[test]
fn a_fallback_that_refuses_too_ends_it() {
    let gpus = gpus(1);
    let mut host = Played::new();
    host.refuse(VARIANT, gpus[0]);
    host.refuse("vfio-pci", gpus[0]);
    let request = Request {
        fallback: Some("vfio-pci".to_owned()),
        ..request(&gpus)
    };
    let error = bind::bind(&mut host, &request).unwrap_err().to_string();
    assert!(error.contains("vfio-pci refuses"), "{error}");
    assert!(!error.contains("--fallback"), "there is none left: {error}");
    assert_eq!(host.state(gpus[0]), native());
}

/// Makes a GPU one that its driver serves without its memory; the reason.
type Decline = fn(&mut Played, Bdf) -> &'static str;

/// Ways to find out: the driver says so, or the firmware's properties do.
const DECLINES: [Decline; 4] = [
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
            assert!(told.contains(why), "{told}");
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

#[test]
fn tables_that_can_not_be_read_prove_nothing() {
    let gpus = gpus(1);
    let mut host = Played::new();
    host.forget_properties();
    fs::remove_file(host.path("sys/firmware/acpi/tables/DSDT")).unwrap();
    let bound = bind::bind(&mut host, &request(&gpus)).unwrap();
    let told = bound[0].without_memory.as_ref().unwrap();
    assert!(told.starts_with("not known: "), "{told}");
    let strict = Request {
        strict: true,
        ..request(&gpus)
    };
    bind::bind(&mut host, &strict).unwrap_err();
}

/// What is refused before anything is written.
#[test]
fn what_can_not_be_is_refused_by_its_name_and_nothing_is_written() {
    type Spoil = fn(&mut Played, Bdf);
    let cases: [(Spoil, &[&str]); 7] = [
        (
            |host, bdf| host.remove(bdf),
            &["PCI function 0009:01:00.0 does not exist"],
        ),
        (
            |host, bdf| host.remove_file(bdf, "iommu_group"),
            &["0009:01:00.0", "IOMMU"],
        ),
        (
            |host, bdf| host.join_group(bdf, "1000:00:00.0"),
            &["group 1", "1000:00:00.0 (nvme)", "same command"],
        ),
        (
            |host, _| host.open("/dev/vfio/1"),
            &["0009:01:00.0", "process 4711 (qemu)", "/dev/vfio/1"],
        ),
        (
            |host, _| host.uninstall(VARIANT),
            &["nvgrace_gpu_vfio_pci", "not found", "--driver"],
        ),
        (
            |host, bdf| host.file(bdf, "modalias", "pci:nonsense"),
            &["0009:01:00.0"],
        ),
        (
            |host, bdf| {
                host.file(
                    bdf,
                    "modalias",
                    "pci:v000010DEd000022B2sv00000000sd00000000bc06sc04i00",
                )
            },
            &["bridge"],
        ),
    ];
    for (spoil, named) in cases {
        let gpus = gpus(1);
        let mut host = Played::new();
        spoil(&mut host, gpus[0]);
        let error = bind::bind(&mut host, &request(&gpus))
            .unwrap_err()
            .to_string();
        for part in named {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
        assert_eq!(host.writes(), 0, "{error}");
    }
}

#[test]
fn a_whole_group_that_is_named_together_is_bound_together() {
    let gpus = gpus(2);
    let mut host = Played::new();
    host.join_group(gpus[0], &gpus[1].to_string());
    let error = bind::bind(&mut host, &request(&gpus[..1])).unwrap_err();
    assert!(matches!(error, BindError::Group { .. }), "{error}");
    bind::bind(&mut host, &request(&gpus)).unwrap();
    assert_eq!(states(&host, &gpus), vec![State::overridden(VARIANT); 2]);
}

#[test]
fn a_group_is_bound_beside_members_whose_drivers_do_no_dma() {
    let drive = "1000:00:00.0";
    for (driver, stays) in [
        (Some("pcieport"), true),
        (Some("pci-stub"), true),
        (Some("vfio-pci"), true),
        (Some(VARIANT), true),
        (None, true),
        (Some("nvme"), false),
        (Some("ahci"), false),
    ] {
        let gpus = gpus(1);
        let mut host = Played::new();
        host.set(drive.parse().unwrap(), driver, None);
        host.join_group(gpus[0], drive);
        let bound = bind::bind(&mut host, &request(&gpus));
        let refused = matches!(&bound, Err(BindError::Group { .. }));
        assert_eq!((bound.is_ok(), refused), (stays, !stays), "{driver:?}");
    }
}

#[test]
fn a_device_that_goes_in_the_middle_takes_nothing_with_it() {
    // its writes are 3: override, unbind, bind
    for gone_after in 0..6 {
        let gpus = gpus(2);
        let mut host = Played::new();
        host.remove_after(gone_after, gpus[1]);
        let error = bind::bind(&mut host, &request(&gpus))
            .unwrap_err()
            .to_string();
        assert!(error.contains("0019:01:00.0"), "{error}");
        assert_eq!(host.state(gpus[0]), native(), "gone after {gone_after}");
        assert_eq!(host.saved_names(), Vec::<String>::new());
    }
}

/// Kills a command at each of its steps; the next command finds the old state or the new one.
fn kill_everywhere(refusing: bool, act: fn(&mut Played) -> Result<(), BindError>, bound: bool) {
    let gpus = gpus(2);
    let (mut taken_back, mut completed, mut untouched) = (0, 0, 0);
    for step in 0.. {
        let mut host = Played::new();
        if bound {
            bind::bind(&mut host, &request(&gpus)).unwrap();
        }
        if refusing {
            host.refuse(VARIANT, gpus[1]);
        }
        let old = states(&host, &gpus);
        host.kill_at(step);
        let ended = Killed::catch(|| act(&mut host));
        if ended.is_some() {
            assert!(step > 6, "the command has more steps than {step}");
            break;
        }
        // killed again while it recovers, once
        host.kill_at(step % 4);
        let again = Killed::catch(|| bind::recover(&mut host));
        host.kill_never();
        let recovery = match again {
            Some(recovery) => recovery.unwrap(),
            None => bind::recover(&mut host).unwrap(),
        };
        let new = match bound {
            true => native(),
            false => State::overridden(VARIANT),
        };
        let now = states(&host, &gpus);
        match recovery {
            Some(Recovery::Completed(_)) => {
                completed += 1;
                assert_eq!(now, vec![new.clone(); 2], "killed at {step}");
            }
            Some(Recovery::TakenBack(_)) => {
                taken_back += 1;
                assert_eq!(now, old, "killed at {step}");
            }
            None => {
                untouched += 1;
                let all_new = now == vec![new.clone(); 2];
                assert!(now == old || all_new, "killed at {step}: {now:?}");
            }
        }
        assert!(!host.saved_names().contains(&"journal.json".to_owned()));
        // and from there everything still works
        host.refuse_nothing();
        bind::bind(&mut host, &request(&gpus)).unwrap();
        bind::unbind(&mut host, &gpus).unwrap();
        assert_eq!(states(&host, &gpus), vec![native(); 2], "killed at {step}");
    }
    assert!(
        taken_back > 0 && untouched > 0,
        "{taken_back} {completed} {untouched}"
    );
    assert!(refusing || completed > 0, "{completed}");
}

#[test]
fn a_bind_that_is_killed_leaves_the_old_state_or_the_new() {
    kill_everywhere(
        false,
        |host| bind::bind(host, &request(&gpus(2))).map(drop),
        false,
    );
}

#[test]
fn a_bind_that_is_killed_while_it_takes_back_leaves_the_old_state() {
    kill_everywhere(
        true,
        |host| bind::bind(host, &request(&gpus(2))).map(drop),
        false,
    );
}

#[test]
fn a_bind_that_finds_no_memory_and_is_killed_is_taken_back() {
    let gpus = gpus(1);
    for step in 0.. {
        let mut host = Played::new();
        DECLINES[0](&mut host, gpus[0]);
        host.kill_at(step);
        let ended = Killed::catch(|| bind::bind(&mut host, &request(&gpus)));
        if ended.is_some() {
            assert!(step > 6, "the command has more steps than {step}");
            break;
        }
        host.kill_never();
        let recovery = bind::recover(&mut host).unwrap();
        assert!(!matches!(recovery, Some(Recovery::Completed(_))), "{step}");
        assert_eq!(host.state(gpus[0]), native(), "killed at {step}");
    }
}

#[test]
fn an_unbind_that_is_killed_leaves_the_old_state_or_the_new() {
    kill_everywhere(false, |host| bind::unbind(host, &gpus(2)).map(drop), true);
}

#[test]
fn a_journal_of_another_boot_is_history() {
    let gpus = gpus(1);
    let mut host = Played::new();
    host.kill_at(3);
    assert!(Killed::catch(|| bind::bind(&mut host, &request(&gpus))).is_none());
    host.kill_never();
    host.reboot();
    assert_eq!(bind::recover(&mut host).unwrap(), None);
    assert_eq!(host.state(gpus[0]), native());
}

#[test]
fn a_journal_that_is_spoilt_is_named_and_nothing_is_touched() {
    let mut host = Played::new();
    fs::write(host.saved_folder().join("journal.json"), "{").unwrap();
    let error = bind::recover(&mut host).unwrap_err().to_string();
    assert!(
        error.contains("journal.json") && error.contains("remove"),
        "{error}"
    );
    assert_eq!(host.writes(), 0);
}

#[test]
fn what_can_not_be_taken_back_says_what_it_is_now() {
    let gpus = gpus(1);
    let mut host = Played::new();
    host.refuse(VARIANT, gpus[0]);
    host.refuse("nvidia", gpus[0]);
    let error = bind::bind(&mut host, &request(&gpus))
        .unwrap_err()
        .to_string();
    for part in [
        "0009:01:00.0",
        "bound to nvidia",
        "without a driver",
        "repeat",
    ] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    // the journal stays: repeating the command ends it
    host.refuse_nothing();
    assert_eq!(
        bind::recover(&mut host).unwrap(),
        Some(Recovery::TakenBack(gpus.clone()))
    );
    assert_eq!(host.state(gpus[0]), native());
}

#[test]
fn planning_writes_nothing_and_tells_the_driver() {
    let gpus = gpus(1);
    let host = Played::new();
    let plan = bind::plan(&host, &request(&gpus)).unwrap();
    assert_eq!(plan[0].driver.name, VARIANT);
    assert_eq!(host.writes(), 0);
}
