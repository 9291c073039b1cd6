//! Commands that are killed at each step, and the journals that they leave.

use std::fs;

use varia_linux::bind::{self, BindError, Recovery, State};

use crate::played::{Killed, Played};
use crate::without_memory::DECLINES;
use crate::{VARIANT, gpus, native, request, states};

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
