//! The extension zdev over every profile: capabilities and error records, from the facts of a
//! platform to a client.

use std::sync::Arc;

use varia_facts::{HexBytes, Number, PlatformFacts, ZpciFacts};
use varia_serve::{Backend, Endpoint, Error, Options};
use varia_silicon::{Profile, Silicon, profile};
use varia_spec::Errno;
use varia_spec::vfio::device_feature::{GET, PROBE, SET};

use crate::machine::Attached;

const ERROR: u32 = 13;

fn zpci() -> ZpciFacts {
    let facts = profile::find("ism").unwrap().platform.clone().unwrap();
    facts.zpci.unwrap()
}

/// A profile on a platform with these facts beside its own.
fn served(profile: &Profile, zpci: Option<ZpciFacts>, wanted: bool) -> Result<Endpoint, Error> {
    let own = profile.platform.clone().unwrap_or_default();
    let memory = profile.coherent.map(|_| 2 << 30);
    let options = varia_silicon::Options {
        memory,
        platform: Some(PlatformFacts { zpci, ..own }),
        ..Default::default()
    };
    let options = Silicon::new(profile, options).unwrap();
    let wanted = Options {
        zdev: wanted,
        ..Options::default()
    };
    Endpoint::new(Arc::new(options), wanted)
}

fn attach(endpoint: Endpoint) -> Attached {
    crate::machine::attach(&Arc::new(Backend::new(Arc::new(endpoint))))
}

fn ids(client: &mut Attached) -> Vec<(u16, u16)> {
    let capabilities = client.device_capabilities().unwrap();
    capabilities.iter().map(|c| (c.id, c.version)).collect()
}

#[test]
fn the_extension_lies_over_every_profile_and_changes_nothing_else() {
    for profile in profile::every() {
        let alone = served(profile, None, false);
        let extended = served(profile, Some(zpci()), true).unwrap();
        if profile.name != "ism" {
            let alone = alone.unwrap();
            assert!(alone.zdev().is_none() && alone.capabilities().is_empty());
            assert_eq!(alone.variant_name(), extended.variant_name());
            assert_eq!(alone.declined(), extended.declined());
            for endpoint in [&alone, &extended] {
                endpoint.open().unwrap();
                endpoint.close();
            }
            assert_eq!(alone.info(), extended.info());
            for index in 0..alone.info().num_regions {
                let info = |endpoint: &Endpoint| {
                    let info = endpoint.region_info(varia_spec::vfio::RegionIndex(index));
                    info.map(|region| region.info)
                };
                assert_eq!(info(&alone), info(&extended), "{}", profile.name);
            }
        }
        let mut client = attach(extended);
        let expected = [(1, 2), (2, 2), (3, 1), (4, 1)];
        assert_eq!(ids(&mut client), expected, "{}", profile.name);
        client.reset().unwrap();
    }
}

#[test]
fn a_device_without_a_utility_string_has_no_capability_for_it() {
    let nic = profile::find("nic").unwrap();
    let facts = ZpciFacts {
        util_string: None,
        ..zpci()
    };
    let mut client = attach(served(nic, Some(facts), false).unwrap());
    assert_eq!(ids(&mut client), [(1, 2), (2, 2), (4, 1)]);
    let capabilities = client.device_capabilities().unwrap();
    assert_eq!(capabilities[2].body(), [4, 0, 0, 0, 0, 0, 7, 0xc0]);
    let [base, group, _] = &capabilities[..] else {
        panic!("{capabilities:?}");
    };
    assert_eq!(base.body()[24..28], 0x8000_0010_u32.to_ne_bytes());
    assert_eq!(group.body()[32..34], 4096_u16.to_ne_bytes(), "imaxstbl");
}

#[test]
fn each_error_record_is_read_once_the_oldest_first_through_resets() {
    let nic = profile::find("nic").unwrap();
    let records = [vec![1; 96], vec![2; 96], vec![3; 96]];
    let facts = ZpciFacts {
        ccdf_err_length: Some(Number(96)),
        errors: records.clone().map(HexBytes).into(),
        ..zpci()
    };
    let mut client = attach(served(nic, Some(facts), false).unwrap());
    assert_eq!(ids(&mut client)[0], (1, 3));
    let probed = client.device_feature(ERROR | PROBE | GET, 0).unwrap();
    assert!(probed.is_empty());
    for (flags, room, errno) in [
        (ERROR | GET, 95, Errno::EINVAL),
        (ERROR | SET, 96, Errno::EINVAL),
        (12 | GET, 96, Errno::ENOTTY),
    ] {
        let refused = client.device_feature(flags, room).unwrap_err();
        assert_eq!(refused.errno(), Some(errno));
    }
    for record in &records {
        assert_eq!(&client.device_feature(ERROR | GET, 96).unwrap(), record);
        client.reset().unwrap();
    }
    let none = client.device_feature(ERROR | GET, 96).unwrap_err();
    assert_eq!(none.errno(), Some(Errno::ENOMSG));
}

#[test]
fn a_platform_without_records_does_not_speak_the_command() {
    let nic = profile::find("nic").unwrap();
    let mut client = attach(served(nic, Some(zpci()), false).unwrap());
    let refused = client.device_feature(ERROR | GET, 96).unwrap_err();
    assert_eq!(refused.errno(), Some(Errno::EOPNOTSUPP));
}

#[test]
fn missing_and_wrong_facts_are_refused_with_the_value_and_the_remedy() {
    let nic = profile::find("nic").unwrap();
    let missing = served(nic, None, true).unwrap_err();
    assert_eq!(missing.errno(), Errno::ENODEV);
    assert_eq!(
        missing.to_string(),
        "the extension zdev refuses the device: the platform's zPCI facts of the function can't be \
         read (ENODEV); correct the platform's firmware, or the file with its facts"
    );
    let facts = ZpciFacts {
        noi: Number(5000),
        ..zpci()
    };
    let wrong = served(nic, Some(facts), false).unwrap_err();
    assert_eq!(wrong.errno(), Errno::EINVAL);
    assert_eq!(
        wrong.to_string(),
        "the extension zdev refuses the device: noi, a fact of the platform, is 5000, outside 0 to \
         4095; correct the platform's firmware, or the file with its facts"
    );
}
