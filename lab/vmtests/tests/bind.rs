//! `varia list`, `bind` and `unbind` on a real sysfs: the original driver, Varia's, vfio-pci and
//! a device's native one, with a real modules.alias, and killed at random moments.
//!
//! All run in one machine, x86-64 so that this machine's own build of the command runs in it.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use varia_lab::{Arch, GuestCommand, HANG, Set, closure, packages};
use varia_silicon::{Options, Profile, profile};
use varia_vmtests::command::small_varia;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};

const MIB: u64 = 1 << 20;
/// Rounds of bind and unbind, each killed; `./x soak` asks for more.
const ROUNDS: usize = 6;
const SOAK_ROUNDS: usize = 500;
/// A device with a driver of its own, on the root bus.
const NATIVE: &str = "0000:00:10.0";
const VARIANT: &str = "nvgrace_gpu_vfio_pci";
/// Where the machine has kmod, with libraries of its own.
const KMOD: &str = "/kmod";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A chip whose second BAR has an address in a small machine, too.
fn small(name: &str) -> Result<Profile> {
    let mut profile = profile::find(name)?.clone();
    for bar in profile.bars.iter_mut().filter(|bar| bar.value.index == 2) {
        bar.value.spec.size = 64 * MIB;
    }
    Ok(profile)
}

/// The shared libraries of this machine's programs.
fn libraries(program: &PathBuf) -> Result<Vec<PathBuf>> {
    let told = Command::new("ldd").arg(program).output()?;
    let told = String::from_utf8(told.stdout)?;
    let paths = told.split_whitespace().filter(|word| word.starts_with('/'));
    let paths: Vec<_> = paths.map(PathBuf::from).collect();
    if paths.is_empty() {
        return Err(format!("ldd names no library: {told}").into());
    }
    Ok(paths)
}

struct Lab {
    host: Host,
}

impl Lab {
    fn boot() -> Result<Self> {
        let program = small_varia()?;
        let of_size = |size| Options {
            memory: Some(size),
            ..Options::default()
        };
        let userland = packages::ensure(Set::Userland(Arch::X86_64))?;
        let mut plan = HostPlan::new(Arch::X86_64, "bind")
            .gpu(&small("gb200")?, of_size(512 * MIB), Memory::Real)
            // less than what has to be reserved: a probe that fails
            .gpu(&small("gh200")?, of_size(512 * MIB), Memory::Real)
            .with(|vm| {
                vm.module("virtio_rng")
                    .host_file("/usr/bin/varia", &program)
                    .host_file(
                        "/usr/share/misc/pci.ids",
                        userland.path("/usr/share/misc/pci.ids"),
                    )
                    .qemu_args(["-device", "virtio-rng-pci,addr=0x10"])
            });
        let tools = packages::ensure(Set::Tools)?;
        for (path, file) in closure::of(&tools, Arch::X86_64, &["/usr/bin/kmod"])? {
            plan = plan.with(|vm| vm.host_file(format!("{KMOD}{path}"), file));
        }
        for library in libraries(&program)? {
            plan = plan.with(|vm| vm.host_file(library.to_string_lossy(), library.clone()));
        }
        let lab = Self { host: plan.boot()? };
        lab.host.install_kernel()?;
        Ok(lab)
    }

    fn sh(&self, script: &str) -> Result<String> {
        Ok(self.host.vm.sh(script)?)
    }

    /// Runs `varia`: what it printed, or what it complained of.
    fn varia(&self, args: &str) -> Result<std::result::Result<String, String>> {
        let words = shell_words(args);
        let argv = std::iter::once("/usr/bin/varia".to_owned()).chain(words);
        let output = self.host.vm.run(&GuestCommand::new(argv))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(match output.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        })
    }

    /// Driver and driver_override of a device.
    fn state(&self, bdf: &str) -> Result<(Option<String>, String)> {
        let folder = format!("/sys/bus/pci/devices/{bdf}");
        let driver = self.host.vm.link_name(&format!("{folder}/driver")).ok();
        let wanted = self
            .host
            .vm
            .read_text(&format!("{folder}/driver_override"))?;
        Ok((driver, wanted))
    }

    fn gpu(&self) -> &str {
        self.host.address(0)
    }

    fn refused(&self) -> &str {
        self.host.address(1)
    }
}

fn shell_words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn bound(driver: &str) -> (Option<String>, String) {
    (Some(driver.to_owned()), driver.to_owned())
}

fn free() -> (Option<String>, String) {
    (None, "(null)".to_owned())
}

fn native() -> (Option<String>, String) {
    (Some("virtio-pci".to_owned()), "(null)".to_owned())
}

#[test]
fn devices_are_listed_bound_and_given_back_on_a_real_sysfs() -> Result<()> {
    let lab = Lab::boot()?;
    let (gpu, refused) = (lab.gpu().to_owned(), lab.refused().to_owned());
    for driver in [Driver::Ours, Driver::Original] {
        lab.host.install(driver)?;
        list(&lab)?;
        bind_and_unbind(&lab, &gpu)?;
        refusal(&lab, &gpu, &refused)?;
    }
    persistent(&lab, &gpu)?;
    replacement(&lab, &gpu)?;
    in_use(&lab, &gpu)?;
    capture(&lab)?;
    let begin = Instant::now();
    doctor(&lab, &gpu)?;
    println!("result: varia doctor's part takes {:?}", begin.elapsed());
    random_kills(&lab, &gpu)?;
    lab.host.power_off()?;
    Ok(())
}

fn list(lab: &Lab) -> Result<()> {
    let listing: Value = serde_json::from_str(&lab.varia("list --json")??)?;
    let devices = listing["devices"].as_array().ok_or("no devices")?;
    let found = devices.iter().find(|device| device["bdf"] == lab.gpu());
    let found = found.ok_or_else(|| format!("no GPU in {listing:#}"))?;
    assert_eq!(found["best_driver"]["module"], VARIANT, "{found:#}");
    let memory = &found["coherent_memory"];
    // what the silicon was given, read from the machine's own ACPI tables
    let told = lab.host.silicon(0).coherent_memory();
    let told = told.ok_or("silicon without memory")?;
    assert_eq!(memory["size"], 512 * MIB, "{found:#}");
    assert_eq!(memory["base"], told.base.0, "{found:#}");
    assert!(
        found["name"]
            .as_str()
            .is_some_and(|name| name.contains("NVIDIA"))
    );
    let bars = small("gb200")?.bars;
    let bars: Vec<_> = bars.iter().map(|bar| bar.value.spec.size).collect();
    let shown = found["bars"].as_array().ok_or("no BARs")?.iter();
    let shown: Vec<_> = shown.filter_map(|bar| bar["size"].as_u64()).collect();
    assert_eq!(shown, bars, "{found:#}");
    Ok(())
}

fn bind_and_unbind(lab: &Lab, gpu: &str) -> Result<()> {
    assert_eq!(lab.state(gpu)?, free());
    assert_eq!(lab.state(NATIVE)?, native());
    let told = lab.varia(&format!("bind {gpu} --dry-run"))??;
    assert!(told.contains(VARIANT), "{told}");
    assert_eq!(lab.state(gpu)?, free());
    let told = lab.varia(&format!("bind {gpu}"))??;
    assert!(told.contains("vfio_pci:v000010DEd00002941"), "{told}");
    assert_eq!(lab.state(gpu)?, bound(VARIANT));
    // to vfio-pci by its other name, and a device with a driver of its own beside it
    lab.varia(&format!("bind {gpu} {NATIVE} --driver vfio_pci"))??;
    assert_eq!(lab.state(gpu)?, bound("vfio-pci"));
    assert_eq!(lab.state(NATIVE)?, bound("vfio-pci"));
    lab.varia(&format!("unbind {gpu} {NATIVE}"))??;
    assert_eq!(lab.state(gpu)?, free());
    assert_eq!(lab.state(NATIVE)?, native());
    Ok(())
}

/// The probe of the second GPU fails: nothing of the first is left either.
fn refusal(lab: &Lab, gpu: &str, refused: &str) -> Result<()> {
    let told = lab.varia(&format!("bind {gpu} {refused}"))?.unwrap_err();
    for part in [refused, VARIANT, "os error 75", "--fallback vfio-pci"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    assert_eq!(lab.state(gpu)?, free());
    assert_eq!(lab.state(refused)?, free());
    let told = lab.varia(&format!("bind {gpu} {refused} --fallback vfio-pci"))??;
    assert!(told.contains("INSTEAD OF"), "{told}");
    assert_eq!(lab.state(gpu)?, bound(VARIANT));
    assert_eq!(lab.state(refused)?, bound("vfio-pci"));
    lab.varia(&format!("unbind {gpu} {refused}"))??;
    assert_eq!(lab.state(gpu)?, free());
    assert_eq!(lab.state(refused)?, free());
    Ok(())
}

/// Bound for good: what a start of the machine does, typed as the service and the udev rule of
/// `cli/systemd` do it.
fn persistent(lab: &Lab, gpu: &str) -> Result<()> {
    let file = |bdf: &str| format!("/etc/varia/bind.d/{bdf}.json");
    lab.varia(&format!("bind {gpu} --persist"))??;
    let told = lab.varia(&format!("bind {NATIVE} --driver vfio-pci --persist"))??;
    assert!(told.contains("at each start"), "{told}");
    // as a start finds them: no record, and a driver that takes what it may
    let restart = || -> Result<()> {
        for bdf in [gpu, NATIVE] {
            lab.sh(&format!(
                "cd /sys/bus/pci/devices/{bdf}; echo {bdf} > driver/unbind
                 echo > driver_override; rm -rf /run/varia"
            ))?;
        }
        Ok(())
    };
    let probe = |bdf: &str| lab.sh(&format!("echo {bdf} > /sys/bus/pci/drivers_probe"));
    restart()?;
    probe(NATIVE)?;
    assert_eq!(lab.state(NATIVE)?, native());
    lab.varia("bind --persisted")??;
    assert_eq!(lab.state(gpu)?, bound(VARIANT));
    assert_eq!(lab.state(NATIVE)?, bound("vfio-pci"));
    // with the rule before, the kernel gives the device to no other driver
    restart()?;
    lab.varia(&format!("bind --reserve {NATIVE} {gpu}"))??;
    assert_eq!(lab.state(NATIVE)?, (None, "vfio-pci".to_owned()));
    probe(NATIVE)?;
    assert_eq!(lab.state(NATIVE)?, bound("vfio-pci"));
    lab.varia("bind --persisted")??;
    assert_eq!(lab.state(NATIVE)?, bound("vfio-pci"));
    let listing: Value = serde_json::from_str(&lab.varia("list --json --all")??)?;
    let devices = listing["devices"].as_array().ok_or("no devices")?.iter();
    let saved: Vec<_> = devices.filter(|one| !one["persistent"].is_null()).collect();
    assert_eq!(saved.len(), 2, "{saved:#?}");
    let text = lab.varia("list")??;
    for part in [
        format!("at each start    bound to {VARIANT} ({})", file(gpu)),
        format!("note: {NATIVE} is bound to vfio-pci at each start"),
    ] {
        assert!(text.contains(&part), "{part:?} is not in {text}");
    }
    // a file torn, one of another device, and one of a device that is gone
    lab.varia(&format!("unbind {NATIVE}"))??;
    assert_eq!(lab.state(NATIVE)?, free(), "what this start had");
    lab.sh(&format!(
        "cd /etc/varia/bind.d; sed s/{gpu}/{NATIVE}/ {gpu}.json > {NATIVE}.json
         sed s/{gpu}/00ff:01:00.0/ {gpu}.json > 00ff:01:00.0.json
         head -c 50 {gpu}.json > {gpu}.new; mv {gpu}.new {gpu}.json"
    ))?;
    let told = lab.varia("bind --persisted")?.unwrap_err();
    for part in [
        format!("{} is damaged", file(gpu)),
        format!("at {NATIVE} is another one"),
        "00ff:01:00.0, which does not exist".to_owned(),
    ] {
        assert!(told.contains(&part), "{part:?} is not in {told}");
    }
    assert_eq!(lab.state(NATIVE)?, free());
    lab.varia(&format!("unbind {gpu} {NATIVE} 00ff:01:00.0"))??;
    assert_eq!(lab.sh("ls /etc/varia/bind.d")?, "");
    assert_eq!(lab.varia("bind --persisted")??, "");
    assert_eq!(lab.state(gpu)?, free());
    probe(NATIVE)?;
    assert_eq!(lab.state(NATIVE)?, native());
    Ok(())
}

/// On a kernel that ships the original, ours is installed where packages put theirs: it is loaded
/// in the other's place, by its name and by the device's alias, until it is taken away.
fn replacement(lab: &Lab, gpu: &str) -> Result<()> {
    lab.host.unload()?;
    // Which folder goes before which, kmod knows; busybox does not.
    let kmod = format!(
        "exec {KMOD}/usr/lib64/ld-linux-x86-64.so.2 --library-path {KMOD}/usr/lib/x86_64-linux-gnu"
    );
    lab.sh(&format!(
        "set -e; for name in depmod modprobe; do rm -f /sbin/$name
         printf '#!/bin/sh\n{kmod} --argv0 %s {KMOD}/usr/bin/kmod \"$@\"\n' $name > /sbin/$name
         chmod 755 /sbin/$name; done
         cd /lib/modules/$(uname -r); rm -r extra
         mkdir -p kernel/drivers/vfio/pci/nvgrace-gpu updates
         cp {} kernel/drivers/vfio/pci/nvgrace-gpu/nvgrace-gpu-vfio-pci.ko
         cp {} updates/nvgrace-gpu-vfio-pci.ko",
        Driver::Original.file(),
        Driver::Ours.file()
    ))?;
    let parameters = format!("/sys/module/{VARIANT}/parameters");
    for (ours, taken_away) in [(true, ""), (false, "rm updates/nvgrace-gpu-vfio-pci.ko;")] {
        lab.sh(&format!(
            "set -e; cd /lib/modules/$(uname -r); {taken_away} /sbin/depmod"
        ))?;
        let loaded = || lab.host.vm.list(&parameters).is_ok();
        lab.sh("/sbin/modprobe nvgrace-gpu-vfio-pci")?;
        assert_eq!(loaded(), ours, "by its name");
        lab.host.unload()?;
        lab.varia(&format!("bind {gpu}"))??;
        assert_eq!(lab.state(gpu)?, bound(VARIANT));
        assert_eq!(loaded(), ours, "by varia bind");
        lab.varia(&format!("unbind {gpu}"))??;
        lab.host.unload()?;
    }
    // What busybox has no use for, it does not keep up to date.
    lab.sh(
        "set -e; cd /lib/modules/$(uname -r); rm -r kernel/drivers modules.*.bin
         rm /sbin/depmod; ln -sf /bin/busybox /sbin/modprobe",
    )?;
    lab.host.install(Driver::Original)?;
    Ok(())
}

fn in_use(lab: &Lab, gpu: &str) -> Result<()> {
    lab.varia(&format!("bind {gpu}"))??;
    let group = format!("/sys/bus/pci/devices/{gpu}/iommu_group");
    let group = lab.host.vm.link_name(&group)?;
    let holder = GuestCommand::sh(&format!("exec sleep 100000 < /dev/vfio/{group}"));
    let holder = lab.host.vm.spawn(&holder)?;
    // until it has the file open
    lab.sh("until pidof sleep; do sleep 0.2; done")?;
    for command in ["unbind", "list --probe"] {
        let device = if command == "unbind" { gpu } else { "" };
        let told = lab.varia(&format!("{command} {device}"))?.unwrap_err();
        let file = format!("/dev/vfio/{group}");
        for part in [gpu, "process", "sleep", &file] {
            assert!(told.contains(part), "{part:?} is not in {told}");
        }
    }
    assert_eq!(lab.state(gpu)?, bound(VARIANT));
    lab.sh("kill $(pidof sleep)")?;
    lab.host.vm.wait(&holder, HANG)?;
    lab.varia(&format!("unbind {gpu}"))??;
    // now no process has the device open, and no driver decodes the device's memory
    lab.varia("list --probe")??;
    Ok(())
}

/// A capture of this machine lists as the machine does.
fn capture(lab: &Lab) -> Result<()> {
    lab.varia("capture /tmp/host.tar")??;
    let here = lab.varia("list --json --all")??;
    let there = lab.varia("list --json --all --sysfs /tmp/host.tar")??;
    assert!(here == there, "{here}\n{there}");
    Ok(())
}

/// Findings of `varia doctor` on this machine, started after `before`: {check, subject, severity,
/// found, remedies} of each.
fn findings(lab: &Lab, before: &str, args: &str) -> Result<Vec<Value>> {
    told(
        lab,
        &format!("{before} /usr/bin/varia doctor --json {args}"),
    )
}

fn told(lab: &Lab, doctor: &str) -> Result<Vec<Value>> {
    // it fails where a check does, and this machine has no KVM
    let text = lab.sh(&format!(
        "( {doctor} ) 2>/tmp/complaint || cat /tmp/complaint"
    ))?;
    let report: Value = serde_json::from_str(&text).map_err(|_| format!("no JSON: {text:?}"))?;
    Ok(report["findings"].as_array().ok_or("no findings")?.clone())
}

/// The one finding of a check about a subject.
fn finding(all: &[Value], check: &str, subject: Option<&str>) -> Result<Value> {
    let is = |one: &&Value| {
        one["check"] == check && (subject.is_none() || one["subject"].as_str() == subject)
    };
    let found: Vec<_> = all.iter().filter(is).cloned().collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        others => Err(format!("{check} {subject:?}: {others:#?}").into()),
    }
}

/// The first command that a finding says to run.
fn remedy(finding: &Value) -> Result<&str> {
    let remedies = finding["remedies"].as_array().ok_or("no remedies")?.iter();
    let mut commands = remedies.filter_map(|remedy| remedy["command"].as_str());
    commands
        .next()
        .ok_or_else(|| format!("no command in {finding:#}").into())
}

/// Facts that are broken on purpose are found, and the commands that `varia doctor` prints mend
/// them.
fn doctor(lab: &Lab, gpu: &str) -> Result<()> {
    lab.sh(&format!(
        "rmmod {VARIANT}; echo 0 > /proc/sys/vm/nr_hugepages"
    ))?;
    let all = findings(lab, "", "")?;
    // what the machine is
    for (check, subject, severity, part) in [
        ("files", None, "ok", ""),
        ("iommu", None, "ok", "dmar0"),
        ("smmu", None, "not-applicable", "x86_64"),
        ("cacheable-pfnmap", None, "not-applicable", "x86_64"),
        ("group", Some(gpu), "ok", "alone"),
        ("firmware", Some(gpu), "ok", "512 MiB at 0x"),
        ("readiness", Some(gpu), "not-applicable", "--probe"),
        ("memlock", None, "ok", "no limit"),
        ("qemu", None, "failure", "qemu-system-x86_64 is not in PATH"),
    ] {
        let found = finding(&all, check, subject)?;
        assert_eq!(found["severity"], severity, "{found:#}");
        let text = found["found"].as_str().ok_or("no text")?;
        assert!(text.contains(part), "{part:?} is not in {found:#}");
    }
    // what is broken, each by its own remedy
    for (check, subject) in [
        ("variant-driver", None),
        ("hugepages", None),
        ("driver", Some(gpu)),
    ] {
        let found = finding(&all, check, subject)?;
        assert_eq!(found["severity"], "warning", "{found:#}");
        lab.sh(&format!("export PATH=$PATH:/usr/bin; {}", remedy(&found)?))?;
        let mended = finding(&findings(lab, "", "")?, check, subject)?;
        assert_eq!(mended["severity"], "ok", "{found:#}, then {mended:#}");
    }
    let original = finding(&findings(lab, "", "")?, "variant-driver", None)?;
    let text = original["found"].as_str().ok_or("no text")?;
    assert!(text.contains("the original, by"), "{text}");
    // limits are a process's own, and hold for those that have no capability
    lab.sh("mkdir -p /etc && echo nobody:x:65534:65534::/:/bin/sh >> /etc/passwd")?;
    let low = "ulimit -l 64;";
    let user = "start-stop-daemon -S -q -c 65534:65534 -x /usr/bin/varia -- doctor --json";
    let found = finding(&told(lab, &format!("{low} {user}"))?, "memlock", None)?;
    assert_eq!(found["severity"], "warning", "{found:#}");
    let text = found["found"].as_str().ok_or("no text")?;
    assert!(text.starts_with("64 KiB"), "{text}");
    let mended = format!("{low} {}; {user}", remedy(&found)?);
    let mended = finding(&told(lab, &mended)?, "memlock", None)?;
    assert_eq!(mended["found"], "no limit", "{mended:#}");
    of_plan(lab, gpu)?;
    lab.sh("echo 0 > /proc/sys/vm/nr_hugepages")?;
    lab.varia(&format!("unbind {gpu}"))??;
    Ok(())
}

/// A plan is held against the machine: enough hugepages, the GPU free, and then neither.
fn of_plan(lab: &Lab, gpu: &str) -> Result<()> {
    let plan = format!("plan --gpu {gpu} --memory 32M --cpus 1 --hugepages 2M --json");
    lab.sh(&format!(
        "echo 16 > /proc/sys/vm/nr_hugepages; /usr/bin/varia {plan} > /tmp/plan.json"
    ))?;
    let all = findings(lab, "", "/tmp/plan.json")?;
    for check in ["driver", "group", "plan-devices", "backend", "hugepages"] {
        let found = finding(&all, check, None)?;
        assert_eq!(found["severity"], "ok", "{found:#}");
    }
    lab.sh("echo 3 > /proc/sys/vm/nr_hugepages")?;
    // as a VMM has it
    let group = lab
        .host
        .vm
        .link_name(&format!("/sys/bus/pci/devices/{gpu}/iommu_group"))?;
    let held = format!("exec 9<>/dev/vfio/{group};");
    let all = findings(lab, &held, "/tmp/plan.json")?;
    let found = finding(&all, "plan-devices", None)?;
    assert_eq!(found["severity"], "failure", "{found:#}");
    let file = format!("/dev/vfio/{group} open");
    assert!(
        found["found"]
            .as_str()
            .is_some_and(|text| text.contains(&file)),
        "{found:#}"
    );
    let found = finding(&all, "hugepages", None)?;
    assert_eq!(found["severity"], "failure", "{found:#}");
    lab.sh(remedy(&found)?)?;
    let mended = finding(&findings(lab, "", "/tmp/plan.json")?, "hugepages", None)?;
    assert_eq!(mended["severity"], "ok", "{mended:#}");
    // registers are read if the device is awake and not open
    let probe = format!("--probe {gpu}");
    let control = format!("/sys/bus/pci/devices/{gpu}/power/control");
    for (power, before, severity, part) in [
        ("auto", "", "unknown", "the device is in D3hot"),
        ("on", "", "ok", "is ready"),
        ("on", held.as_str(), "unknown", file.as_str()),
    ] {
        lab.sh(&format!("echo {power} > {control}"))?;
        let found = finding(&findings(lab, before, &probe)?, "readiness", None)?;
        let text = found["found"].as_str().ok_or("no text")?;
        assert!(
            found["severity"] == severity && text.contains(part),
            "{power}: {found:#}"
        );
    }
    lab.sh(&format!("echo auto > {control}"))?;
    Ok(())
}

/// Commands that are killed at random moments: the next one finds the old state or the new.
fn random_kills(lab: &Lab, gpu: &str) -> Result<()> {
    let rounds = match std::env::var("VARIA_COUNT") {
        Ok(_) => SOAK_ROUNDS,
        Err(_) => ROUNDS,
    };
    lab.varia(&format!("bind {gpu}"))??;
    let begin = Instant::now();
    lab.varia(&format!("unbind {gpu}"))??;
    let length = begin.elapsed().as_millis().clamp(20, 2000);
    let mut random = 0x9e37_79b9_u64;
    let (mut in_the_middle, mut half) = (0, 0);
    let mut round = 0;
    // and on until a kill has hit a change
    while round < rounds || (in_the_middle == 0 && begin.elapsed() < HANG) {
        for (verb, other, old, new) in [
            ("bind", "unbind", free(), bound(VARIANT)),
            ("unbind", "bind", bound(VARIANT), free()),
        ] {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let delay = u128::from(random >> 33) % length;
            let seconds = format!("{}.{:03}", delay / 1000, delay % 1000);
            let seen = lab.sh(&format!(
                "/usr/bin/varia {verb} {gpu} >/dev/null 2>&1 & sleep {seconds}; kill -9 $! 2>/dev/null; \
                 wait; ls /run/varia"
            ))?;
            let now = lab.state(gpu)?;
            in_the_middle += usize::from(seen.contains("journal.json"));
            half += usize::from(now != old && now != new);
            // the next command ends what was begun, and then there is nothing in between
            let again = lab.varia(&format!("{other} {gpu}"))?;
            let now = lab.state(gpu)?;
            match again {
                Ok(_) => assert_eq!(now, old, "round {round}, {verb} after {delay} ms"),
                // it had not been bound
                Err(told) => {
                    assert!(other == "unbind", "round {round}: {told}");
                    assert!(told.contains("was not bound by"), "round {round}: {told}");
                    assert_eq!(now, old, "round {round}: {told}");
                }
            }
            // and for the next turn the new one
            lab.varia(&format!("{verb} {gpu}"))??;
            assert_eq!(
                lab.state(gpu)?,
                new,
                "round {round}, {verb} after {delay} ms"
            );
        }
        round += 1;
    }
    println!(
        "result: {round} rounds: {in_the_middle} kills in the middle, {half} of them half way"
    );
    assert!(
        in_the_middle > 0,
        "no kill hit a change: they take {length} ms"
    );
    let left = lab.host.vm.list("/run/varia")?;
    assert!(!left.contains(&"journal.json".to_owned()), "{left:?}");
    Ok(())
}
