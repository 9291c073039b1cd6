//! Requests that no device can satisfy, and what is said of them.

use std::fs;

use varia_core::HostPhys;
use varia_silicon::{Backing, Options, Silicon, profile};

fn refusal(options: Options) -> String {
    let profile = profile::find("gh200").unwrap();
    Silicon::new(profile, options)
        .expect_err("nothing can be made of this")
        .to_string()
}

fn sized(memory: u64) -> Options {
    Options {
        memory: Some(memory),
        ..Options::default()
    }
}

#[test]
fn no_memory_says_what_to_give() {
    assert_eq!(
        refusal(sized(0)),
        "a gh200-120gb without memory can't be made: give it a multiple of 4 KiB, for example 96G"
    );
}

#[test]
fn a_part_of_a_page_says_the_nearest_size() {
    assert_eq!(
        refusal(sized((96 << 30) + 100)),
        "memory size 96 GiB + 100 bytes is not a multiple of 4 KiB: the nearest smaller size is \
         96 GiB"
    );
}

#[test]
fn less_than_a_page_says_the_smallest_size() {
    for (size, shown) in [(1, "1 byte"), (4095, "3 KiB + 1023 bytes")] {
        assert_eq!(
            refusal(sized(size)),
            format!("memory size {shown} is not a multiple of 4 KiB: the smallest size is 4 KiB")
        );
    }
    let profile = profile::find("gh200").unwrap();
    assert!(Silicon::new(profile, sized(4096)).is_ok());
}

#[test]
fn an_address_beyond_the_width_says_where_to_go() {
    for base in [1 << 48, !4095] {
        let options = Options {
            base: Some(HostPhys(base)),
            ..sized(4096)
        };
        assert_eq!(
            refusal(options),
            format!(
                "memory of 4 KiB at {base:#x} reaches beyond the 48-bit physical address \
                 space: choose an address below 0x1000000000000"
            )
        );
    }
}

#[test]
fn memory_beyond_the_address_width_says_how_much_fits() {
    let message = refusal(sized(1 << 48));
    assert!(
        message.contains("beyond the 48-bit physical address space"),
        "{message}"
    );
    assert!(
        message.ends_with("choose at most 190 TiB at this address"),
        "{message}"
    );
    assert!(refusal(sized(!4095)).contains("48-bit"), "no overflow");
    let fits = (1 << 48) - 0x4200_0000_0000;
    let profile = profile::find("gh200").unwrap();
    assert!(Silicon::new(profile, sized(fits)).is_ok());
}

#[test]
fn an_odd_address_says_the_nearest() {
    let options = Options {
        base: Some(HostPhys(0x1_0000_0800)),
        ..sized(4096)
    };
    assert_eq!(
        refusal(options),
        "memory address 0x100000800 is not a multiple of 4 KiB: the nearest lower address is \
         0x100000000"
    );
}

#[test]
fn a_file_that_is_too_small_says_both_sizes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4096).unwrap();
    let backing = Backing::File(file.path().to_owned());
    let message = refusal(Options {
        backing,
        ..sized(8192)
    });
    assert!(
        message.contains("4 KiB") && message.contains("8 KiB"),
        "{message}"
    );
}

#[test]
fn a_named_file_keeps_the_bytes_of_the_device() {
    use varia_core::Device;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("memory");
    let make = || {
        let options = Options {
            backing: Backing::File(path.clone()),
            ..sized(8192)
        };
        Silicon::new(profile::find("gh200").unwrap(), options).unwrap()
    };
    let device = make();
    let at = HostPhys(device.coherent_memory().unwrap().base.0 + 4096);
    device.memory_write(at, b"still here").unwrap();
    drop(device);
    let mut bytes = [0; 10];
    make().memory_read(at, &mut bytes).unwrap();
    assert_eq!(&bytes, b"still here");
    assert_eq!(fs::metadata(&path).unwrap().len(), 8192);
}

#[test]
fn an_unknown_profile_suggests_the_nearest() {
    const FIRST: &str =
        "there are gh200-120gb (gh200), gh200-480gb, gb200, gb300, gb300-cxl (cxl), ";
    let names = profile::every().map(|profile| match profile.alias {
        Some(alias) => format!("{} ({alias})", profile.name),
        None => profile.name.to_owned(),
    });
    let names: Vec<_> = names.collect();
    let (last, others) = names.split_last().unwrap();
    let all = format!("there are {} and {last}", others.join(", "));
    assert!(
        all.starts_with(FIRST) && all.contains(" nic, virtio-net, v100-nvlink"),
        "{all}"
    );
    let message = |name| profile::find(name).unwrap_err().to_string();
    assert_eq!(
        message("gh20"),
        format!("unknown profile \"gh20\" (did you mean \"gh200\"?); {all}")
    );
    assert!(message("GB200").contains("did you mean \"gb200\"?"));
    assert_eq!(
        message("voodoo"),
        format!("unknown profile \"voodoo\"; {all}")
    );
}
