//! The user-space runtime with the same rows.

use super::*;

/// An endpoint on a clock of its own, whose timeout for a client does not cut a wait short.
fn runtime(
    profile: &Profile,
    readiness: Readiness,
    faults: Faults,
) -> (
    Arc<SleepClock>,
    std::result::Result<Endpoint, varia_serve::Error>,
) {
    let clock = Arc::new(SleepClock::default());
    let silicon = Silicon::new(
        profile,
        Options {
            memory: Some(SIZE),
            readiness,
            faults,
            clock: Arc::clone(&clock) as Arc<_>,
            ..Options::default()
        },
    );
    let endpoint = Endpoint::new(
        Arc::new(silicon.expect("silicon of this size")),
        varia_serve::Options {
            view: View::Virtual,
            clock: Arc::clone(&clock) as Arc<_>,
            timeout: Millis(300_000),
            ..varia_serve::Options::default()
        },
    );
    (clock, endpoint)
}

fn seconds(clock: &SleepClock) -> u64 {
    varia_serve::Clock::now(clock).0 / 1000
}

/// The rows of GPUs that are bound, on a clock that moves only while the runtime sleeps.
#[test]
fn the_user_space_runtime_ends_each_probe_as_its_row_says() {
    for row in ROWS.iter().filter(|row| !row.state.is_read()) {
        let what = row.what;
        let options = row.state.options(&Arc::new(ManualClock::default()));
        let late = Readiness::After(DELAY);
        let readiness = match row.state {
            State::Late => late,
            _ => options.readiness,
        };
        let (clock, endpoint) = runtime(&row.chip.profile(), readiness, options.faults);
        let waited = seconds(&clock);
        let errno = endpoint.as_ref().err().map(varia_serve::Error::errno);
        match row.end {
            End::TimesOut(wait) => {
                assert_eq!(errno, Some(Errno::ETIME), "{what}");
                assert!((wait..=wait + 1).contains(&waited), "{what}: {waited} s");
            }
            End::NoDevice => {
                assert_eq!(errno, Some(Errno::ENODEV), "{what}");
                assert_eq!(waited, WARM_UP.as_secs(), "{what}");
            }
            End::Waits => {
                assert_eq!(errno, None, "{what}");
                assert_eq!(waited, DELAY.as_secs(), "{what}");
            }
            End::FallsBack => {
                assert_eq!(errno, None, "{what}");
                assert!(endpoint.is_ok_and(|it| it.declined().is_some()), "{what}");
            }
        }
    }
}

#[test]
fn the_user_space_runtime_waits_for_a_late_gpu_and_again_after_a_reset() {
    for profile in [find("gh200"), find("cxl")] {
        let late = Readiness::After(DELAY);
        let (clock, endpoint) = runtime(&profile, late, Faults::NONE);
        let endpoint = endpoint.expect("a late GPU is served");
        assert_eq!(seconds(&clock), DELAY.as_secs());
        endpoint.open().expect("it opens");
        endpoint.reset().expect("it resets");
        let read = endpoint.read(RegionIndex::BAR4, 0, &mut [0; 8]);
        assert_eq!(read, Ok(8));
        assert!(seconds(&clock) >= 2 * DELAY.as_secs());
    }
}

#[test]
fn the_user_space_runtime_gives_up_when_readiness_is_lost_after_a_reset() {
    // two resets are the probe's, the third is that of open
    let lost = Faults {
        lost_after_resets: Some(4),
        ..Faults::NONE
    };
    for (profile, wait) in [(find("gh200"), WAIT), (find("cxl"), CXL_VALID)] {
        let (clock, endpoint) = runtime(&profile, Readiness::Immediate, lost);
        let endpoint = endpoint.expect("it is ready at first");
        endpoint.open().expect("it opens");
        assert_eq!(endpoint.read(RegionIndex::BAR4, 0, &mut [0; 8]), Ok(8));
        endpoint.reset().expect("it resets");
        let before = seconds(&clock);
        let read = endpoint.read(RegionIndex::BAR4, 0, &mut [0; 8]);
        assert_eq!(read, Err(Errno::ETIME), "{}", profile.name);
        let waited = seconds(&clock) - before;
        assert!(
            (wait..=wait + 1).contains(&waited),
            "{}: {waited} s",
            profile.name
        );
    }
}

#[test]
fn the_user_space_runtime_falls_back_without_a_size_or_properties() {
    for faults in [SIZE_ZERO, NO_PROPERTIES] {
        let (_, endpoint) = runtime(&find("gh200"), Readiness::Immediate, faults);
        let endpoint = endpoint.expect("it falls back");
        assert!(endpoint.declined().is_some(), "{faults:?}");
        let variant = endpoint.variant().expect("the variant that declined");
        assert!(matches!(
            variant.outcome(),
            varia_variant::Outcome::Decline(_)
        ));
        for region in [RegionIndex::BAR2, RegionIndex::BAR4] {
            let info = endpoint.region_info(region).expect("region info");
            let bar = find("gh200").bar(region.0 as u8).expect("a BAR").spec.size;
            assert_eq!(
                info.info.size, bar,
                "the physical BAR shows, with {faults:?}"
            );
        }
    }
}
