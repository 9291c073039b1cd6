//! Bindings that outlast a restart: bound again, forgotten, and every file that must bind nothing.

use varia_facts::Bdf;
use varia_linux::bind::{self, BindError, Request, State};

use crate::played::{Killed, Played};
use crate::{VARIANT, gpus, native, request, states};

fn file(bdf: Bdf) -> String {
    format!("etc/varia/bind.d/{bdf}.json")
}

/// A machine whose GPUs are bound persistently, after a restart.
fn restarted(devices: &[Bdf]) -> Played {
    let mut host = Played::new();
    bind::bind_persistently(&mut host, &request(devices)).unwrap();
    host.reboot();
    assert_eq!(states(&host, devices), vec![native(); devices.len()]);
    host
}

fn failures(host: &mut Played) -> Vec<String> {
    let applied = bind::apply(host);
    let failures = applied.failures.iter().map(ToString::to_string);
    failures.collect()
}

#[test]
fn a_start_binds_what_was_bound_persistently_until_it_is_unbound() {
    let gpus = gpus(2);
    let mut host = restarted(&gpus[..1]);
    let applied = bind::apply(&mut host);
    assert!(applied.failures.is_empty(), "{:?}", applied.failures);
    assert_eq!(applied.outcomes.len(), 1);
    assert_eq!(host.state(gpus[0]), State::overridden(VARIANT));
    assert_eq!(host.state(gpus[1]), native(), "not persistent");
    let unbound = bind::unbind_persistently(&mut host, &gpus[..1]).unwrap();
    assert_eq!(unbound.removed, [format!("/{}", file(gpus[0]))]);
    assert_eq!(host.state(gpus[0]), native());
    assert!(!host.path(&file(gpus[0])).exists());
    host.reboot();
    assert_eq!(bind::apply(&mut host).outcomes, []);
    assert_eq!(host.state(gpus[0]), native());
}

/// As the udev rule does it, before a driver is loaded.
#[test]
fn a_reserved_device_keeps_other_drivers_away_and_unbind_knows_what_was_there() {
    let gpus = gpus(2);
    let mut host = restarted(&gpus[..1]);
    host.set(gpus[0], None, None);
    host.set(gpus[1], None, None);
    let reserved = bind::reserve(&mut host, gpus[0]).unwrap();
    assert_eq!(reserved.as_deref(), Some(VARIANT));
    assert_eq!(bind::reserve(&mut host, gpus[1]).unwrap(), None);
    let waiting = State {
        driver: None,
        driver_override: Some(VARIANT.to_owned()),
    };
    let free = State {
        driver: None,
        driver_override: None,
    };
    assert_eq!(states(&host, &gpus), [waiting, free.clone()]);
    assert!(bind::apply(&mut host).failures.is_empty());
    assert_eq!(host.state(gpus[0]), State::overridden(VARIANT));
    bind::unbind_persistently(&mut host, &gpus[..1]).unwrap();
    assert_eq!(host.state(gpus[0]), free);
}

/// A file that can't be used, its own device's fault in the message, and the other device bound.
#[test]
fn a_file_that_can_not_be_used_binds_nothing_and_hinders_no_other() {
    type Spoil = fn(&mut Played, &str);
    let cases: [(&str, Spoil, &[&str]); 11] = [
        (
            "empty",
            |host, own| host.put(own, ""),
            &["damaged", "--persist"],
        ),
        (
            "no utf-8",
            |host, own| host.put(own, [0xff, 0xfe, 0]),
            &["damaged"],
        ),
        (
            "another schema",
            |host, own| replace(host, own, "varia-bind/1", "varia-bind/9"),
            &["varia-bind/9", "varia-bind/1"],
        ),
        (
            "an unknown field",
            |host, own| replace(host, own, "\"strict\"", "\"strikt\""),
            &["strikt"],
        ),
        (
            "no driver's name",
            |host, own| replace(host, own, VARIANT, "../../evil"),
            &["../../evil", "can't be a module's name"],
        ),
        (
            "an unknown driver",
            |host, own| replace(host, own, VARIANT, "vfio_of_tomorrow"),
            &["vfio_of_tomorrow", "install its module"],
        ),
        (
            "another device at the address",
            |host, own| replace(host, own, "d00002342", "d00002941"),
            &[
                "d00002941",
                "d00002342",
                "left alone",
                "varia unbind 0009:01:00.0",
            ],
        ),
        (
            "another vendor's card of the same model",
            |host, own| replace(host, own, "sv000010DE", "sv00001028"),
            &["left alone"],
        ),
        (
            "the device is gone",
            |host, _| host.remove("0009:01:00.0".parse().unwrap()),
            &["does not exist", "varia unbind 0009:01:00.0"],
        ),
        (
            "a folder",
            |host, own| {
                std::fs::remove_file(host.path(own)).unwrap();
                std::fs::create_dir(host.path(own)).unwrap();
            },
            &["can't read"],
        ),
        (
            "a second file that differs",
            |host, own| {
                let text = std::fs::read_to_string(host.path(own)).unwrap();
                let text = text.replace(VARIANT, "vfio-pci");
                host.put("etc/varia/bind.d/another.json", text);
            },
            &["vfio-pci", VARIANT, "another.json", "remove one"],
        ),
    ];
    for (what, spoil, parts) in cases {
        let gpus = gpus(2);
        let mut host = restarted(&gpus);
        let own = file(gpus[0]);
        spoil(&mut host, &own);
        let applied = bind::apply(&mut host);
        let failures: Vec<_> = applied.failures.iter().map(ToString::to_string).collect();
        let text = failures.join("\n");
        for part in parts.iter().chain([&format!("/{own}").as_str()]) {
            assert!(text.contains(part), "{what}: {part:?} is not in: {text}");
        }
        if host
            .path(&format!("sys/bus/pci/devices/{}", gpus[0]))
            .exists()
        {
            assert_eq!(host.state(gpus[0]), native(), "{what}");
        }
        assert_eq!(applied.outcomes.len(), 1, "{what}");
        assert_eq!(host.state(gpus[1]), State::overridden(VARIANT), "{what}");
        // the remedy that the message names
        if text.contains(&format!("varia unbind {}", gpus[0])) {
            bind::unbind_persistently(&mut host, &gpus[..1]).unwrap();
            assert!(!host.path(&own).exists(), "{what}");
        }
    }
}

fn replace(host: &Played, path: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(host.path(path)).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    host.put(path, text.replace(from, to));
}

#[test]
fn a_file_torn_at_any_byte_binds_nothing() {
    let gpus = gpus(1);
    let mut host = restarted(&gpus);
    let whole = std::fs::read(host.path(&file(gpus[0]))).unwrap();
    // without the line's end the file is whole
    for length in 0..whole.len() - 1 {
        host.put(&file(gpus[0]), &whole[..length]);
        let failures = failures(&mut host);
        assert_eq!(failures.len(), 1, "{length}");
        assert!(failures[0].contains("damaged"), "{failures:?}");
        assert!(bind::reserve(&mut host, gpus[0]).is_err(), "{length}");
        assert_eq!(host.state(gpus[0]), native(), "{length}");
    }
    assert!(host.loaded().is_empty() || host.loaded() == [VARIANT]);
    // written anew, as the message says
    bind::bind_persistently(&mut host, &request(&gpus)).unwrap();
    assert_eq!(std::fs::read(host.path(&file(gpus[0]))).unwrap(), whole);
}

#[test]
fn a_copy_under_another_name_is_named_and_hinders_no_binding_that_it_repeats() {
    let gpus = gpus(1);
    for name in [
        "0019:01:00.0.json",
        "old.json",
        "0009:01:00.0",
        "0009:1:0.0.json",
    ] {
        let mut host = restarted(&gpus);
        let text = std::fs::read(host.path(&file(gpus[0]))).unwrap();
        host.put(&format!("etc/varia/bind.d/{name}"), &text);
        let failures = failures(&mut host);
        assert_eq!(failures.len(), 1, "{failures:?}");
        for part in [name, "0009:01:00.0.json"] {
            assert!(failures[0].contains(part), "{failures:?}");
        }
        assert_eq!(host.state(gpus[0]), State::overridden(VARIANT), "{name}");
        // neither the copy nor the device's own file would win
        let error = bind::bind_persistently(&mut host, &request(&gpus)).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    // what a killed command leaves is nobody's fault
    let mut host = restarted(&gpus);
    host.put(&format!("{}.new", file(gpus[0])), "{");
    assert_eq!(failures(&mut host), Vec::<String>::new());
}

#[test]
fn a_read_only_etc_is_found_before_anything_is_changed() {
    let gpus = gpus(1);
    let mut host = Played::new();
    host.protect_configuration(true);
    let error = bind::bind_persistently(&mut host, &request(&gpus)).unwrap_err();
    for part in [
        "/etc/varia/bind.d",
        "read-only",
        "nothing is changed",
        "root",
    ] {
        assert!(
            error.to_string().contains(part),
            "{part:?} is not in: {error}"
        );
    }
    assert_eq!(host.writes(), 0);
    host.protect_configuration(false);
    bind::bind_persistently(&mut host, &request(&gpus)).unwrap();
    host.protect_configuration(true);
    let error = bind::unbind_persistently(&mut host, &gpus).unwrap_err();
    assert!(error.to_string().contains("nothing is changed"), "{error}");
    assert_eq!(host.state(gpus[0]), State::overridden(VARIANT));
    // a device without a file needs no writable /etc
    let mut host = Played::new();
    host.protect_configuration(true);
    bind::bind(&mut host, &request(&gpus)).unwrap();
    bind::unbind_persistently(&mut host, &gpus).unwrap();
    assert_eq!(host.state(gpus[0]), native());
}

#[test]
fn members_of_a_group_are_bound_together_each_to_its_own_driver() {
    let gpus = gpus(2);
    let mut host = Played::new();
    host.join_group(gpus[0], &gpus[1].to_string());
    bind::bind_persistently(&mut host, &request(&gpus)).unwrap();
    let other = Request {
        driver: Some("vfio-pci".to_owned()),
        ..request(&gpus[1..])
    };
    bind::bind_persistently(&mut host, &other).unwrap();
    let bound = [State::overridden(VARIANT), State::overridden("vfio-pci")];
    assert_eq!(states(&host, &gpus), bound);
    host.reboot();
    let applied = bind::apply(&mut host);
    assert!(applied.failures.is_empty(), "{:?}", applied.failures);
    assert_eq!(states(&host, &gpus), bound);
    // one of them refused: neither is bound, and both files are named
    host.reboot();
    host.refuse("vfio-pci", gpus[1]);
    let failures = failures(&mut host);
    assert_eq!(failures.len(), 1, "{failures:?}");
    for gpu in &gpus {
        assert!(failures[0].contains(&file(*gpu)), "{failures:?}");
    }
    assert_eq!(states(&host, &gpus), vec![native(); 2]);
}

#[test]
fn unbind_forgets_a_device_that_is_gone_and_one_that_this_start_has_not_bound() {
    let gpus = gpus(2);
    let mut host = restarted(&gpus);
    host.remove(gpus[0]);
    let planned = bind::plan_unbind_persistently(&host, &gpus).unwrap();
    let unbound = bind::unbind_persistently(&mut host, &gpus).unwrap();
    assert_eq!(unbound, planned);
    assert_eq!(unbound.removed.len(), 2);
    assert!(unbound.outcomes.is_empty());
    assert_eq!(host.state(gpus[1]), native());
    // without a file it is as before
    let error = bind::unbind_persistently(&mut host, &gpus[..1]).unwrap_err();
    assert!(matches!(error, BindError::NoFunction { .. }), "{error}");
    let error = bind::unbind_persistently(&mut host, &gpus[1..]).unwrap_err();
    assert!(matches!(error, BindError::NoRecord { .. }), "{error}");
}

/// A killed command: the next start has every device as it was or bound as asked, and a repeated
/// `unbind` ends what was begun.
#[test]
fn a_command_killed_at_any_step_leaves_each_start_with_what_was_or_what_was_asked() {
    let gpus = gpus(2);
    let mut steps = 0;
    for step in 0.. {
        let mut host = Played::new();
        host.kill_at(step);
        let ended = Killed::catch(|| bind::bind_persistently(&mut host, &request(&gpus)));
        host.kill_never();
        host.reboot();
        let applied = bind::apply(&mut host);
        assert!(
            applied.failures.is_empty(),
            "{step}: {:?}",
            applied.failures
        );
        for gpu in &gpus {
            let saved = host.path(&file(*gpu)).exists();
            let expected = if saved {
                State::overridden(VARIANT)
            } else {
                native()
            };
            assert_eq!(host.state(*gpu), expected, "{step}");
        }
        if ended.is_some() {
            break;
        }
        steps += 1;
    }
    assert!(steps > 10, "{steps}");
    for step in 0.. {
        let mut host = restarted(&gpus);
        assert!(bind::apply(&mut host).failures.is_empty());
        host.kill_at(step);
        let ended = Killed::catch(|| bind::unbind_persistently(&mut host, &gpus));
        host.kill_never();
        if ended.is_some() {
            break;
        }
        bind::recover(&mut host).unwrap();
        // a device whose file is gone already has no record either
        for gpu in &gpus {
            let again = bind::unbind_persistently(&mut host, &[*gpu]);
            let is_over = matches!(again, Ok(_) | Err(BindError::NoRecord { .. }));
            assert!(is_over, "{step}: {again:?}");
            assert!(!host.path(&file(*gpu)).exists(), "{step}");
        }
        assert_eq!(states(&host, &gpus), vec![native(); 2], "{step}");
    }
}
