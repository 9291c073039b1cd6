//! `--platform`, `--extension` and `--strict`: facts of a platform from a file.

use std::fs;

use serde_json::{Value, json};
use varia_spec::vfio::device_feature::GET;

use crate::process::{Folder, Serving, ended, varia};

fn inspected(args: &[&str]) -> Value {
    let mut command = varia(["inspect", "--json"]);
    command.args(args);
    serde_json::from_str(&ended(command).success().stdout).unwrap()
}

/// Facts of a profile's platform.
fn facts(profile: &str) -> Value {
    inspected(&[profile])["platform"].clone()
}

#[test]
fn inspect_explains_a_gpu_its_bridge_and_internal_shared_memory() {
    let text = |profile| ended(varia(["inspect", profile])).success().stdout;
    let (gpu, bridge, ism) = (text("v100-nvlink"), text("v100-bridge"), text("ism"));
    for (text, line) in [
        (
            &gpu,
            "variant          nvlink2-gpu\nselected by      ids 10de:1db1\n",
        ),
        (
            &gpu,
            "region 9         128 GiB, type 0x800010de subtype 0x1, can be read and written and mapped: GPU memory at 0x400000000, target address 0x3ffff00000000\n",
        ),
        (
            &bridge,
            "variant          nvlink2-bridge\nselected by      ids 1014:04ea\n",
        ),
        (
            &bridge,
            ": ATSD at 0x6020010000000, target address 0x3ffff00000000, link speed 9\n",
        ),
        (
            &ism,
            "variant          ism\nselected by      ids 1014:04ed\nextensions       zdev\n",
        ),
        (&ism, "BAR0             256 TiB, 64-bit memory\n"),
        (&ism, "file positions   region << 48\n"),
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let json = inspected(&["ism"]);
    assert_eq!(json["offset_shift"], 48);
    assert_eq!(
        json["capabilities"],
        json!([[1, 2], [2, 2], [3, 1], [4, 1]])
    );
}

#[test]
fn the_facts_that_inspect_shows_are_taken_from_a_file_and_change_the_device() {
    let folder = Folder::new();
    let file = folder.root().join("platform.json");
    let mut zpci = facts("ism");
    zpci["zpci"]["ccdf_err_length"] = json!(4);
    zpci["zpci"]["errors"] = json!(["01020304"]);
    zpci["zpci"]["fh"] = json!("0x80000077");
    fs::write(&file, zpci.to_string()).unwrap();
    let name = file.to_str().unwrap();

    let socket = folder.root().join("nic.sock");
    let mut command = varia(["serve", "nic", "--extension", "zdev", "--platform", name]);
    command.arg("--socket").arg(&socket);
    let serving = Serving::of(command, socket);
    let mut client = serving.client();
    let capabilities = client.device_capabilities().unwrap();
    let base = capabilities[0].body();
    assert_eq!(
        base[24..32],
        [0x8000_0077_u32, 4].map(u32::to_ne_bytes).concat()
    );
    assert_eq!(client.device_feature(13 | GET, 4).unwrap(), [1, 2, 3, 4]);

    // links with another target address
    let mut links = facts("v100-nvlink");
    let nodes = links["device_tree"]["nodes"].as_object_mut().unwrap();
    for node in nodes.values_mut() {
        if let Some(target) = node.get_mut("ibm,device-tgt-addr") {
            *target = json!([7, 8]);
        }
    }
    fs::write(&file, links.to_string()).unwrap();
    let seen = inspected(&["v100-nvlink", "--platform", name]);
    assert_eq!(seen["regions"][0]["target_address"], 0x7_0000_0008_u64);
}

#[test]
fn a_platform_without_the_facts_is_told_and_strict_refuses() {
    let folder = Folder::new();
    let file = folder.root().join("none.json");
    fs::write(&file, r#"{"schema": "varia-platform/1"}"#).unwrap();
    let name = file.to_str().unwrap();
    for (profile, reason) in [
        (
            "v100-nvlink",
            "the platform names no NVLink2 bridge of the GPU (ibm,npu) (ENODEV): ",
        ),
        (
            "v100-bridge",
            "the platform names no GPU of the NVLink2 bridge (ibm,gpu) (ENODEV): ",
        ),
        (
            "ism",
            "the platform names no longest store of the function's group (imaxstbl) (ENODEV): ",
        ),
    ] {
        let args = ["inspect", profile, "--platform", name];
        let text = ended(varia(args)).success().stdout;
        assert!(
            text.contains(&format!("declined         {reason}")),
            "{text}"
        );
        let mut strict = varia(args);
        strict.arg("--strict");
        ended(strict).refused(&[
            reason,
            "the option strict allows no less than the whole device",
        ]);
    }
    // the region is there for the facts of the link
    let mut unnamed = facts("v100-bridge");
    let nodes = unnamed["device_tree"]["nodes"].as_object_mut().unwrap();
    for node in nodes.values_mut() {
        node.as_object_mut().unwrap().remove("ibm,mmio-atsd");
    }
    fs::write(&file, unnamed.to_string()).unwrap();
    let ended_well = ended(varia(["inspect", "v100-bridge", "--platform", name])).success();
    let warning = "the platform names no ATSD: the region is empty, and each access to it fails; \
                   correct the platform's firmware, or the file with its facts";
    assert!(ended_well.stderr.contains(warning), "{}", ended_well.stderr);
    for profile in ["v100-nvlink", "v100-bridge", "ism"] {
        ended(varia(["serve", profile, "--memory-enable", "honour"]))
            .refused(&["memory-enable honour would change nothing"]);
    }
    ended(varia([
        "inspect",
        "gh200",
        "--fault",
        "size-zero",
        "--strict",
    ]))
    .refused(&["the option strict allows no less than the whole device"]);
    ended(varia(["inspect", "nic", "--extension", "zdev"])).refused(&[
        "the platform's zPCI facts of the function can't be read (ENODEV)",
        "the file with its facts",
    ]);
}

#[test]
fn each_fault_of_a_file_is_told_with_the_value_and_the_remedy() {
    let folder = Folder::new();
    let file = folder.root().join("bad.json");
    let name = file.to_str().unwrap();
    let changed = |profile: &str, change: &dyn Fn(&mut Value)| {
        let mut facts = facts(profile);
        change(&mut facts);
        facts.to_string()
    };
    let gpu = "/pciex@600c3c0100000/pci@0/pci@0/gpu@0";
    for (profile, text, says) in [
        (
            "nic",
            "{".to_owned(),
            "has no facts of a platform: EOF while parsing",
        ),
        (
            "nic",
            r#"{"schema": "varia-facts/1"}"#.to_owned(),
            "the schema is \"varia-facts/1\": this version reads \"varia-platform/1\"",
        ),
        (
            "nic",
            r#"{"schema": "varia-platform/1", "zcpi": {}}"#.to_owned(),
            "unknown field `zcpi`",
        ),
        (
            "ism",
            changed("ism", &|f| {
                drop(f["zpci"].as_object_mut().unwrap().remove("noi"))
            }),
            "missing field `noi`",
        ),
        (
            "ism",
            changed("ism", &|f| f["zpci"]["noi"] = json!(4096)),
            "noi, a fact of the platform, is 4096, outside 0 to 4095",
        ),
        (
            "ism",
            changed("ism", &|f| f["zpci"]["imaxstbl"] = json!(0)),
            "imaxstbl, a fact of the platform, is 0, outside 1 to 4096",
        ),
        (
            "ism",
            changed("ism", &|f| f["zpci"]["fh"] = json!(-1)),
            "expected a number from 0 to 2^64 - 1",
        ),
        (
            "ism",
            changed("ism", &|f| f["zpci"]["fh"] = json!("80")),
            "as in \"0x10\"",
        ),
        (
            "ism",
            changed("ism", &|f| f["zpci"]["util_string"] = json!("c9e2")),
            "util_string has 2 bytes: give it 64",
        ),
        (
            "ism",
            changed("ism", &|f| f["zpci"]["util_string"] = json!("c9e")),
            "give each byte two hexadecimal digits",
        ),
        (
            "ism",
            changed("ism", &|f| f["zpci"]["errors"] = json!(["00"])),
            "an error record has 1 bytes, and ccdf_err_length is 0",
        ),
        (
            "v100-nvlink",
            changed("v100-nvlink", &|f| {
                f["device_tree"]["function"] = json!("/gpu")
            }),
            "function is \"/gpu\", and no node has this name",
        ),
        (
            "v100-nvlink",
            changed("v100-nvlink", &|f| {
                f["device_tree"]["nodes"][gpu]["ibm,npu"] = json!([1_u64 << 32])
            }),
            "has more than 32 bits: write it as two cells",
        ),
        (
            "v100-nvlink",
            changed("v100-nvlink", &|f| {
                f["device_tree"]["nodes"][gpu]["phandle"] = json!([0x200])
            }),
            "both have the phandle 512",
        ),
        (
            "v100-nvlink",
            changed("v100-nvlink", &|f| f["memory"][0]["base"] = json!(u64::MAX)),
            "ends beyond 64 bits: correct its base or size",
        ),
        (
            "v100-nvlink",
            changed("v100-nvlink", &|f| {
                f["device_tree"]["nodes"]["/memory@400000000"]["reg"] = json!([4, 0, 0])
            }),
            "(reg) can't be read (EOVERFLOW)",
        ),
    ] {
        fs::write(&file, text).unwrap();
        ended(varia(["inspect", profile, "--platform", name])).refused(&[says]);
    }
    ended(varia(["inspect", "nic", "--platform", "/no/such/file"]))
        .refused(&["/no/such/file can't be read: No such file"]);
    ended(varia(["serve", "nic", "--as", "physical", "--strict"]))
        .refused(&["--strict changes a VM's view"]);
    fs::write(&file, facts("ism").to_string()).unwrap();
    ended(varia([
        "serve",
        "nic",
        "--as",
        "physical",
        "--platform",
        name,
    ]))
    .refused(&["--platform changes a VM's view"]);
}
