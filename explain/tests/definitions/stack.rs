//! Features of QEMU and libvirt that a definition uses, and Extended GPU Memory of the host.

use varia_explain::{Examination, Knowledge, examine};
use varia_facts::{Bytes, Facts, Feature, Libvirt};

use crate::broken::extended_memory::domain_with_egm;
use crate::host::GIB;
use crate::text::{codes, command_line, examined, swap, two, two_with_egm, two_with_smmu, without};

/// The host's QEMU lacks these features, and has the others of its version.
fn lacking(facts: &mut Facts, lacks: &[&str]) {
    let qemu = facts.vmm.qemu.as_mut().expect("a QEMU");
    qemu.features
        .retain(|own| !lacks.contains(&own.name.as_str()));
    qemu.features.extend(lacks.iter().map(|name| Feature {
        name: (*name).to_owned(),
        present: false,
        ..Feature::default()
    }));
}

/// Findings of features, with the line of each.
fn features(found: &Examination) -> Vec<(usize, &str)> {
    let findings = found.findings.iter().map(|(finding, _)| finding);
    let own = findings.filter(|finding| finding.code.name() == "vmm-feature");
    own.map(|finding| (finding.line, finding.what.as_str()))
        .collect()
}

#[test]
fn each_option_of_an_smmu_is_asked_of_qemu_and_named_with_its_line() {
    let (facts, plan) = two_with_smmu();
    let good = command_line(&plan);
    for (name, value) in [
        ("ats", "ats=on"),
        ("ril", "ril=on"),
        ("oas", "oas=48"),
        ("ssidsize", "ssidsize=20"),
        ("cmdqv", "cmdqv=on"),
    ] {
        let text = good.replace(",ats=on", "").replace(",ssidsize=20", "");
        let text = text.replacen("arm-smmuv3,", &format!("arm-smmuv3,{value},"), 1);
        let line = text.lines().position(|line| line.contains(value)).unwrap() + 1;
        let mut facts = facts.clone();
        let feature = format!("arm-smmuv3.{name}");
        lacking(&mut facts, &["pxb-pcie", &feature]);
        let found = examined(&text, &facts);
        let bus = text
            .lines()
            .position(|line| line.contains("pxb-pcie"))
            .unwrap()
            + 1;
        let found = features(&found);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].0, line, "{found:?}");
        assert!(found[0].1.contains(&feature), "{found:?}");
        assert_eq!(found[1].0, bus, "{found:?}");
        // an SMMU without the option does not need it
        let found = examined(&text.replacen(&format!("{value},"), "", 1), &facts);
        assert_eq!(features(&found).len(), 1, "{name}");
    }
}

#[test]
fn a_kernel_is_asked_for_iommufd_smmus_and_cacheable_memory() {
    let (facts, plan) = two_with_smmu();
    let text = command_line(&plan);
    let line = |word: &str| text.lines().position(|line| line.contains(word)).unwrap() + 1;
    let found = |change: fn(&mut Facts)| {
        let mut facts = facts.clone();
        change(&mut facts);
        let found = examined(&text, &facts);
        let findings = found.findings.iter();
        findings
            .map(|(finding, _)| (finding.code.name(), finding.line, finding.what.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(|_| {}), []);
    for (option, word, change) in [
        (
            "CONFIG_IOMMUFD",
            "-object 'iommufd,",
            (|facts| facts.kernel.iommufd = Some(false)) as fn(&mut Facts),
        ),
        ("CONFIG_VFIO_DEVICE_CDEV", "-object 'iommufd,", |facts| {
            facts
                .kernel
                .config
                .as_mut()
                .unwrap()
                .remove("VFIO_DEVICE_CDEV");
        }),
        ("CONFIG_ARM_SMMU_V3_IOMMUFD", "arm-smmuv3", |facts| {
            let config = facts.kernel.config.as_mut().unwrap();
            config.insert("ARM_SMMU_V3_IOMMUFD".to_owned(), "n".to_owned());
        }),
    ] {
        let found = found(change);
        let [(code, place, what)] = &found[..] else {
            panic!("{option}: {found:?}");
        };
        assert_eq!((*code, *place), ("kernel-feature", line(word)), "{what}");
        assert!(what.contains(option), "{what}");
    }
    let memory = found(|facts| {
        facts.kernel.kvm.cacheable_pfnmap = Some(false);
        facts.kernel.release = Some("6.12.9".to_owned());
    });
    let codes: Vec<_> = memory.iter().map(|(code, ..)| *code).collect();
    assert_eq!(codes, ["kernel-memory"; 2], "one for each GPU: {memory:?}");
    // a machine that has none of the GPUs is not their host
    let elsewhere = found(|facts| {
        facts.kernel.iommufd = Some(false);
        for function in &mut facts.functions {
            function.bdf = "00aa:01:00.0".parse().unwrap();
        }
    });
    let mut codes = elsewhere.iter().map(|(code, ..)| *code);
    assert!(codes.all(|code| code != "kernel-feature"), "{elsewhere:?}");
}

#[test]
fn a_libvirt_is_asked_for_extended_memory() {
    let (mut facts, _) = two_with_egm();
    let text = domain_with_egm(&two().1);
    let line = text
        .lines()
        .position(|line| line.contains("model='egm'"))
        .unwrap()
        + 1;
    let feature = |present| Feature {
        name: "egm".to_owned(),
        present,
        ..Feature::default()
    };
    let mut found = |version: &str, features: Vec<Feature>| {
        facts.vmm.libvirt = Some(Libvirt {
            version: version.to_owned(),
            features,
            ..Libvirt::default()
        });
        examined(&text, &facts)
    };
    let is_assumed = |found: &Examination| {
        let mut notes = found.notes.iter();
        notes.any(|note| note.contains("<memory model='egm'>") && note.contains("assumed"))
    };
    let unsaid = found("12.8.0", Vec::new());
    assert_eq!(features(&unsaid), []);
    assert!(is_assumed(&unsaid), "{:?}", unsaid.notes);
    let has = found("12.8.0", vec![feature(true)]);
    assert!(features(&has).is_empty() && !is_assumed(&has), "{has:?}");
    let lacks = found("12.8.0", vec![feature(false)]);
    let [(place, what)] = features(&lacks)[..] else {
        panic!("{lacks:?}");
    };
    assert_eq!(place, line);
    assert!(what.contains("<memory model='egm'>"), "{what}");
    assert!(lacks.findings[0].0.remedy.contains("NVIDIA"), "{lacks:?}");
    assert!(features(&found("9.0.0", Vec::new())).len() > 1);
}

#[test]
fn a_device_of_extended_memory_is_large_enough_and_has_no_other_gpu() {
    let (facts, plan) = two_with_egm();
    let text = command_line(&plan);
    let mut small = facts.clone();
    small.host.egm[0].size = Some(Bytes(GIB));
    let found = examined(&text, &small);
    assert_eq!(codes(&found), ["egm-size"]);
    let what = &found.findings[0].0.what;
    assert!(what.contains("4 GiB") && what.contains("1 GiB"), "{what}");
    let mut shared = facts.clone();
    let other = "0009:06:00.0".parse().expect("an address");
    shared.host.egm[0].gpus.push(other);
    let found = examined(&text, &shared);
    assert_eq!(codes(&found), ["egm-partial"]);
    assert!(found.findings[0].0.what.contains("0009:06:00.0"));
    // a device that has what two nodes take together
    let mut both = facts;
    let gpus: Vec<_> = both
        .host
        .egm
        .iter()
        .flat_map(|one| one.gpus.clone())
        .collect();
    both.host.egm.truncate(1);
    both.host.egm[0].gpus = gpus;
    both.host.egm[0].size = Some(Bytes(6 * GIB));
    let text = text.replace("/dev/egm5", "/dev/egm4");
    assert_eq!(codes(&examined(&text, &both)), ["egm-size"]);
}

#[test]
fn without_a_host_the_root_bus_says_the_socket_of_extended_memory() {
    let (_, plan) = two_with_egm();
    let good = command_line(&plan);
    let found = |text: &str| examine(text.as_bytes(), &Knowledge::default()).expect("a definition");
    let has_egm = |found: &Examination| codes(found).iter().any(|code| code.starts_with("egm"));
    assert!(!has_egm(&found(&good)));
    let tie = "acpi-egm-memory,id=gpu1.egm,pci-dev=gpu1,node=1";
    let wrong = found(&swap(
        &good,
        tie,
        "acpi-egm-memory,id=e,pci-dev=gpu1,node=0",
    ));
    let wrong = codes(&wrong);
    assert!(wrong.contains(&"egm-socket"), "{wrong:?}");
    // on the first root bus nothing says it
    let bus = good.lines().find(|line| line.contains("pxb-pcie,id=gpu1"));
    let text = without(&good, &[bus.expect("a root bus").trim_end_matches(" \\")]);
    let text = text.replace("bus=gpu1.bus", "bus=pcie.0");
    let unjudged = found(&text).unjudged;
    let own: Vec<_> = unjudged
        .iter()
        .filter(|part| part.what.starts_with("Extended GPU Memory of gpu1"))
        .collect();
    assert_eq!(own.len(), 1, "{unjudged:?}");
    assert!(own[0].why.contains("which socket"), "{own:?}");
}
