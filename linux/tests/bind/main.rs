//! Binding on a machine with a simulated kernel: every refusal, and a kill at every step.

mod killed;
mod persistent;
#[path = "../played/mod.rs"]
mod played;
mod without_memory;

use played::{MACHINE, Played};
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
